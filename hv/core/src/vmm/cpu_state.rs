//! The state of a guest's CPU, in the same form for both extensions: after INIT, after a start-up IPI, at the kernel's
//! entry, and in a crash report.

use super::entry::EntryState;
use crate::policy::control::{CR0_ET, CR0_PE, Controls};
use crate::x86::registers::{Register, Registers};

/// DR7 after INIT.
const DR7_RESET: u64 = 0x400;
/// RFLAGS after INIT: the bit that is always 1.
const RFLAGS_RESET: u64 = 1 << 1;

/// The access rights of a segment, as the VMCS has them. Intel SDM Vol. 3C, 25.4.1 "Guest Register State", table
/// "Format of Access Rights".
pub mod rights {
    /// 32-bit code, granularity of 4 KiB, executable and readable, accessed.
    pub const FLAT_CODE: u32 = 0xc09b;
    /// 32-bit data, granularity of 4 KiB, writable, accessed.
    pub const FLAT_DATA: u32 = 0xc093;
    /// 16-bit code, executable and readable, accessed.
    pub const REAL_MODE_CODE: u32 = 0x009b;
    /// 16-bit data, writable, accessed.
    pub const REAL_MODE_DATA: u32 = 0x0093;
    /// Busy 32-bit TSS.
    pub const BUSY_TSS: u32 = 0x008b;
    /// LDT.
    pub const LDT: u32 = 0x0082;
    /// The segment is unusable.
    pub const UNUSABLE: u32 = 1 << 16;
}

/// A segment register with its hidden part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u32,
    /// Access rights, as [`rights`] has them.
    pub rights: u32,
}

impl Segment {
    /// Returns CS of a CPU that starts by a start-up IPI with this vector: its base address is `vector` times 4 KiB.
    /// Intel SDM Vol. 3A, 9.4.3 "MP Initialization Protocol Algorithm for MP Systems".
    pub const fn started_at(vector: u8) -> Self {
        let selector = (vector as u16) << 8;
        Self { selector, base: (selector as u64) << 4, limit: 0xffff, rights: rights::REAL_MODE_CODE }
    }

    const fn new(selector: u16, limit: u32, rights: u32) -> Self {
        Self { selector, base: 0, limit, rights }
    }
}

/// The registers that hold a segment, in the order of [`CpuState::segments`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentRegister {
    /// CS.
    Cs,
    /// SS.
    Ss,
    /// DS.
    Ds,
    /// ES.
    Es,
    /// FS.
    Fs,
    /// GS.
    Gs,
    /// The task register.
    Tr,
    /// The local descriptor table register.
    Ldtr,
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableRegister {
    /// Base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

/// The state of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuState {
    /// The general-purpose registers, including RSP.
    pub registers: Registers,
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// CR0, CR3, CR4 and EFER as the guest sees them.
    pub controls: Controls,
    /// CR2.
    pub cr2: u64,
    /// DR7.
    pub dr7: u64,
    /// The segments, indexed by [`SegmentRegister`].
    pub segments: [Segment; 8],
    /// The global descriptor table register.
    pub gdtr: TableRegister,
    /// The interrupt descriptor table register.
    pub idtr: TableRegister,
}

impl CpuState {
    /// Returns the state of a CPU after INIT. `signature` is the CPU's signature, which CPUID.01H returns in EAX and
    /// INIT puts into EDX. INIT does not change CR0.CD and CR0.NW; here they are 0.
    ///
    /// Intel SDM Vol. 3A, 10.1.1 "Processor State After Reset", table "IA-32 and Intel 64 Processor States Following
    /// Power-up, Reset, or INIT"; AMD APM Vol. 2, 14.1.3 "Processor Initialization State".
    #[cold]
    #[inline(never)] // both extensions use it, in more than one place
    pub fn after_init(signature: u32) -> Self {
        let data = Segment::new(0, 0xffff, rights::REAL_MODE_DATA);
        let mut state = Self { rip: 0xfff0, ..Self::reset(data) };
        state[SegmentRegister::Cs] =
            Segment { base: 0xffff_0000, ..Segment::new(0xf000, 0xffff, rights::REAL_MODE_CODE) };
        state[SegmentRegister::Ldtr] = Segment::new(0, 0xffff, rights::LDT);
        (state.gdtr.limit, state.idtr.limit) = (0xffff, 0xffff);
        state.registers.set(Register::Rdx, signature.into());
        state
    }

