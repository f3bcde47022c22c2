//! The stopped guest as the crate gdbstub asks for it: each of its requests, in terms of the other files of this room.

use alloc::boxed::Box;
use core::convert::Infallible;

use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::breakpoints::{
    Breakpoints as BreakpointsTarget, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint,
    HwWatchpointOps, SwBreakpoint, SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::section_offsets::{Offsets, SectionOffsets, SectionOffsetsOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use spin::Mutex;

use super::breakpoints::Breakpoints;
use super::cpus::{Cpus, Run, Slot};
use super::memory::{self, Memory};
use super::monitor::{self, Shown, Surroundings};
use super::registers::{Number, RegisterFile, X86};
use crate::kernel::Kernel;
use crate::mem::ranges::RangeSet;
use crate::policy::control::Controls;

/// The guest that gdb debugs.
pub struct Guest {
    /// The CPUs.
    pub cpus: Cpus,
    /// The memory.
    pub memory: &'static (dyn Memory + Sync),
    /// The guest's RAM.
    pub ram: RangeSet,
    /// What surrounds the guest, for the commands of [`monitor`].
    pub surroundings: &'static dyn Surroundings,
    /// The breakpoints and watchpoints.
    pub breakpoints: &'static Mutex<Breakpoints>,
    /// The CPU that has stopped last, with whose page tables software breakpoints are set.
    pub current: Tid,
    /// What each CPU will do when gdb has the guest go on: those that gdb names, and what holds for the others.
    others: Run,
}

impl Guest {
    /// Returns a guest without breakpoints.
    pub fn new(
        cpus: Cpus,
        memory: &'static (dyn Memory + Sync),
        ram: RangeSet,
        surroundings: &'static dyn Surroundings,
    ) -> Self {
        let (breakpoints, current) = (Box::leak(Box::new(Mutex::new(Breakpoints::new()))), Cpus::thread(0));
        Self { cpus, memory, ram, surroundings, breakpoints, current, others: Run::Released }
    }

    /// Calls `with` with the slot of the CPU `thread`. An unknown thread is an error that gdb is told.
    fn slot<T>(&self, thread: Tid, with: impl FnOnce(&mut Slot) -> T) -> TargetResult<T, Self> {
        let slot = self.cpus.of(thread).ok_or(TargetError::NonFatal)?;
        Ok(with(&mut slot.lock()))
    }

    /// Returns the control registers of the CPU `thread`, which select its page tables.
    fn controls(&self, thread: Tid) -> TargetResult<Controls, Self> {
        self.slot(thread, |slot| slot.registers.state.controls)
    }

    /// Has the CPU `thread` do `run` when the guest goes on.
    fn plan(&mut self, thread: Tid, run: Run) {
        if let Some(slot) = self.cpus.of(thread) {
            let mut slot = slot.lock();
            if matches!(slot.run, Run::Stopped | Run::Held) {
                slot.run = run;
            }
        }
    }

    /// Makes another CPU the current one if that is not stopped, as one is that the guest has switched off.
    pub fn choose_current(&mut self) {
        let mut stopped = self.cpus.stopped().map(Cpus::thread);
        if !stopped.any(|thread| thread == self.current)
            && let Some(first) = self.cpus.stopped().next()
        {
            self.current = Cpus::thread(first);
        }
    }

    /// Removes all breakpoints.
    pub fn forget(&mut self) {
        self.breakpoints.lock().clear(self.memory);
        self.others = Run::Released;
    }

    /// Removes all breakpoints, and has all CPUs go on.
    pub fn leave(&mut self) {
        self.forget();
        self.release();
    }

    /// Has the CPUs go on that ran before they were called, and no others.
    pub fn go_on(&self) {
        for slot in self.cpus.0 {
            let mut slot = slot.lock();
            if slot.run == Run::Stopped {
                slot.run = Run::Released;
            }
        }
    }

    /// Has the CPUs for which gdb has named nothing do what it says of the others.
    fn release(&self) {
        for slot in self.cpus.0 {
            let mut slot = slot.lock();
            if matches!(slot.run, Run::Stopped | Run::Held) {
                slot.run = self.others;
            }
        }
    }
}

impl Target for Guest {
    type Arch = X86;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, X86, Infallible> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_section_offsets(&mut self) -> Option<SectionOffsetsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    /// A serial line spoils bytes. Without acknowledgements gdb does not look at checksums. "Debugging with GDB", E.11
    /// "Packet Acknowledgment".
    fn use_no_ack_mode(&self) -> bool {
        false
    }

    fn use_lldb_register_info(&self) -> bool {
        false
    }

    fn use_fork_stop_reason(&self) -> bool {
        false
    }

    fn use_vfork_stop_reason(&self) -> bool {
        false
    }

    fn use_vforkdone_stop_reason(&self) -> bool {
        false
    }
}

impl MultiThreadBase for Guest {
    fn read_registers(&mut self, registers: &mut RegisterFile, thread: Tid) -> TargetResult<(), Self> {
        *registers = self.slot(thread, |slot| slot.registers)?;
        Ok(())
    }

    fn write_registers(&mut self, registers: &RegisterFile, thread: Tid) -> TargetResult<(), Self> {
        self.slot(thread, |slot| slot.registers.set_all(registers))?.map_err(|_| TargetError::NonFatal)
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], thread: Tid) -> TargetResult<usize, Self> {
        let read = memory::read(&self.controls(thread)?, self.memory, start, data);
        if read == 0 && !data.is_empty() { Err(TargetError::NonFatal) } else { Ok(read) }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], thread: Tid) -> TargetResult<(), Self> {
        let written = memory::write(&self.controls(thread)?, self.memory, start, data);
        if written { Ok(()) } else { Err(TargetError::NonFatal) }
    }

    fn list_active_threads(&mut self, thread_is_active: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        self.cpus.stopped().for_each(|index| thread_is_active(Cpus::thread(index)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<Tid> for Guest {
    fn read_register(
        &mut self,
        thread: Tid,
        register: Number,
        buffer: &mut [u8],
    ) -> TargetResult<usize, Self> {
        let value = self.slot(thread, |slot| slot.registers.get(register.0))?.ok_or(TargetError::NonFatal)?;
        let bytes = &value.to_le_bytes()[..register.0.bytes().min(8)];
        buffer.get_mut(..bytes.len()).ok_or(TargetError::NonFatal)?.copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_register(&mut self, thread: Tid, register: Number, value: &[u8]) -> TargetResult<(), Self> {
        let value = super::registers::little_endian(value);
        self.slot(thread, |slot| slot.registers.set(register.0, value))?.map_err(|_| TargetError::NonFatal)
    }
}

impl MultiThreadResume for Guest {
    fn resume(&mut self) -> Result<(), Infallible> {
        self.release();
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Infallible> {
        self.others = Run::Released;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, thread: Tid, _: Option<Signal>) -> Result<(), Infallible> {
        self.plan(thread, Run::Released);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Guest {
    fn set_resume_action_step(&mut self, thread: Tid, _: Option<Signal>) -> Result<(), Infallible> {
        self.plan(thread, Run::Stepped);
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Guest {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        self.others = Run::Held;
        Ok(())
    }
}

impl BreakpointsTarget for Guest {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Guest {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let controls = self.controls(self.current)?;
        Ok(self.breakpoints.lock().insert(address, &controls, self.memory))
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.breakpoints.lock().remove(address, self.memory))
    }
}

impl HwBreakpoint for Guest {
    fn add_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.breakpoints.lock().watch(address, 1, None))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.breakpoints.lock().unwatch(address, 1, None))
    }
}

impl HwWatchpoint for Guest {
    fn add_hw_watchpoint(&mut self, address: u64, size: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        Ok(self.breakpoints.lock().watch(address, size, Some(kind)))
    }

    fn remove_hw_watchpoint(&mut self, address: u64, size: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        Ok(self.breakpoints.lock().unwatch(address, size, Some(kind)))
    }
}

impl SectionOffsets for Guest {
    /// Tells gdb how far the kernel was moved, so that it finds symbols at their addresses. Before the kernel has said
    /// so, it is where it was linked.
    fn get_section_offsets(&mut self) -> Result<Offsets<u64>, Infallible> {
        let controls = self.controls(self.current).unwrap_or_default();
        let kernel = Kernel::find_running(self.memory, &self.ram, &controls);
        let offset = kernel.map_or(0, |kernel| kernel.offset());
        Ok(Offsets::Sections { text: offset, data: offset, bss: None })
    }
}

impl MonitorCmd for Guest {
    fn handle_monitor_cmd(&mut self, command: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Infallible> {
        let Self { cpus, memory, ram, surroundings, current, .. } = self;
        let shown = Shown { cpus, current: *current, memory: *memory, ram, surroundings: *surroundings };
        monitor::run(command, &shown, &mut |text| {
            out.write_raw(text);
            out.flush(); // a line at a time, so that the whole text takes no memory
        });
        Ok(())
    }
}
