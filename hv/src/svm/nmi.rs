//! NMIs that exit, so that one CPU can call another out of the guest.

#![expect(unsafe_code, reason = "an NMI is let in")]

use vidar_core::svm::debug::until_iret;
use vidar_core::svm::nmi::{NmiExit, Nmis, decode};
use vidar_core::svm::vmcb::{Clean, intercept};
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::processor::Processor;
use vidar_core::x86::icr::{Destination, Message};

use super::cpu::SvmCpu;
use super::instructions::{clgi, stgi};
use crate::arch::instructions;

impl SvmCpu {
    /// Has NMIs exit if somebody but the guest wants to know of them.
    pub(super) fn watch_nmis(&mut self) {
        self.set_intercept(intercept::GENERAL, intercept::NMI, self.nmis != Nmis::Guest);
        self.set_intercept(intercept::GENERAL, intercept::IRET, false);
    }

    /// Has Vidar's handler take the NMI that is pending, if there is one. The handler knows a call from another CPU.
    pub(super) fn let_nmi_in(&mut self) {
        // SAFETY: EFER.SVME is set, and Vidar's IDT is loaded, whose handler keeps the NMI.
        unsafe {
            stgi();
            clgi();
        }
    }

    /// Does what [`SvmCpu::let_nmi_in`] does for an NMI that was not a call to stop or start this CPU. Such a call may
    /// have come together with it, so it is sent once more.
    pub(super) fn let_other_nmi_in(&mut self) {
        self.let_nmi_in();
        if self.percpu.startup.is_called() {
            self.send(Message::Nmi, Destination::Physical(self.percpu.apic_id));
        }
    }

    /// Answers the exit with this code if it is by an NMI that the debugger does not ask for, or by the IRET after one.
    /// Returns the exit to handle instead.
    #[cold]
    pub(super) fn nmi_exit(&mut self, code: u32) -> Option<Exit> {
        let decoded = decode(code, self.nmis, self.percpu.startup.is_called(), self.waits)?;
        match decoded {
            NmiExit::Call | NmiExit::Dropped => {
                // The handler of another NMI may not have returned.
                instructions::unblock_nmis();
                match decoded {
                    NmiExit::Call => self.let_nmi_in(),
                    _ => self.let_other_nmi_in(),
                }
                // The guest gets none of the NMIs that have come.
                self.percpu.take_pending();
            }
            NmiExit::Taken | NmiExit::Returned => {
                self.redeliver(1); // this exit is not counted yet
                self.let_guest_have(code);
            }
        }
        Some(match decoded {
            NmiExit::Call => Exit::Init,
            NmiExit::Dropped | NmiExit::Taken => Exit::Nmi,
            NmiExit::Returned => Exit::Window,
        })
    }

    /// Lets the guest have the physical interrupt or the NMI that has exited with this code, or go on after IRET.
    pub(super) fn let_guest_have(&mut self, exit: u32) {
        let general = &mut self.vmcb.control_mut(Clean::INTERCEPTS).intercepts[intercept::GENERAL];
        *general = until_iret(exit, *general);
    }

    /// Sets or clears an intercept.
    pub(super) fn set_intercept(&mut self, word: usize, bits: u32, on: bool) {
        let intercepts = &mut self.vmcb.control_mut(Clean::INTERCEPTS).intercepts[word];
        *intercepts = *intercepts & !bits | if on { bits } else { 0 };
    }
}
