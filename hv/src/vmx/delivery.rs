//! Events that go into the guest of a virtual CPU: those that are kept for it, and those that an exit interrupted.

#![expect(unsafe_code, reason = "the entry assembly is called")]

use vidar_core::policy::control::CR4_MCE;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::percpu::kept;
use vidar_core::vmm::processor::Processor;
use vidar_core::vmm::vcpu::Vcpu;
use vidar_core::vmx::controls::pin;
use vidar_core::vmx::event::{self, Injection, interruptibility};
use vidar_core::vmx::exit;
use vidar_core::vmx::field::Fields;
use vidar_core::vmx::field::*;

use super::cpu::VmxCpu;
use super::entry::{enter, status};
use crate::debug::ending;

impl VmxCpu {
    /// Takes over what is kept: one event goes in with the next entry, and for any other the guest leaves shortly to try again.
    /// `Some` where there is no guest to take it.
    #[cold]
    pub(super) fn deliver_kept(&mut self) -> Option<Exit> {
        self.kept.add(self.percpu.take_kept());
        if self.kept.has_machine_check() && self.cr4() & CR4_MCE == 0 {
            return Some(Exit::MachineCheck);
        }
        let activity = self.vmcs.read(GUEST_ACTIVITY_STATE);
        let blocking = self.vmcs.read(GUEST_INTERRUPTIBILITY);
        let delivery = self.kept.deliver(activity, blocking, self.vmcs.read(ENTRY_INTERRUPTION_INFO));
        if let Some(event) = delivery.inject {
            self.vmcs.write(ENTRY_INTERRUPTION_INFO, event);
        }
        if let Some(ticks) = delivery.retry {
            self.vmcs.write(PREEMPTION_TIMER, (ticks >> self.capabilities.timer_rate).max(1));
            self.vmcs.write(PIN_BASED_CONTROLS, self.capabilities.pin | pin::PREEMPTION_TIMER);
        }
        None
    }

    /// After the guest has run for that time, or less.
    #[cold]
    pub(super) fn window(&mut self) -> Option<Exit> {
        self.vmcs.write(PIN_BASED_CONTROLS, self.capabilities.pin);
        self.deliver_kept()
    }

    /// Drops an INIT that came while the CPU waited for the start-up IPI which it has just got. Such an INIT is blocked: Intel SDM
    /// Vol. 3C, 26.5.2 "Other Causes of VM Exits", INIT signals. A CPU may keep it until the guest runs, as Bochs does, and it would
    /// then undo the start. So the guest is entered with no time to execute an instruction, and the INIT exits before the timer does.
    #[cold]
    pub(super) fn drop_blocked_init(&mut self) {
        self.vmcs.write(PREEMPTION_TIMER, 0);
        self.vmcs.write(PIN_BASED_CONTROLS, self.capabilities.pin | pin::PREEMPTION_TIMER);
        // There is one at most, but Bochs 2.7 has it exit again and again.
        for _ in 0..2 {
            // SAFETY: the guest that has just exited is entered again, with the state of a CPU that starts.
            if unsafe { enter(&mut self.block) } != status::LEFT {
                break;
            }
            match self.vmcs.exit_reason() {
                exit::INIT => {}
                exit::ENTRY_MACHINE_CHECK => self.percpu.keep(kept::MACHINE_CHECK),
                _ => break,
            }
        }
        self.vmcs.write(PIN_BASED_CONTROLS, self.capabilities.pin);
        // Bochs 2.7 goes on to report what wait-for-SIPI blocks.
        self.vmcs.write(GUEST_INTERRUPTIBILITY, 0);
        // The INIT may have been another CPU's, which wants all to stop and does not send it twice.
        if self.stop_is_wanted() {
            ending::halt_for_another();
        }
    }

    /// Injects what the last exit interrupted.
    #[cold]
    pub(super) fn redeliver(&mut self) {
        let information = self.vmcs.read(IDT_VECTORING_INFO);
        let error_code = self.vmcs.read(IDT_VECTORING_ERROR_CODE);
        let length = self.vmcs.read(EXIT_INSTRUCTION_LENGTH);
        if let Some(interrupted) = event::interrupted(information, error_code, length) {
            if interrupted.is_nmi {
                let blocking = self.vmcs.read(GUEST_INTERRUPTIBILITY);
                self.vmcs.write(GUEST_INTERRUPTIBILITY, blocking & !interruptibility::NMI);
            }
            self.set_injection(&interrupted.injection);
        } else if self.vmcs.read(EXIT_QUALIFICATION).0 & 1 << 12 != 0 {
            // An IRET that had unblocked NMIs is to be executed again.
            let blocking = self.vmcs.read(GUEST_INTERRUPTIBILITY);
            self.vmcs.write(GUEST_INTERRUPTIBILITY, blocking | interruptibility::NMI);
        }
    }

    pub(super) fn set_injection(&mut self, injection: &Injection) {
        self.vmcs.write(ENTRY_INTERRUPTION_INFO, injection.information);
        if let Some(error_code) = injection.error_code {
            self.vmcs.write(ENTRY_EXCEPTION_ERROR_CODE, error_code);
        }
        if let Some(length) = injection.instruction_length {
            self.vmcs.write(ENTRY_INSTRUCTION_LENGTH, length);
        }
    }
}
