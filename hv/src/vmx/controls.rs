//! What the exits of writes to control registers need of the virtual CPU.

use vidar_core::vmm::controls::OwnsControls;
use vidar_core::vmx::field::{
    Fields, FieldsMut, GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3, GUEST_TR_RIGHTS,
};

use super::cpu::VmxCpu;

/// The type of a busy 16-bit TSS, in the access rights of TR.
const BUSY_TASK_16: u32 = 3;

impl OwnsControls for VmxCpu {
    const LOADS_PDPTES: bool = true;

    fn cr4_allowed(&self) -> u64 {
        self.capabilities.cr4_allowed
    }

    #[cold]
    fn task_is_16_bit(&self) -> bool {
        self.vmcs.read(GUEST_TR_RIGHTS) & 0xf == BUSY_TASK_16
    }

    #[cold]
    fn set_pdptes(&mut self, entries: [u64; 4]) {
        for (field, entry) in
            [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3].into_iter().zip(entries)
        {
            self.vmcs.write(field, entry);
        }
    }
}
