//! The state of a CPU as text.
//!
//! No line is longer than [`WIDTH`](crate::console::wrap::WIDTH). What matters most comes last, since the top of a long
//! report scrolls away on a screen of 25 rows.

use core::fmt;

use crate::policy::control::Controls;
use crate::vmm::cpu_state::{CpuState, Segment, TableRegister};
use crate::vmm::crash::Snapshot;
use crate::vmm::fetch::is_64_bit;
use crate::x86::registers::Register;

/// The names of the segments. In 64-bit mode the first four have neither a base nor a limit.
const SEGMENTS: [&str; 8] = ["cs", "ss", "ds", "es", "fs", "gs", "tr", "ldtr"];

/// The full state of a CPU: 17 lines in 64-bit mode, and otherwise 20.
#[derive(Debug)]
pub struct Full<'a>(pub &'a Snapshot);

impl fmt::Display for Full<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ROWS: [[(&str, Register); 3]; 5] = [
            [("rax", Register::Rax), ("rbx", Register::Rbx), ("rcx", Register::Rcx)],
            [("rdx", Register::Rdx), ("rsi", Register::Rsi), ("rdi", Register::Rdi)],
            [("rbp", Register::Rbp), ("rsp", Register::Rsp), ("r8 ", Register::R8)],
            [("r9 ", Register::R9), ("r10", Register::R10), ("r11", Register::R11)],
            [("r12", Register::R12), ("r13", Register::R13), ("r14", Register::R14)],
        ];
        let CpuState { registers, rip, rflags, cr2, controls, segments, gdtr, idtr, dr7 } = &self.0.state;
        for fields in self.0.vendor.chunks(2) {
            f.write_str(" ")?;
            for (name, value) in fields.iter().filter(|(name, _)| !name.is_empty()) {
                write!(f, " {name} {value:#x}")?;
            }
            writeln!(f)?;
        }
        let (flat, based) = SEGMENTS.split_at(if is_64_bit(controls) { 4 } else { 0 });
        for (name, Segment { selector, rights, .. }) in flat.iter().zip(segments) {
            write!(f, "  {name} {selector:04x} {rights:05x}")?;
        }
        if !flat.is_empty() {
            writeln!(f)?;
        }
        for (name, segment) in based.iter().zip(&segments[flat.len()..]) {
            let Segment { selector, base, limit, rights } = segment;
            writeln!(f, "  {name:4} {selector:04x} base {base:016x} limit {limit:08x} rights {rights:05x}")?;
        }
        for (name, TableRegister { base, limit }) in [("gdtr", gdtr), ("idtr", idtr)] {
            write!(f, "  {name} {base:016x} limit {limit:04x}")?;
        }
        writeln!(f, "\n  rip {rip:016x}  rflags {rflags:08x}  cpl {}", self.0.state.cpl())?;
        for row in ROWS {
            for (name, register) in row {
                write!(f, "  {name} {:016x}", registers.get(register))?;
            }
            writeln!(f)?;
        }
        let Controls { cr0, cr3, cr4, efer, .. } = controls;
        writeln!(f, "  r15 {:016x}  cr2 {cr2:016x}  cr3 {cr3:016x}", registers.get(Register::R15))?;
        write!(f, "  cr0 {cr0:08x}  cr4 {cr4:08x}  efer {efer:04x}  dr7 {dr7:08x}")
    }
}

/// What the report says in one line of a CPU that another one has stopped.
#[derive(Debug)]
pub struct Brief<'a>(pub &'a CpuState);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(state) = self;
        let (rsp, cr3) = (state.registers.get(Register::Rsp), state.controls.cr3);
        write!(f, "rip {:016x} rsp {rsp:016x} cr3 {cr3:016x} cpl {}", state.rip, state.cpl())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::wrap::WIDTH;
    use crate::vmm::cpu_state::SegmentRegister;
    use crate::x86::msr::EFER_LMA;
    use crate::x86::registers::Registers;

    /// A state in which every value is as long as it can be.
    fn longest() -> Snapshot {
        let mut registers = Registers::default();
        Register::ALL.iter().for_each(|register| registers.set(*register, u64::MAX));
        let segment = Segment { selector: u16::MAX, base: u64::MAX, limit: u32::MAX, rights: 0x1_f0ff };
        let table = TableRegister { base: u64::MAX, limit: u16::MAX };
        let all = u64::MAX;
        let (cr0, rflags, dr7) = (0xe005_003f, 0x003f_7fd7, 0xffff_ffff);
        let controls = Controls { cr0, cr3: all, cr4: 0x1ff_ffff, efer: 0x2f_fd01, cs_l: true };
        let segments = [segment; 8];
        let state = CpuState {
            registers,
            rip: all,
            rflags,
            controls,
            cr2: all,
            dr7,
            segments,
            gdtr: table,
            idtr: table,
        };
        Snapshot { state, vendor: [("instruction-error", u64::MAX); 6] }
    }

    #[test]
    fn each_line_of_the_report_fits_on_a_screen() {
        let mut snapshot = longest();
        // Outside of 64-bit mode the report of a machine with one CPU fits on 25 rows, of which the cursor takes one:
        // four more lines name the reason, the exit, the CPU, and what happens then.
        for (lma, lines) in [(EFER_LMA, 17), (0, 20)] {
            snapshot.state.controls.efer = 0x2f_f901 | lma;
            let text = Full(&snapshot).to_string();
            assert_eq!(text.lines().count(), lines, "{text}");
            let brief = format!("  CPU 255 {}", Brief(&snapshot.state));
            for line in text.lines().chain([brief.as_str()]) {
                assert!(line.len() <= WIDTH, "{} characters: {line}", line.len());
            }
        }
    }

    #[test]
    fn the_registers_come_last() {
        let mut snapshot = Snapshot::default();
        snapshot.vendor[0] = ("exit-reason", 2);
        snapshot.state.registers.set(Register::Rsp, 0x1234);
        snapshot.state[SegmentRegister::Ss].rights = 0xf3;
        let text = Full(&snapshot).to_string();
        let at =
            |word: &str| text.find(word).unwrap_or_else(|| panic!("{word:?} is not in the report:\n{text}"));
        let order = [
            "exit-reason 0x2",
            "  cs   0000 ",
            "  ldtr 0000 ",
            "gdtr ",
            "idtr ",
            "rip ",
            "cpl 3",
            "rax ",
            "rsp 0000000000001234",
            "r15 ",
            "cr2 ",
            "cr3 ",
            "cr0 ",
        ];
        assert!(order.map(at).is_sorted(), "{text}");
    }
}
