//! The seam between vendors: what a virtual CPU can do, with no word of how.

use super::crash::Snapshot;
use super::doubt::Doubt;
use super::exit::Exit;
use super::fetch::Code;
use super::outcome::Exception;
use super::percpu::PerCpu;
use super::processor::Processor;
use crate::policy::control::Controls;
use crate::x86::registers::{Register, Registers};

/// A virtual CPU of one extension, on the physical CPU that it is bound to.
pub trait Vcpu: Processor {
    /// Runs the guest until it leaves, delivering what is kept for it first.
    fn run(&mut self) -> Exit;

    /// The general-purpose registers.
    fn registers(&mut self) -> &mut Registers;

    /// Sets all 64 bits of `register`. A backend whose exits can name RSP here, which [`Vcpu::registers`] does not have, sets
    /// that as well.
    fn set_register(&mut self, register: Register, value: u64) {
        self.registers().set(register, value);
    }

    /// The CPU's own block.
    fn percpu(&self) -> &'static PerCpu;

    /// CR0, CR3, CR4 and EFER as the guest sees them.
    fn controls(&self) -> Controls;

    /// CR4 as the guest sees it: a part of [`Vcpu::controls`], for the exits that come often.
    fn cr4(&self) -> u64;

    /// The current privilege level.
    fn cpl(&self) -> u8;

    /// Returns true if the task register has a 16-bit task state.
    fn task_is_16_bit(&self) -> bool;

    /// Makes CR0, CR4 and EFER those of `controls`, which must be consistent.
    fn set_controls(&mut self, controls: &Controls);

    /// Makes writes of EFER exit, or not, where the backend otherwise leaves them to the CPU.
    fn watch_efer(&mut self, _watch: bool) {}

    /// Loads the four page-directory-pointer-table entries of PAE paging.
    fn set_pdptes(&mut self, entries: [u64; 4]);

    /// Goes behind the instruction that exited: RIP, RF, the STI and MOV-SS shadow, and #DB if TF is set.
    fn advance(&mut self);

    /// As [`Vcpu::advance`], for an instruction of `length` bytes whose length the CPU does not tell.
    fn skip(&mut self, length: u8);

    /// Raises an exception with the next entry.
    fn inject(&mut self, exception: Exception);

    /// Replaces the bits in `mask` of RFLAGS by those of `flags`.
    fn set_flags(&mut self, mask: u64, flags: u64);

    /// Where the next instruction is.
    fn code(&self) -> Code;

    /// Puts the CPU into the state after INIT; with `waits` it then waits for a start-up IPI, in the guest.
    fn init(&mut self, waits: bool);

    /// Starts the CPU, which is in the state after INIT, at the page that `vector` names.
    fn startup(&mut self, vector: u8);

    /// Drops what the CPU remembers of the second-stage table, and with it of the guest's own tables.
    fn flush_second_stage(&mut self);

    /// Exits at instructions that were not found in memory.
    fn doubt(&mut self) -> &mut Doubt;

    /// The whole state, for a crash report.
    fn snapshot(&self) -> Snapshot;

    /// Leaves the extension's mode of operation, before the machine is reset.
    fn leave(&mut self);
}
