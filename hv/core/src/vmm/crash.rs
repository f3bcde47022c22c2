//! The guest's state as the text of a crash report.

use core::fmt;

use super::cpu_state::{CpuState, Segment};
use crate::policy::control::Controls;
use crate::x86::registers::Register;

/// Everything that a crash report shows of a virtual CPU.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The state of the CPU.
    pub state: CpuState,
    /// The names and values of fields of the VMCS or VMCB. A pair with an empty name is not shown.
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
        let CpuState { registers, rip, rflags, cr2, controls, segments, gdtr, idtr, .. } = &self.state;
        writeln!(f, "  rip {rip:016x} rflags {rflags:08x} cr2 {cr2:016x}")?;
        for row in ROWS {
            f.write_str(" ")?;
            for (name, register) in row {
                write!(f, " {name} {:016x}", registers.get(register))?;
            }
            writeln!(f)?;
        }
        let Controls { cr0, cr3, cr4, efer, .. } = controls;
        writeln!(f, "  cr0 {cr0:08x} cr3 {cr3:016x} cr4 {cr4:08x} efer {efer:04x}")?;
        for (name, segment) in SEGMENTS.iter().zip(segments) {
            let Segment { selector, base, limit, rights } = segment;
            writeln!(f, "  {name:4} {selector:04x} base {base:016x} limit {limit:08x} rights {rights:05x}")?;
        }
        writeln!(
            f,
            "  gdtr {:016x} limit {:04x}  idtr {:016x} limit {:04x}",
            gdtr.base, gdtr.limit, idtr.base, idtr.limit
        )?;
        f.write_str(" ")?;
        self.vendor
            .iter()
            .filter(|(name, _)| !name.is_empty())
            .try_for_each(|(name, value)| write!(f, " {name} {value:#x}"))
    }
}
