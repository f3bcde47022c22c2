//! Reads the guest's state from the VMCB, for a crash report.

use super::guest_state;
use super::vmcb::Page;
use crate::policy::control::Controls;
use crate::vmm::crash::Snapshot;
use crate::x86::registers::Registers;

/// Returns everything that a crash report shows. The caller passes the general-purpose registers, and the control
/// registers as the guest sees them.
pub fn take(vmcb: &Page, registers: &Registers, controls: Controls) -> Snapshot {
    let control = vmcb.control();
    Snapshot {
        state: guest_state::read(vmcb, registers, controls),
        vendor: [
            ("exitcode", control.exitcode),
            ("exitinfo1", control.exitinfo1),
            ("exitinfo2", control.exitinfo2),
            ("exitintinfo", control.exitintinfo),
            ("interrupt-shadow", control.interrupt_shadow),
            ("cpl", vmcb.save().cpl.into()),
        ],
    }
}
