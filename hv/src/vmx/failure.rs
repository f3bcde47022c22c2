//! VM entries that fail before the guest is entered.

use vidar_core::vmm::exit::Exit;
use vidar_core::vmx::field::{Fields, VM_INSTRUCTION_ERROR};

use super::cpu::VmxCpu;
use super::entry::status;

/// VM-instruction error 5: VMRESUME with a VMCS that is not launched. Intel SDM Vol. 3C, 31.4 "VM Instruction Error
/// Numbers".
const NOT_LAUNCHED: u32 = 5;

impl VmxCpu {
    /// Returns true if the entry failed only because the VMCS is not launched, as after a machine check during the
    /// first entry. The next entry then uses VMLAUNCH.
    #[cold]
    pub(super) fn was_not_launched(&mut self, status: u32) -> bool {
        let wrong = status == status::FAILED_VALID
            && self.block.launched
            && self.vmcs.read(VM_INSTRUCTION_ERROR) == NOT_LAUNCHED;
        if wrong {
            self.block.launched = false;
        }
        wrong
    }

    /// Returns the exit that says why the guest was not entered.
    #[cold]
    pub(super) fn entry_failed(&self, status: u32) -> Exit {
        let valid = status == status::FAILED_VALID;
        Exit::EntryFailed {
            code: if valid { self.vmcs.read(VM_INSTRUCTION_ERROR) } else { 0 },
            qualification: 0,
        }
    }
}
