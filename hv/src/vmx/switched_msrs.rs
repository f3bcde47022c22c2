//! The MSRs that hold the guest's values only while the guest runs: see [`vidar_core::vmx::switched_msrs`].

#![expect(unsafe_code, reason = "MSRs are written")]

use vidar_core::vmx::capabilities::Capabilities;
use vidar_core::vmx::field::FieldsMut;
use vidar_core::vmx::switched_msrs::rows;

use super::vmcs::Vmcs;
use crate::arch::msr;

/// Moves the contents of these MSRs to the guest's fields, and sets the MSRs to 0. Firmware may have left Intel PT on,
/// and then the first entry would fail.
pub fn take_over(vmcs: &mut Vmcs, capabilities: &Capabilities) {
    for row in rows(capabilities) {
        vmcs.write(row.field, msr::read_checked(row.msr).unwrap_or(0));
        // SAFETY: 0 switches the feature of each MSR off, as every exit will.
        let _ = unsafe { msr::write_checked(row.msr, 0) };
    }
}
