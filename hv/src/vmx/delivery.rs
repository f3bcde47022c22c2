//! Delivering events to the guest: those that are pending for it, and those whose delivery an exit has interrupted.

#![expect(unsafe_code, reason = "the entry assembly is called")]

use vidar_core::policy::control::CR4_MCE;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::percpu::pending;
use vidar_core::vmm::processor::Processor;
use vidar_core::vmm::vcpu::Vcpu;
use vidar_core::vmx::event::{self, Injection, interruptibility};
use vidar_core::vmx::exit;
use vidar_core::vmx::field::Fields;
use vidar_core::vmx::field::*;

use super::cpu::VmxCpu;
use super::entry::{enter, status};
use crate::arch::instructions;
use crate::debug::ending;

/// RFLAGS.IF.
const INTERRUPTS: u64 = 1 << 9;

impl VmxCpu {
    /// Takes over the pending events of the per-CPU block. One of them is injected with the next entry. For any other,
    /// the preemption timer makes the guest exit shortly, to try again. Returns an exit if another CPU has called
    /// this one, or if the guest cannot take a machine check because CR4.MCE is 0.
    #[cold]
    pub(super) fn deliver_kept(&mut self) -> Option<Exit> {
        let events = self.percpu.take_pending();
        if events & pending::NMI != 0 && self.percpu.startup.is_called() {
            return Some(Exit::Init);
        }
        if self.in_room {
            return Some(Exit::Nmi);
        }
        self.pending.add(events);
        if self.pending.has_machine_check() && self.cr4() & CR4_MCE == 0 {
            return Some(Exit::MachineCheck);
        }
        let activity = self.vmcs.read(GUEST_ACTIVITY_STATE);
        let blocking = self.vmcs.read(GUEST_INTERRUPTIBILITY);
        let takes_interrupts = self.vmcs.read(GUEST_RFLAGS).0 & INTERRUPTS != 0;
        let information = self.vmcs.read(ENTRY_INTERRUPTION_INFO);
        let delivery = self.pending.deliver(activity, takes_interrupts, blocking, information);
        if let Some(event) = delivery.inject {
            self.vmcs.write(ENTRY_INTERRUPTION_INFO, event);
        }
        if let Some(ticks) = delivery.retry {
            self.vmcs.write(PREEMPTION_TIMER, (ticks >> self.capabilities.timer_rate).max(1));
            self.vmcs.use_timer(true);
        }
        None
    }

    /// Tries again to deliver pending events, after the guest has run until the preemption timer expired, or exited
    /// before.
    #[cold]
    pub(super) fn retry_pending(&mut self) -> Option<Exit> {
        self.vmcs.use_timer(false);
        self.deliver_kept()
    }

    /// Keeps the NMI that has exited for the guest, and returns the exit to handle. If another CPU has called this one,
    /// that is [`Exit::Init`].
    #[cold]
    pub(super) fn nmi_exit(&mut self) -> Exit {
        // The exit has blocked NMIs.
        instructions::unblock_nmis();
        if self.percpu.startup.is_called() {
            return Exit::Init;
        }
        self.percpu.add_pending(pending::NMI);
        Exit::Nmi
    }

    /// Drops an INIT that arrived while the CPU waited for the start-up IPI which it has just received. Such an INIT is
    /// blocked: Intel SDM Vol. 3C, 26.5.2 "Other Causes of VM Exits", INIT signals. A CPU may keep it until the guest
    /// runs, as Bochs does, and it would then undo the start. So the guest is entered with no time to execute an
    /// instruction, and the INIT causes an exit before the timer does.
    #[cold]
    pub(super) fn drop_blocked_init(&mut self) {
        self.vmcs.write(PREEMPTION_TIMER, 0);
        self.vmcs.use_timer(true);
        // At most one INIT is pending, but in Bochs 2.7 it causes one exit after another.
        for _ in 0..2 {
            // SAFETY: the current VMCS is the one that has just exited, which `startup` has given the state of a CPU
            // that starts.
            if unsafe { enter(&mut self.block) } != status::LEFT {
                break;
            }
            match self.vmcs.exit_reason() {
                exit::INIT => {}
                exit::ENTRY_MACHINE_CHECK => self.percpu.add_pending(pending::MACHINE_CHECK),
                _ => break,
            }
        }
        self.vmcs.use_timer(false);
        // Bochs 2.7 still reports the blocking that belongs to wait-for-SIPI.
        self.vmcs.write(GUEST_INTERRUPTIBILITY, 0);
        // The INIT may have come from another CPU that stops all CPUs for a report, and it is not sent twice.
        if self.stop_is_wanted() {
            ending::halt();
        }
    }

    /// Injects the event whose delivery the last exit has interrupted. If the exit is an EPT violation that has
    /// interrupted an IRET which had unblocked NMIs, blocks NMIs again.
    #[cold]
    pub(super) fn redeliver(&mut self) {
        if !self.redeliver_event() && self.vmcs.read(EXIT_QUALIFICATION).0 & 1 << 12 != 0 {
            // The IRET will be executed again, and NMIs are blocked until then.
            let blocking = self.vmcs.read(GUEST_INTERRUPTIBILITY);
            self.vmcs.write(GUEST_INTERRUPTIBILITY, blocking | interruptibility::NMI);
        }
    }

    /// Injects the event whose delivery the last exit has interrupted. Returns true if there is one.
    #[cold]
    pub(super) fn redeliver_event(&mut self) -> bool {
        let information = self.vmcs.read(IDT_VECTORING_INFO);
        let error_code = self.vmcs.read(IDT_VECTORING_ERROR_CODE);
        let length = self.vmcs.read(EXIT_INSTRUCTION_LENGTH);
        let Some(interrupted) = event::interrupted(information, error_code, length) else { return false };
        if interrupted.is_nmi {
            let blocking = self.vmcs.read(GUEST_INTERRUPTIBILITY);
            self.vmcs.write(GUEST_INTERRUPTIBILITY, blocking & !interruptibility::NMI);
        }
        self.set_injection(&interrupted.injection);
        true
    }

    /// Has the next entry inject `injection`.
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
