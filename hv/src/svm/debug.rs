//! What a debugger asks of the virtual CPU. None of these intercepts is set without one.

use vidar_core::debugger::breakpoints::DebugRegisters;
use vidar_core::debugger::debug_registers::{CONDITIONS, GuestDebugRegisters};
use vidar_core::debugger::debuggable::{DebugExit, Debuggable, GuestException};
use vidar_core::debugger::registers::RegisterFile;
use vidar_core::debugger::structure::Layout;
use vidar_core::mem::walk::ReadGuest;
use vidar_core::svm::debug::{
    SoftwareInterrupt, access, code, port_access, revise_injection, software_interrupt,
};
use vidar_core::svm::nmi::Nmis;
use vidar_core::svm::vmcb::{Clean, INTERRUPT_MASKING, intercept};
use vidar_core::svm::{event, fields};
use vidar_core::vmm::cpu_state::SegmentRegister;
use vidar_core::vmm::fetch;
use vidar_core::vmm::vcpu::Vcpu;
use vidar_core::x86::registers::Register;

use super::cpu::SvmCpu;
use crate::arch::instructions;

/// V_TPR of the interrupt control.
const TASK_PRIORITY: u64 = 0xff;

impl SvmCpu {
    /// Has the guest get `event`, which is that of its instruction of `length` bytes at RIP. The instruction ends a
    /// shadow of STI or MOV SS.
    fn pass(&mut self, event: u64, length: u8) {
        let next = self.code().after(&self.controls(), length);
        self.vmcb.save_mut(Clean::empty()).rip = next;
        self.vmcb.control_mut(Clean::empty()).interrupt_shadow = 0;
        self.return_to_rip();
        self.set_injection(event, 0);
    }

    /// Returns the exit of an INT1, INT3 or INT n, and executes INT n.
    fn software_interrupt(&mut self) -> DebugExit {
        let (controls, place) = (self.controls(), self.code());
        match software_interrupt(place.bytes(&controls, |address| self.memory.word(address))) {
            Some(SoftwareInterrupt::Int1(length)) => DebugExit::Int1(length),
            Some(SoftwareInterrupt::Breakpoint(length)) => DebugExit::Breakpoint(length),
            Some(SoftwareInterrupt::Interrupt(vector, length)) => {
                self.pass(event::software_interrupt(vector), length);
                DebugExit::Answered
            }
            // The instruction has changed meanwhile: the guest executes what is there now.
            None => DebugExit::Answered,
        }
    }
}

impl Debuggable for SvmCpu {
    const CALLED_BY_NMI: bool = true;
    const LAYOUT: Layout = fields::LAYOUT;

    #[cold]
    fn watch_debug_exits(&mut self) {
        self.set_intercept(intercept::DEBUG_REGISTERS, intercept::ALL_DEBUG_REGISTERS, true);
        self.set_intercept(intercept::EXCEPTIONS, intercept::DEBUG | intercept::BREAKPOINT, true);
        self.nmis = Nmis::Debugger;
        self.watch_nmis();
        self.set_intercept(intercept::MORE, intercept::INT1, true);
    }

    /// QEMU takes INT3 for an INT n.
    #[cold]
    fn watch_int3(&mut self, on: bool) {
        self.set_intercept(intercept::GENERAL, intercept::SOFTWARE_INTERRUPT, on);
    }

    #[cold]
    fn field(&self, number: usize) -> Option<u64> {
        fields::value(&self.vmcb, number)
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
        let has_moved = save.rip != state.rip;
        let changed = has_moved || save.rflags != state.rflags;
        (save.rip, save.rflags) = (state.rip, state.rflags);
        save.rsp = state.registers.get(Register::Rsp);
        save.fs.base = state[SegmentRegister::Fs].base;
        save.gs.base = state[SegmentRegister::Gs].base;
        (save.cr2, save.kernel_gs_base) = (state.cr2, *kernel_gs_base);
        if changed {
            let control = self.vmcb.control_mut(Clean::INTERRUPTS);
            control.interrupt_shadow = 0;
            (control.eventinj, control.interrupt_control) =
                revise_injection(control.eventinj, control.interrupt_control, has_moved, state.rflags);
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
        // An INT n is injected below, so what was interrupted comes first.
        self.redeliver(0);
        Some(match exit {
            code::DEBUG => {
                let save = self.vmcb.save_mut(Clean::DEBUG);
                let conditions = save.dr6 & CONDITIONS;
                save.dr6 &= !CONDITIONS;
                DebugExit::Debug(conditions)
            }
            code::BREAKPOINT | code::SOFTWARE_INTERRUPT | code::INT1 => self.software_interrupt(),
            code::IO => {
                // EXITINFO2 is the address after the instruction, which has at most 15 bytes.
                let control = self.vmcb.control();
                let length = control.exitinfo2.wrapping_sub(self.vmcb.save().rip) & 0xf;
                DebugExit::Port(port_access(control.exitinfo1, length as u8))
            }
            // The NMI is still pending.
            code::NMI if self.percpu.is_called() || self.percpu.is_rung() => {
                self.let_other_nmi_in();
                DebugExit::Answered
            }
            code::NMI => DebugExit::Nmi,
            code::INTERRUPT | code::IRET => {
                self.let_guest_have(exit);
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
        })
    }

    #[cold]
    fn deliver(&mut self, exception: GuestException) {
        match exception {
            GuestException::Debug => self.set_injection(event::SINGLE_STEP, 0),
            GuestException::Int1(length) => self.pass(event::SINGLE_STEP, length),
            GuestException::Breakpoint(length) => self.pass(event::BREAKPOINT, length),
        }
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
        if self.injects_single_step() {
            self.vmcb.control_mut(Clean::empty()).eventinj = 0;
        }
    }

    /// The bit of DR6 tells such an exception from one of the guest's own that is passed on: it is not in the guest's
    /// DR6, which Vidar keeps.
    fn injects_single_step(&mut self) -> bool {
        let is_injected = self.vmcb.control().eventinj == event::SINGLE_STEP;
        if !is_injected || self.vmcb.save().dr6 & CONDITIONS == 0 {
            return false;
        }
        self.vmcb.save_mut(Clean::DEBUG).dr6 &= !CONDITIONS;
        true
    }

    #[cold]
    fn take_call(&mut self) {
        if self.percpu.is_called() {
            self.let_other_nmi_in();
        }
    }

    /// The line has been switched off, so what it has sent has come by now.
    #[cold]
    fn take_ring(&mut self) {
        if self.percpu.is_rung() {
            self.let_other_nmi_in();
            self.percpu.take_ring();
        }
    }

    /// The guest takes the NMI itself, and the CPU masks further ones until IRET.
    #[cold]
    fn pass_nmi(&mut self) {
        self.let_guest_have(code::NMI);
    }
}
