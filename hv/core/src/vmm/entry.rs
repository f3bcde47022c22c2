//! The state in which the guest's boot CPU starts: 32-bit protected mode with flat segments and paging off, as the
//! 32-bit boot protocol of Linux wants it.

use crate::mem::addr::Gpa;

/// How a virtual CPU begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// The boot CPU, at the kernel's entry.
    Kernel(EntryState),
    /// Waiting for a start-up IPI in the guest, as after INIT.
    Waiting,
    /// At this vector, as a start-up IPI has it.
    Startup(u8),
    /// The same, where the next INIT is not Vidar's business.
    Landed(u8),
}

/// What varies of it; interrupts are off, and all other registers are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryState {
    /// Where execution starts.
    pub entry: Gpa,
    /// ESI: the address of boot_params.
    pub boot_params: Gpa,
    /// A GDT that holds the two descriptors below.
    pub gdt: Gpa,
    /// Its limit in bytes.
    pub gdt_limit: u16,
    /// Selector of a flat 32-bit code segment: CS.
    pub code: u16,
    /// Selector of a flat 32-bit data segment: DS, ES, FS, GS, SS.
    pub data: u16,
}
