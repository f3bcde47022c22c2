//! The exits of writes to CR0 and CR4. There are none but with the boot option `guard`, and none before the guest sets
//! EFER.LME. Only long mode is guarded, and code that leads to it is as fast as before.

use vidar_core::mem::walk::ReadGuest;
use vidar_core::policy::control::ControlWrite;
use vidar_core::policy::guard::Guard;
use vidar_core::svm::{control_write, setup};
use vidar_core::vmm::controls::OwnsControls;
use vidar_core::vmm::doubt::Site;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::fetch;
use vidar_core::vmm::vcpu::Vcpu;
use vidar_core::x86::registers::Register;

use super::cpu::SvmCpu;
use crate::arch::msr::EFER_LME;

/// The type of a busy 16-bit TSS, in the attributes of TR.
const BUSY_TASK_16: u16 = 3;

impl SvmCpu {
    /// Has writes of CR0 and CR4 exit from when the guest sets EFER.LME on, if the guard is on.
    #[cold]
    pub(super) fn watch_controls(&mut self) {
        if self.guard >= Guard::Cpu {
            let watch = self.vmcb.save().efer & EFER_LME != 0;
            setup::watch_controls(&mut self.vmcb, watch);
        }
    }

    /// Returns the exit of a write to CR0 or CR4 with its operand, which
    /// [`exit::decode`](vidar_core::svm::exit::decode) may not know, and notes where the instruction ends.
    #[cold]
    pub(super) fn control_write(&mut self, exited: ControlWrite) -> Exit {
        // The source of the write may be RSP, which is in the VMCB.
        let rsp = self.vmcb.save().rsp;
        self.block.registers.set(Register::Rsp, rsp);
        let has = &self.capabilities;
        if has.decode_assists && has.nrip_save && control_write::is_reported(self.vmcb.control()) {
            self.next_rip = self.vmcb.control().nrip;
            return Exit::ControlWrite(exited);
        }
        let (controls, code) = (self.controls(), self.code());
        let bytes = code.bytes(&controls, |address| self.memory.word(address));
        let is_64_bit = fetch::is_64_bit(&controls);
        if let Some((write, length)) = control_write::decode(exited, bytes, &self.block.registers, is_64_bit)
        {
            self.next_rip = code.after(&controls, length);
            return Exit::ControlWrite(write);
        }
        let kind = Exit::ControlWrite(exited).kind();
        let site = Site { kind, rip: code.rip, answered: self.percpu.counters.get(kind) };
        if self.doubt.tries_again(site) {
            // Memory may hold another instruction than the CPU has executed.
            self.flush();
            Exit::Changed
        } else {
            Exit::Undefined
        }
    }
}

impl OwnsControls for SvmCpu {
    /// With nested paging the CPU reads the entries on each walk: AMD APM Vol. 2, 15.25.10 "Legacy PAE Mode".
    const LOADS_PDPTES: bool = false;

    fn cr4_allowed(&self) -> u64 {
        self.cr4_allowed
    }

    #[cold]
    fn task_is_16_bit(&self) -> bool {
        self.vmcb.save().tr.attributes & 0x1f == BUSY_TASK_16
    }

    fn set_pdptes(&mut self, _: [u64; 4]) {}
}
