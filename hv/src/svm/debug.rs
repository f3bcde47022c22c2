//! What a debugger asks of the virtual CPU. None of these intercepts is set without one.

#![expect(unsafe_code, reason = "an NMI is let in")]

use vidar_core::debugger::breakpoints::DebugRegisters;
use vidar_core::debugger::debug_registers::{CONDITIONS, GuestDebugRegisters};
use vidar_core::debugger::debuggable::{DebugExit, Debuggable, GuestException};
use vidar_core::debugger::registers::RegisterFile;
use vidar_core::mem::walk::ReadGuest;
use vidar_core::svm::debug::{SoftwareInterrupt, access, code, software_interrupt};
use vidar_core::svm::event;
use vidar_core::svm::vmcb::{Clean, INTERRUPT_MASKING, intercept};
use vidar_core::vmm::cpu_state::SegmentRegister;
use vidar_core::vmm::fetch;
use vidar_core::vmm::vcpu::Vcpu;
use vidar_core::x86::registers::Register;

use super::cpu::SvmCpu;
use super::instructions::{clgi, stgi};
use crate::arch::instructions;

/// V_TPR of the interrupt control.
const TASK_PRIORITY: u64 = 0xff;

impl SvmCpu {
    /// Sets or clears an intercept.
    fn set_intercept(&mut self, word: usize, bits: u32, on: bool) {
        let intercepts = &mut self.vmcb.control_mut(Clean::INTERCEPTS).intercepts[word];
        *intercepts = *intercepts & !bits | if on { bits } else { 0 };
    }

    /// Sets RIP to the address after an instruction of `length` bytes.
    fn pass(&mut self, length: u8) {
        let next = self.code().after(&self.controls(), length);
        self.vmcb.save_mut(Clean::empty()).rip = next;
    }

    /// Returns the exit of an INT n, and executes it unless it is INT3.
    fn software_interrupt(&mut self) -> DebugExit {
        let (controls, place) = (self.controls(), self.code());
        match software_interrupt(place.bytes(&controls, |address| self.memory.word(address))) {
            Some(SoftwareInterrupt::Breakpoint) => DebugExit::Breakpoint,
            Some(SoftwareInterrupt::Interrupt(vector, length)) => {
                self.pass(length);
                self.vmcb.control_mut(Clean::empty()).eventinj = event::software_interrupt(vector);
                DebugExit::Answered
            }
            // The instruction has changed meanwhile: the guest executes what is there now.
            None => DebugExit::Answered,
        }
    }
}

impl SvmCpu {
    /// Takes the NMI that has exited and is still pending. It is the guest's unless another CPU calls this one.
    fn nmi(&mut self) -> DebugExit {
        // SAFETY: EFER.SVME is set, and Vidar's IDT is loaded, whose handler keeps the NMI.
        unsafe {
            stgi();
            clgi();
        }
        if self.percpu.take_call() {
            self.percpu.take_pending();
        } else {
            self.deliver_nmi();
        }
        DebugExit::Answered
    }
}

impl Debuggable for SvmCpu {
    const CALLED_BY_NMI: bool = true;

    #[cold]
    fn watch_debug_exits(&mut self) {
        self.set_intercept(intercept::DEBUG_REGISTERS, intercept::ALL_DEBUG_REGISTERS, true);
        self.set_intercept(intercept::EXCEPTIONS, intercept::DEBUG | intercept::BREAKPOINT, true);
        self.set_intercept(intercept::GENERAL, intercept::NMI, true);
    }

    /// QEMU takes INT3 for an INT n.
    #[cold]
    fn watch_int3(&mut self, on: bool) {
        self.set_intercept(intercept::GENERAL, intercept::SOFTWARE_INTERRUPT, on);
    }

    #[cold]
    fn register_file(&self) -> RegisterFile {
        RegisterFile {
            state: self.snapshot().state,
            kernel_gs_base: self.vmcb.save().kernel_gs_base,
            cr8: instructions::cr8(),
        }
    }

    #[cold]
    fn set_register_file(&mut self, new: &RegisterFile) {
        let RegisterFile { state, kernel_gs_base, .. } = new;
        self.block.registers = state.registers;
        let save = self.vmcb.save_mut(Clean::CR2 | Clean::SEGMENTS);
        let moved = (save.rip, save.rflags) != (state.rip, state.rflags);
        (save.rip, save.rflags) = (state.rip, state.rflags);
        save.rsp = state.registers.get(Register::Rsp);
        save.fs.base = state[SegmentRegister::Fs].base;
        save.gs.base = state[SegmentRegister::Gs].base;
        (save.cr2, save.kernel_gs_base) = (state.cr2, *kernel_gs_base);
        if moved {
            self.vmcb.control_mut(Clean::empty()).interrupt_shadow = 0;
        }
    }

