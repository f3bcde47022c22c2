//! The guest's state in words, for when it cannot go on.

use core::fmt;

use crate::policy::control::Controls;
use crate::x86::registers::{Register, Registers};

/// A segment register with its hidden part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u32,
    /// Access rights in the extension's own layout.
    pub rights: u32,
}

/// All that a report shows.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// General-purpose registers; RSP stands below.
    pub registers: Registers,
    /// RIP.
    pub rip: u64,
    /// RSP.
    pub rsp: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// CR2.
    pub cr2: u64,
    /// CR0, CR3, CR4, EFER.
    pub controls: Controls,
    /// CS, SS, DS, ES, FS, GS, TR, LDTR.
    pub segments: [Segment; 8],
    /// Base and limit of the GDT.
    pub gdtr: (u64, u32),
    /// Base and limit of the IDT.
    pub idtr: (u64, u32),
    /// The extension's own numbers: name and value.
    pub vendor: [(&'static str, u64); 6],
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SEGMENTS: [&str; 8] = ["cs", "ss", "ds", "es", "fs", "gs", "tr", "ldtr"];
        const ROWS: [[(&str, Register); 4]; 4] = [
            [("rax", Register::Rax), ("rbx", Register::Rbx), ("rcx", Register::Rcx), ("rdx", Register::Rdx)],
            [("rsi", Register::Rsi), ("rdi", Register::Rdi), ("rbp", Register::Rbp), ("r8 ", Register::R8)],
            [("r9 ", Register::R9), ("r10", Register::R10), ("r11", Register::R11), ("r12", Register::R12)],
            [("r13", Register::R13), ("r14", Register::R14), ("r15", Register::R15), ("rsp", Register::Rsp)],
        ];
        writeln!(f, "  rip {:016x} rflags {:08x} cr2 {:016x}", self.rip, self.rflags, self.cr2)?;
        for row in ROWS {
            f.write_str(" ")?;
            for (name, register) in row {
                let value = if register == Register::Rsp { self.rsp } else { self.registers.get(register) };
                write!(f, " {name} {value:016x}")?;
            }
            writeln!(f)?;
        }
        let Controls { cr0, cr3, cr4, efer, .. } = self.controls;
        writeln!(f, "  cr0 {cr0:08x} cr3 {cr3:016x} cr4 {cr4:08x} efer {efer:04x}")?;
        for (name, segment) in SEGMENTS.iter().zip(self.segments) {
            let Segment { selector, base, limit, rights } = segment;
            writeln!(f, "  {name:4} {selector:04x} base {base:016x} limit {limit:08x} rights {rights:05x}")?;
        }
        writeln!(
            f,
            "  gdtr {:016x} limit {:04x}  idtr {:016x} limit {:04x}",
            self.gdtr.0, self.gdtr.1, self.idtr.0, self.idtr.1
        )?;
        f.write_str(" ")?;
        self.vendor
            .iter()
            .filter(|(name, _)| !name.is_empty())
            .try_for_each(|(name, value)| write!(f, " {name} {value:#x}"))
    }
}
