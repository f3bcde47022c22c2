//! The seam between vendors: what a virtual CPU can do, whichever extension runs it.

use core::fmt::Debug;

use super::crash::Snapshot;
use super::doubt::Doubt;
use super::exit::Exit;
use super::fetch::Code;
use super::outcome::{Exception, Interrupted};
use super::percpu::PerCpu;
use super::processor::Processor;
use super::rules::{Broken, Moment};
use crate::mem::stage2::Format;
use crate::policy::control::{ControlWrite, Controls};
use crate::policy::guard::Pins;
use crate::x86::msr::Fault;
use crate::x86::registers::{Register, Registers};

/// A virtual CPU of one extension. It stays on one physical CPU.
pub trait Vcpu: Processor {
    /// The format of the second stage's tables.
    type Format: Format + Send;
    /// Proof that a CPU can wait in the guest for a start-up IPI. On an extension where no CPU can, it is
    /// [`Infallible`](core::convert::Infallible), so what needs the proof does not exist there.
    type WaitForSipi: Copy + Debug + PartialEq + Send + Sync + 'static;

    /// Delivers the events that are pending for the guest, runs the guest until it exits, and returns the decoded exit.
    fn run(&mut self) -> Exit;

    /// Returns the general-purpose registers except RSP, whose slot is not used.
    fn registers(&mut self) -> &mut Registers;

    /// Sets all 64 bits of `register`. An extension whose exits can name RSP overrides this method, so that it sets RSP
    /// as well.
    fn set_register(&mut self, register: Register, value: u64) {
        self.registers().set(register, value);
    }

    /// Returns the per-CPU block.
    fn percpu(&self) -> &'static PerCpu;

    /// Returns CR0, CR3, CR4 and EFER as the guest sees them.
    fn controls(&self) -> Controls;

    /// Returns CR4 as the guest sees it. It is a part of [`Vcpu::controls`], and faster for frequent exits.
    fn cr4(&self) -> u64;

    /// Returns the current privilege level, 0 to 3.
    fn cpl(&self) -> u8;

    /// Sets CR0, CR4 and EFER to those of `controls`, which must be a valid combination.
    fn set_controls(&mut self, controls: &Controls);

    /// Does what a write to a control register does, after the exit that it has caused. `pdptes` reads the
    /// page-directory-pointer-table entries at a value of CR3, and checks them. `guard` is asked about the new values,
    /// once the CPU itself would accept them.
    ///
    /// # Errors
    /// Returns [`Fault`] if the write raises #GP.
    fn write_control(
        &mut self,
        write: ControlWrite,
        pdptes: impl FnOnce(u64) -> Result<[u64; 4], Fault>,
        guard: impl FnOnce(&mut Self, &Controls) -> Result<(), Fault>,
    ) -> Result<(), Fault>;

    /// Stores a value that the CPU has accepted for the MSR `index`, if the guest has the MSR only while it runs.
    fn keep_msr(&mut self, index: u32, value: u64);

    /// Makes writes of EFER exit if `watch` is true. If it is false, they need not exit.
    fn watch_efer(&mut self, watch: bool);

    /// Returns what the boot option `guard` keeps on this CPU. An INIT forgets it.
    fn pins(&mut self) -> &mut Pins;

    /// Completes the instruction that exited: sets RIP to the address after it, clears RF and the shadow of STI and MOV
    /// SS, and raises #DB if TF is set.
    fn advance(&mut self);

    /// Completes an instruction of `length` bytes as [`Vcpu::advance`] does, after an exit for which the CPU does not
    /// report the length.
    fn skip(&mut self, length: u8);

    /// Returns the event whose delivery the last exit has interrupted; `None` if it has interrupted none.
    fn interrupted(&self) -> Option<Interrupted>;

    /// Injects an exception with the next entry. It takes the place of an event whose delivery the exit has
    /// interrupted.
    fn inject(&mut self, exception: Exception);

    /// Replaces the bits of RFLAGS that `mask` selects by those of `flags`.
    fn set_flags(&mut self, mask: u64, flags: u64);

    /// Returns RIP. It is a part of [`Vcpu::code`], and faster at each exit.
    fn rip(&self) -> u64;

    /// Returns the location of the next instruction.
    fn code(&self) -> Code;

    /// Puts the CPU into the state after INIT, and drops the events that are pending for it. If it began with
    /// [`Begin::Waiting`](super::entry::Begin::Waiting), it waits in the guest for a start-up IPI again.
    fn init(&mut self);

    /// Starts the CPU at the page that `vector` names. The CPU must be in the state after INIT.
    fn startup(&mut self, vector: u8);

    /// Has the CPU wait in the page with the number `room`, which holds a loop around HLT. It takes no interrupt and no
    /// NMI there. The CPU must be in the state after INIT.
    fn wait_at(&mut self, room: u8);

    /// Returns true if an INIT that has exited does nothing more once [`Vcpu::init`] has been called. Otherwise it is
    /// still pending, and resets the CPU when it can.
    fn takes_init(&self) -> bool;

    /// Flushes the CPU's cached translations of the second stage, and with them those of the guest's own page tables.
    fn flush_second_stage(&mut self);

    /// Returns the count of exits at an instruction that was not found in memory.
    fn doubt(&mut self) -> &mut Doubt;

    /// Returns the state of the virtual CPU for a crash report.
    fn snapshot(&self) -> Snapshot;

    /// Calls `found` with each rule for entering the guest that the state breaks, or has broken at an entry that
    /// failed.
    fn broken_rules(&self, moment: Moment, found: &mut dyn FnMut(&Broken<'_>));

    /// Returns the reason why rules cannot explain an entry that failed with this code, or `None` if they can.
    fn beyond_rules(_code: u32) -> Option<&'static str> {
        None
    }
}
