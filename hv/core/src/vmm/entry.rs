//! The states in which the guest's CPUs start. The boot CPU starts as the 32-bit boot protocol of Linux requires: in
//! protected mode, with flat segments and with paging off.

use crate::mem::addr::Gpa;

/// Where a virtual CPU starts. `W` is the [`Vcpu::WaitForSipi`](super::vcpu::Vcpu::WaitForSipi) of its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin<W> {
    /// At the kernel's entry: the boot CPU.
    Kernel(EntryState),
    /// In the state after INIT: it waits in the guest for a start-up IPI, now and after each INIT.
    Waiting(W),
    /// At the page that this vector of a start-up IPI names.
    Startup(u8),
    /// At the page that this vector of a start-up IPI names, with
    /// [`Startup::Landing`](super::machine::Startup::Landing): the next INIT takes the CPU out of the guest without an
    /// exit.
    Landing(u8),
}

/// The parts of the boot CPU's state that vary. Interrupts are off, and all other general-purpose registers are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryState {
    /// EIP: the address at which execution starts.
    pub entry: Gpa,
    /// ESI: the address of boot_params.
    pub boot_params: Gpa,
    /// The address of a GDT that holds the descriptors of `code` and `data`.
    pub gdt: Gpa,
    /// The limit of the GDT: its size in bytes, less 1.
    pub gdt_limit: u16,
    /// CS: the selector of a flat 32-bit code segment.
    pub code: u16,
    /// DS, ES, FS, GS and SS: the selector of a flat 32-bit data segment.
    pub data: u16,
}
