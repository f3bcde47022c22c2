//! What a debugger asks of the virtual CPU. None of these controls is set without one.

#![expect(unsafe_code, reason = "controls are written, and an MSR of the guest's")]

use vidar_core::debugger::breakpoints::DebugRegisters;
use vidar_core::debugger::debug_registers::GuestDebugRegisters;
use vidar_core::debugger::debuggable::{DebugExit, Debuggable, GuestException};
use vidar_core::debugger::registers::RegisterFile;
use vidar_core::debugger::structure::Layout;
use vidar_core::vmm::cpu_state::SegmentRegister;
use vidar_core::vmm::vcpu::Vcpu;
use vidar_core::vmx::controls::primary;
use vidar_core::vmx::debug;
use vidar_core::vmx::event::{PENDING_SINGLE_STEP, activity};
use vidar_core::vmx::field::*;
use vidar_core::x86::registers::Register;

use super::cpu::VmxCpu;
use super::enable::read_or_0;
use crate::arch::{instructions, msr};

/// IA32_VMX_TRUE_PROCBASED_CTLS.
const PRIMARY_CAPABILITIES: u32 = 0x48e;
/// The vectors of #DB and #BP, as bits of the exception bitmap.
const EXCEPTIONS: u32 = 1 << 1 | 1 << 3;
/// The ticks of the TSC after which the guest exits, to look for gdb: one or two thousandths of a second, and a fifth
/// of a second in Bochs, where the TSC has 20 million ticks a second.
const LIMIT: u32 = 1 << 22;

impl VmxCpu {
    /// Sets or clears a primary control.
    fn set_primary(&mut self, control: u32, on: bool) {
        let others = self.vmcs.read(PRIMARY_CONTROLS) & !control;
        // SAFETY: the controls of this file only make the guest exit more often.
        unsafe { self.vmcs.root() }.write_root(PRIMARY_CONTROLS, others | if on { control } else { 0 });
    }
}

impl Debuggable for VmxCpu {
    const CALLED_BY_NMI: bool = false;
    const LAYOUT: Layout = debug::LAYOUT;

    #[cold]
    fn watch_debug_exits(&mut self) {
        self.vmcs.write(EXCEPTION_BITMAP, EXCEPTIONS);
        self.set_primary(primary::MOV_DR, true);
    }

    #[cold]
    fn waits(&self) -> bool {
        self.vmcs.read(GUEST_ACTIVITY_STATE) == activity::WAIT_FOR_SIPI
    }

    #[cold]
    fn field(&self, number: usize) -> Option<u64> {
        self.vmcs.value(number)
    }

    #[cold]
    fn register_file(&self) -> RegisterFile {
        RegisterFile {
            state: self.snapshot().state,
            kernel_gs_base: msr::read(msr::KERNEL_GS_BASE),
            cr8: instructions::cr8(),
        }
    }

    #[cold]
    fn set_register_file(&mut self, new: &RegisterFile) {
        let old = self.register_file();
        let RegisterFile { state, kernel_gs_base, .. } = new;
        if (state.rip, state.rflags) != (old.state.rip, old.state.rflags) {
            debug::end_shadow(&mut self.vmcs);
        }
        if state.rip != old.state.rip {
            self.vmcs.write(GUEST_ACTIVITY_STATE, activity::ACTIVE);
        }
        self.block.registers = state.registers;
        self.vmcs.write(GUEST_RSP, Natural(state.registers.get(Register::Rsp)));
        self.vmcs.write(GUEST_RIP, Natural(state.rip));
        self.vmcs.write(GUEST_RFLAGS, Natural(state.rflags));
        if let Some(vector) = debug::revise_injection(&mut self.vmcs, state.rip != old.state.rip) {
            self.pending.add_interrupt(vector);
        }
        self.vmcs.write(GUEST_FS_BASE, Natural(state[SegmentRegister::Fs].base));
        self.vmcs.write(GUEST_GS_BASE, Natural(state[SegmentRegister::Gs].base));
        instructions::set_cr2(state.cr2);
        // SAFETY: the MSR is the guest's, and Vidar executes no SWAPGS.
        unsafe { msr::write(msr::KERNEL_GS_BASE, *kernel_gs_base) };
    }

    #[cold]
    fn debug_registers(&self) -> GuestDebugRegisters {
        let (addresses, status) = instructions::debug_registers();
        GuestDebugRegisters { addresses, status, control: self.vmcs.read(GUEST_DR7).0 }
    }

    #[cold]
    fn load_debug_registers(&mut self, registers: &DebugRegisters) {
        instructions::set_debug_addresses(registers.addresses);
        self.vmcs.write(GUEST_DR7, Natural(registers.control));
    }

    #[cold]
    fn debug_exit(&mut self, code: u32, qualification: u64) -> Option<DebugExit> {
        let exit = debug::decode(code, qualification, &self.vmcs)?;
        self.redeliver_event();
        Some(exit)
    }

    #[cold]
    fn deliver(&mut self, exception: GuestException) {
        self.set_injection(&debug::injection(exception));
    }

    #[cold]
    fn steps_by_trap_flag(&self) -> bool {
        read_or_0(PRIMARY_CAPABILITIES) >> 32 & u64::from(primary::MONITOR_TRAP) == 0
    }

    #[cold]
    fn set_step(&mut self, on: bool) {
        let by_flag = self.steps_by_trap_flag();
        if !by_flag {
            self.set_primary(primary::MONITOR_TRAP, on);
        }
        if !on {
            return;
        }
        // The instruction after HLT is to be executed, whatever the CPU waits for.
        self.vmcs.write(GUEST_ACTIVITY_STATE, activity::ACTIVE);
        if by_flag {
            // In such a shadow the CPU would stop before the instruction: a single step is pending there.
            debug::end_shadow(&mut self.vmcs);
        } else {
            // An interrupt would come first, and the step would end in its handler.
            debug::hold_back_interrupts(&mut self.vmcs);
        }
    }

    #[cold]
    fn drop_single_step(&mut self) {
        let pending = self.vmcs.read(GUEST_PENDING_DEBUG).0;
        self.vmcs.write(GUEST_PENDING_DEBUG, Natural(pending & !PENDING_SINGLE_STEP));
    }

    fn settle(&mut self) {
        debug::settle(&mut self.vmcs);
    }

    fn limit_time(&mut self, _listens: bool) {
        // While an event is kept, the timer runs for it. It does not run while the CPU waits for its start-up IPI.
        if !self.pending.waits() && self.vmcs.read(GUEST_ACTIVITY_STATE) != activity::WAIT_FOR_SIPI {
            self.vmcs.write(PREEMPTION_TIMER, LIMIT >> self.capabilities.timer_rate);
            self.vmcs.use_timer(true);
        }
    }
}