    /// Returns the state of the boot CPU at the kernel's 32-bit entry. Linux, Documentation/arch/x86/boot.rst, "32-bit
    /// Boot Protocol".
    #[cold]
    #[inline(never)]
    pub fn at_kernel(entry: &EntryState) -> Self {
        let data = Segment::new(entry.data, u32::MAX, rights::FLAT_DATA);
        let mut state = Self { rip: entry.entry.0, ..Self::reset(data) };
        state.controls.cr0 |= CR0_PE;
        state[SegmentRegister::Cs] = Segment::new(entry.code, u32::MAX, rights::FLAT_CODE);
        state[SegmentRegister::Ldtr] = Segment::new(0, 0xffff, rights::UNUSABLE);
        state.gdtr = TableRegister { base: entry.gdt.0, limit: entry.gdt_limit };
        state.registers.set(Register::Rsi, entry.boot_params.0);
        state
    }

    /// Returns the current privilege level: the descriptor privilege level of SS. Intel SDM Vol. 3C, 25.4.1 "Guest
    /// Register State".
    pub fn cpl(&self) -> u8 {
        (self[SegmentRegister::Ss].rights >> 5 & 3) as u8
    }

    /// Returns what the state after INIT and that at the kernel's entry have in common, with `data` in every segment
    /// register but TR.
    fn reset(data: Segment) -> Self {
        let mut state = Self { rflags: RFLAGS_RESET, dr7: DR7_RESET, segments: [data; 8], ..Self::default() };
        state.controls.cr0 = CR0_ET;
        state[SegmentRegister::Tr] = Segment::new(0, 0xffff, rights::BUSY_TSS);
        state
    }
}

impl core::ops::Index<SegmentRegister> for CpuState {
    type Output = Segment;

    fn index(&self, register: SegmentRegister) -> &Segment {
        &self.segments[register as usize]
    }
}

impl core::ops::IndexMut<SegmentRegister> for CpuState {
    fn index_mut(&mut self, register: SegmentRegister) -> &mut Segment {
        &mut self.segments[register as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::addr::Gpa;

    #[test]
    fn a_cpu_starts_at_the_reset_vector_after_init() {
        let state = CpuState::after_init(0x506e3);
        assert_eq!(state[SegmentRegister::Cs].base + state.rip, 0xffff_fff0);
        assert_eq!((state.controls.cr0, state.rflags, state.dr7), (0x10, 2, 0x400));
        assert_eq!(state.registers.get(Register::Rdx), 0x506e3);
        for register in [SegmentRegister::Ss, SegmentRegister::Gs] {
            assert_eq!(state[register], Segment { selector: 0, base: 0, limit: 0xffff, rights: 0x93 });
        }
    }

    #[test]
    fn the_vector_of_a_start_up_ipi_is_the_number_of_a_page() {
        let cs = Segment::started_at(0x9a);
        assert_eq!((cs.selector, cs.base), (0x9a00, 0x9_a000));
    }

    #[test]
    fn the_kernel_starts_with_flat_segments_and_boot_params_in_esi() {
        let entry = EntryState {
            entry: Gpa(0x100_0000),
            boot_params: Gpa(0x1_0000),
            gdt: Gpa(0x1_1000),
            gdt_limit: 0x1f,
            code: 0x10,
            data: 0x18,
        };
        let state = CpuState::at_kernel(&entry);
        assert_eq!((state.rip, state.controls.cr0), (0x100_0000, 0x11));
        assert_eq!(state.registers.get(Register::Rsi), 0x1_0000);
        assert_eq!(state.gdtr, TableRegister { base: 0x1_1000, limit: 0x1f });
        assert_eq!(
            state[SegmentRegister::Cs],
            Segment { selector: 0x10, base: 0, limit: u32::MAX, rights: 0xc09b }
        );
        for register in [SegmentRegister::Ss, SegmentRegister::Ds, SegmentRegister::Fs] {
            assert_eq!(state[register], Segment { selector: 0x18, base: 0, limit: u32::MAX, rights: 0xc093 });
        }
    }
}