    #[cold]
    fn debug_registers(&self) -> GuestDebugRegisters {
        let (addresses, _) = instructions::debug_registers();
        let save = self.vmcb.save();
        GuestDebugRegisters { addresses, status: save.dr6, control: save.dr7 }
    }

    #[cold]
    fn load_debug_registers(&mut self, registers: &DebugRegisters) {
        instructions::set_debug_addresses(registers.addresses);
        self.vmcb.save_mut(Clean::DEBUG).dr7 = registers.control;
        // The CPU loads DR7 from the VMCB. QEMU watches an address only from a MOV to DR7 on, with which DR7 agrees.
        instructions::set_debug_control(registers.control);
    }

    #[cold]
    fn debug_exit(&mut self, exit: u32, _: u64) -> Option<DebugExit> {
        let answer = match exit {
            code::DEBUG => {
                let save = self.vmcb.save_mut(Clean::DEBUG);
                let conditions = save.dr6 & CONDITIONS;
                save.dr6 &= !CONDITIONS;
                DebugExit::Debug(conditions)
            }
            code::BREAKPOINT => DebugExit::Breakpoint,
            code::SOFTWARE_INTERRUPT => self.software_interrupt(),
            code::NMI => self.nmi(),
            // The guest takes the interrupt itself. Its handler ends by IRET, and the next interrupt exits again.
            code::INTERRUPT | code::IRET => {
                let waits_for_iret = exit == code::INTERRUPT;
                self.set_intercept(intercept::GENERAL, intercept::INTERRUPT, !waits_for_iret);
                self.set_intercept(intercept::GENERAL, intercept::IRET, waits_for_iret);
                DebugExit::Answered
            }
            code::READ_DR0..=code::READ_DR7 | code::WRITE_DR0..=code::WRITE_DR7 => {
                let (controls, place) = (self.controls(), self.code());
                let bytes = place.bytes(&controls, |address| self.memory.word(address));
                // If the instruction has changed meanwhile, the guest executes what is there now.
                access(exit, bytes, fetch::is_64_bit(&controls))
                    .map_or(DebugExit::Answered, DebugExit::Access)
            }
            _ => return None,
        };
        if let Some(event) = event::interrupted(self.vmcb.control().exitintinfo) {
            self.vmcb.control_mut(Clean::empty()).eventinj = event;
        }
        Some(answer)
    }

    #[cold]
    fn deliver(&mut self, exception: GuestException) {
        let event = match exception {
            GuestException::Debug => event::SINGLE_STEP,
            GuestException::Breakpoint => {
                self.pass(1);
                event::BREAKPOINT
            }
        };
        self.vmcb.control_mut(Clean::empty()).eventinj = event;
    }

    #[cold]
    fn steps_by_trap_flag(&self) -> bool {
        true
    }

    /// While the CPU steps, Vidar's own RFLAGS.IF, which is 0, masks the physical interrupts. AMD APM Vol. 2, 15.21.1
    /// "Virtualizing RFLAGS.IF". The guest's CR8 is in the VMCB then.
    #[cold]
    fn set_step(&mut self, on: bool) {
        let priority = instructions::cr8();
        let control = &mut self.vmcb.control_mut(Clean::INTERRUPTS).interrupt_control;
        let of_the_guest = *control & TASK_PRIORITY;
        *control &= !(INTERRUPT_MASKING | TASK_PRIORITY);
        if on {
            *control |= INTERRUPT_MASKING | priority;
        } else if of_the_guest != priority {
            instructions::set_cr8(of_the_guest);
        }
    }

    /// This CPU has no timer of its own for this, so it exits at the guest's interrupts.
    fn limit_time(&mut self, listens: bool) {
        const EXITS: u32 = intercept::INTERRUPT | intercept::IRET;
        if listens && self.vmcb.control().intercepts[intercept::GENERAL] & EXITS == 0 {
            self.set_intercept(intercept::GENERAL, intercept::INTERRUPT, true);
        }
    }

    #[cold]
    fn drop_single_step(&mut self) {
        let control = self.vmcb.control_mut(Clean::empty());
        if control.eventinj == event::SINGLE_STEP {
            control.eventinj = 0;
        }
        self.vmcb.save_mut(Clean::DEBUG).dr6 &= !CONDITIONS;
    }
}
