//! Putting away the MSRs that are the guest's while Vidar does not run: see [`vidar_core::vmx::put_away`].

#![expect(unsafe_code, reason = "MSRs are written")]

use vidar_core::vmx::capabilities::Capabilities;
use vidar_core::vmx::field::{Fields, FieldsMut};
use vidar_core::vmx::put_away::rows;

use super::vmcs::Vmcs;
use crate::arch::msr;

/// Moves what firmware left in the MSRs to the guest: with Intel PT on, the first entry would fail.
pub fn take_over(vmcs: &mut Vmcs, capabilities: &Capabilities) {
    for row in rows(capabilities) {
        vmcs.write(row.field, msr::read_checked(row.msr).unwrap_or(0));
        // SAFETY: 0 switches each of them off, as every exit will.
        let _ = unsafe { msr::write_checked(row.msr, 0) };
    }
}

/// Gives the MSRs what the guest had in them.
pub fn give_back(vmcs: &Vmcs, capabilities: &Capabilities) {
    for row in rows(capabilities) {
        // SAFETY: the guest's value harms Vidar as little as it would without the controls.
        let _ = unsafe { msr::write_checked(row.msr, vmcs.read(row.field)) };
    }
}
