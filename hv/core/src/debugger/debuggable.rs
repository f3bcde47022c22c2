//! The seam to the vendors: what a virtual CPU can do for a debugger, besides what every virtual CPU can do. None of it
//! happens while no debugger was asked for.

use super::breakpoints::DebugRegisters;
use super::debug_registers::{Access, GuestDebugRegisters};
use super::port::PortAccess;
use super::registers::RegisterFile;
use super::structure::Layout;
use crate::vmm::vcpu::Vcpu;

/// An exit that only a debugger asks for. The usual decoder of exits does not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebugExit {
    /// #DB, with these bits of DR6.
    Debug(u64),
    /// INT1, which is this long and has not been executed: RIP is its address.
    Int1(u8),
    /// INT3, which is this long and has not been executed: RIP is its address.
    Breakpoint(u8),
    /// The CPU has executed one instruction, as [`Debuggable::set_step`] has asked.
    Step,
    /// A MOV to or from a debug register.
    Access(Access),
    /// An access to a port of the line.
    Port(PortAccess),
    /// An NMI, which is pending still. It is no call from another CPU.
    Nmi,
    /// An exit after which the guest just goes on: the time to look for gdb has come, or the backend has answered it.
    Answered,
}

/// An exception of the guest's own, which exits because gdb uses the same exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestException {
    /// #DB.
    Debug,
    /// #DB of the INT1 at RIP, which is this long. The handler returns to the instruction after it.
    Int1(u8),
    /// #BP of the INT3 at RIP, which is this long. The handler returns to the instruction after it.
    Breakpoint(u8),
}

/// A virtual CPU that a debugger can stop.
pub trait Debuggable: Vcpu {
    /// True if the CPU exits at an NMI that another one sends to call it. Otherwise it exits soon by
    /// [`Debuggable::limit_time`].
    const CALLED_BY_NMI: bool;

    /// What the VMCS or the VMCB consists of.
    const LAYOUT: Layout;

    /// Has #DB, INT3 and every MOV to or from a debug register exit, from the next entry on.
    fn watch_debug_exits(&mut self);

    /// Has INT3 exit where that takes more than [`Debuggable::watch_debug_exits`], since gdb has set some.
    fn watch_int3(&mut self, _on: bool) {}

    /// Returns true if the CPU waits in the guest for its start-up IPI.
    fn waits(&self) -> bool {
        false
    }

    /// Returns the value of a field of [`Debuggable::LAYOUT`] by its number, or `None` if the CPU does not have it.
    fn field(&self, number: usize) -> Option<u64>;

    /// Returns the registers.
    fn register_file(&self) -> RegisterFile;

    /// Changes the registers to `new`, of which those differ from [`Debuggable::register_file`] that
    /// [`RegisterFile::set`] changes.
    fn set_register_file(&mut self, new: &RegisterFile);

    /// Returns the debug registers, which the guest has used alone so far.
    fn debug_registers(&self) -> GuestDebugRegisters;

    /// Loads DR0 to DR3 and DR7. The guest does not see them.
    fn load_debug_registers(&mut self, registers: &DebugRegisters);

    /// Decodes an exit that the usual decoder does not know, by its code and its qualification. Returns `None` if no
    /// debugger has asked for it.
    fn debug_exit(&mut self, code: u32, qualification: u64) -> Option<DebugExit>;

    /// Has the next entry deliver an exception of the guest's own.
    fn deliver(&mut self, exception: GuestException);

    /// Returns true if the CPU cannot stop after an instruction without RFLAGS.TF, which the guest can see.
    fn steps_by_trap_flag(&self) -> bool;

    /// Has the CPU execute one instruction and then exit, or ends that. No interrupt comes before the instruction, if
    /// the CPU can prevent it. If [`Debuggable::steps_by_trap_flag`] returns true, the caller sets RFLAGS.TF as well.
    fn set_step(&mut self, on: bool);

    /// Drops the debug exception that is pending because [`Vcpu::advance`] has found RFLAGS.TF set, or because the CPU
    /// itself has. The caller has set the flag, and the guest has not.
    fn drop_single_step(&mut self);

    /// Returns true if the next entry injects a debug exception because [`Vcpu::advance`] has found RFLAGS.TF set. The
    /// caller then notes its reason, which the CPU does not do. Where such an exception exits, this returns false.
    fn injects_single_step(&mut self) -> bool {
        false
    }

    /// Takes the NMI by which another CPU has called this one, if it has come, so that an NMI of the guest's own that
    /// comes while this CPU is stopped is another one.
    fn take_call(&mut self) {}

    /// Takes the NMI of the line to gdb, if one has come.
    fn take_ring(&mut self) {}

    /// Lets the guest have the NMI that has exited.
    fn pass_nmi(&mut self) {}

    /// Makes what the debugger has changed consistent, right before an entry.
    fn settle(&mut self) {}

    /// Has the guest exit after some thousandths of a second if it does not before, or at its next interrupt on a CPU
    /// that cannot count the time. `listens` is true on the CPU that looks for gdb.
    fn limit_time(&mut self, listens: bool);
}
