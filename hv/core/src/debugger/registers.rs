//! The registers of a stopped CPU as gdb sees them: their order, their description, and which of them gdb may change.
//!
//! gdb demands that the feature `org.gnu.gdb.i386.core` has the registers of the x87 FPU. Vidar does not read them, and
//! reports that their values are not known.

use core::num::NonZeroUsize;

use gdbstub::arch::{Arch, RegId, Registers as FileOfRegisters};

use crate::policy::control::CR4_LA57;
use crate::vmm::cpu_state::{CpuState, SegmentRegister};
use crate::x86::msr::EFER_LMA;
use crate::x86::registers::Register;

/// What one of gdb's registers is in the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// A general-purpose register.
    General(Register),
    /// RIP.
    Rip,
    /// RFLAGS.
    Flags,
    /// The selector of a segment.
    Selector(SegmentRegister),
    /// A register of the x87 FPU with this size in bytes, whose value is not known.
    X87(u8),
    /// The base address of FS.
    FsBase,
    /// The base address of GS.
    GsBase,
    /// IA32_KERNEL_GS_BASE, which SWAPGS exchanges with the base address of GS.
    KernelGsBase,
    /// CR0.
    Cr0,
    /// CR2.
    Cr2,
    /// CR3.
    Cr3,
    /// CR4.
    Cr4,
    /// CR8.
    Cr8,
    /// IA32_EFER.
    Efer,
}

impl Name {
    /// Returns the size in bytes that the register has for gdb.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Flags | Self::Selector(_) => 4,
            Self::X87(bytes) => bytes as usize,
            _ => 8,
        }
    }
}

/// The registers in the order in which gdb numbers them, as [`DESCRIPTION`] lists them.
pub const ORDER: [Name; 49] = {
    use Name::{General, Selector, X87};
    [
        General(Register::Rax),
        General(Register::Rbx),
        General(Register::Rcx),
        General(Register::Rdx),
        General(Register::Rsi),
        General(Register::Rdi),
        General(Register::Rbp),
        General(Register::Rsp),
        General(Register::R8),
        General(Register::R9),
        General(Register::R10),
        General(Register::R11),
        General(Register::R12),
        General(Register::R13),
        General(Register::R14),
        General(Register::R15),
        Name::Rip,
        Name::Flags,
        Selector(SegmentRegister::Cs),
        Selector(SegmentRegister::Ss),
        Selector(SegmentRegister::Ds),
        Selector(SegmentRegister::Es),
        Selector(SegmentRegister::Fs),
        Selector(SegmentRegister::Gs),
        X87(10),
        X87(10),
        X87(10),
        X87(10),
        X87(10),
        X87(10),
        X87(10),
        X87(10),
        X87(4),
        X87(4),
        X87(4),
        X87(4),
        X87(4),
        X87(4),
        X87(4),
        X87(4),
        Name::FsBase,
        Name::GsBase,
        Name::KernelGsBase,
        Name::Cr0,
        Name::Cr2,
        Name::Cr3,
        Name::Cr4,
        Name::Cr8,
        Name::Efer,
    ]
};

macro_rules! described {
    ($($name:literal $bits:literal $type:literal)*) => {
        concat!($("<reg name=\"", $name, "\" bitsize=\"", $bits, "\" type=\"", $type, "\"/>",)*)
    };
}

/// The target description: the registers of [`ORDER`] in gdb's own terms. "Debugging with GDB", G.5 "Standard Target
/// Features".
pub const DESCRIPTION: &str = concat!(
    "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>",
    "<architecture>i386:x86-64</architecture><feature name=\"org.gnu.gdb.i386.core\">",
    "<flags id=\"flags\" size=\"4\"><field name=\"ID\" start=\"21\" end=\"21\"/><field name=\"VIP\" start=\"20\" end=\"20\"/>",
    "<field name=\"VIF\" start=\"19\" end=\"19\"/><field name=\"AC\" start=\"18\" end=\"18\"/>",
    "<field name=\"VM\" start=\"17\" end=\"17\"/><field name=\"RF\" start=\"16\" end=\"16\"/>",
    "<field name=\"NT\" start=\"14\" end=\"14\"/><field name=\"OF\" start=\"11\" end=\"11\"/>",
    "<field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"IF\" start=\"9\" end=\"9\"/>",
    "<field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"SF\" start=\"7\" end=\"7\"/>",
    "<field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"AF\" start=\"4\" end=\"4\"/>",
    "<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"CF\" start=\"0\" end=\"0\"/></flags>",
    described!(
        "rax" "64" "int64" "rbx" "64" "int64" "rcx" "64" "int64" "rdx" "64" "int64"
        "rsi" "64" "int64" "rdi" "64" "int64" "rbp" "64" "data_ptr" "rsp" "64" "data_ptr"
        "r8" "64" "int64" "r9" "64" "int64" "r10" "64" "int64" "r11" "64" "int64"
        "r12" "64" "int64" "r13" "64" "int64" "r14" "64" "int64" "r15" "64" "int64"
        "rip" "64" "code_ptr" "eflags" "32" "flags"
        "cs" "32" "int32" "ss" "32" "int32" "ds" "32" "int32" "es" "32" "int32" "fs" "32" "int32" "gs" "32" "int32"
        "st0" "80" "i387_ext" "st1" "80" "i387_ext" "st2" "80" "i387_ext" "st3" "80" "i387_ext"
        "st4" "80" "i387_ext" "st5" "80" "i387_ext" "st6" "80" "i387_ext" "st7" "80" "i387_ext"
        "fctrl" "32" "int" "fstat" "32" "int" "ftag" "32" "int" "fiseg" "32" "int"
        "fioff" "32" "int" "foseg" "32" "int" "fooff" "32" "int" "fop" "32" "int"
    ),
    "</feature><feature name=\"org.gnu.gdb.i386.segments\">",
    described!("fs_base" "64" "int64" "gs_base" "64" "int64"),
    "</feature><feature name=\"vidar.system\">",
    described!(
        "k_gs_base" "64" "int64" "cr0" "64" "int64" "cr2" "64" "int64" "cr3" "64" "int64"
        "cr4" "64" "int64" "cr8" "64" "int64" "efer" "64" "int64"
    ),
    "</feature></target>"
);

/// The registers of a stopped CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RegisterFile {
    /// The state of the CPU.
    pub state: CpuState,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// CR8.
    pub cr8: u64,
}

/// Why a register keeps its value: the CPU could refuse to enter the guest with another one, or the value belongs to
/// something that is not a register of gdb's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unchangeable;

/// The bits of RFLAGS that gdb may change: all that exist except VM, VIF and VIP, which are of use in the modes of
/// 16-bit code alone.
const CHANGEABLE_FLAGS: u64 = 0x0025_7fd5;

impl RegisterFile {
    /// Returns the value of a register, or `None` if it is not known.
    pub fn get(&self, name: Name) -> Option<u64> {
        let CpuState { registers, rip, rflags, controls, cr2, segments, .. } = &self.state;
        Some(match name {
            Name::General(register) => registers.get(register),
            Name::Rip => *rip,
            Name::Flags => *rflags,
            Name::Selector(register) => segments[register as usize].selector.into(),
            Name::X87(_) => return None,
            Name::FsBase => segments[SegmentRegister::Fs as usize].base,
            Name::GsBase => segments[SegmentRegister::Gs as usize].base,
            Name::KernelGsBase => self.kernel_gs_base,
            Name::Cr0 => controls.cr0,
            Name::Cr2 => *cr2,
            Name::Cr3 => controls.cr3,
            Name::Cr4 => controls.cr4,
            Name::Cr8 => self.cr8,
            Name::Efer => controls.efer,
        })
    }

    /// Changes a register. Whatever value it gets, the CPU can enter the guest: RIP and the base addresses must be
    /// canonical (Intel SDM Vol. 3C, 27.3.1.2 "Checks on Guest Segment Registers" and 27.3.1.4 "Checks on Guest RIP,
    /// RFLAGS, and SSP"), and selectors and control registers do not change.
    ///
    /// # Errors
    /// [`Unchangeable`] if the register cannot have this value.
    pub fn set(&mut self, name: Name, value: u64) -> Result<(), Unchangeable> {
        let allowed = match name {
            Name::General(_) | Name::Flags | Name::Cr2 => true,
            Name::Rip => {
                let is_long = self.state.controls.efer & EFER_LMA != 0;
                self.is_canonical(value) && (is_long || value >> 32 == 0)
            }
            Name::FsBase | Name::GsBase | Name::KernelGsBase => self.is_canonical(value),
            _ => self.get(name) == Some(value),
        };
        if !allowed {
            return Err(Unchangeable);
        }
        let kept = if name == Name::Flags { self.state.rflags & !CHANGEABLE_FLAGS } else { 0 };
        let changed = if name == Name::Flags { value & CHANGEABLE_FLAGS } else { value };
        self.put(name, kept | changed);
        Ok(())
    }

    /// Changes all registers to those of `new`.
    ///
    /// # Errors
    /// [`Unchangeable`] if one of them cannot have its new value. The registers before it have changed.
    pub fn set_all(&mut self, new: &Self) -> Result<(), Unchangeable> {
        ORDER.iter().try_for_each(|name| new.get(*name).map_or(Ok(()), |value| self.set(*name, value)))
    }

    /// Returns true if `address` is canonical: the bits above those that paging translates all equal the highest of
    /// them.
    const fn is_canonical(&self, address: u64) -> bool {
        let unused = if self.state.controls.cr4 & CR4_LA57 != 0 { 7 } else { 16 };
        ((address << unused) as i64 >> unused) as u64 == address
    }
}

impl FileOfRegisters for RegisterFile {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.state.rip
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        for name in ORDER {
            let value = self.get(name).map(u64::to_le_bytes);
            (0..name.bytes()).for_each(|index| write_byte(value.and_then(|bytes| bytes.get(index).copied())));
        }
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let mut rest = bytes;
        for name in ORDER {
            let (value, after) = rest.split_at_checked(name.bytes()).ok_or(())?;
            rest = after;
            if !matches!(name, Name::X87(_)) {
                // These are the values that gdb asks for. What of it can change is decided when they are set.
                self.put(name, little_endian(value));
            }
        }
        Ok(())
    }
}

impl RegisterFile {
    /// Stores a value without deciding if the register may have it.
    fn put(&mut self, name: Name, value: u64) {
        let state = &mut self.state;
        match name {
            Name::General(register) => state.registers.set(register, value),
            Name::Rip => state.rip = value,
            Name::Flags => state.rflags = value,
            Name::Selector(register) => state[register].selector = value as u16,
            Name::X87(_) => {}
            Name::FsBase => state[SegmentRegister::Fs].base = value,
            Name::GsBase => state[SegmentRegister::Gs].base = value,
            Name::KernelGsBase => self.kernel_gs_base = value,
            Name::Cr0 => state.controls.cr0 = value,
            Name::Cr2 => state.cr2 = value,
            Name::Cr3 => state.controls.cr3 = value,
            Name::Cr4 => state.controls.cr4 = value,
            Name::Cr8 => self.cr8 = value,
            Name::Efer => state.controls.efer = value,
        }
    }
}

/// Returns the number that up to eight bytes hold, the lowest first.
pub fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The number of a register, an index of [`ORDER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number(pub Name);

impl RegId for Number {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        ORDER.get(id).map(|name| (Self(*name), NonZeroUsize::new(name.bytes())))
    }
}

/// The architecture, as the crate gdbstub wants it.
#[derive(Debug)]
pub struct X86;

impl Arch for X86 {
    type Usize = u64;
    type Registers = RegisterFile;
    type BreakpointKind = usize;
    type RegId = Number;

    fn target_description_xml() -> Option<&'static str> {
        Some(DESCRIPTION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::control::Controls;

    fn in_long_mode() -> RegisterFile {
        let controls = Controls { efer: EFER_LMA, ..Controls::default() };
        RegisterFile {
            state: CpuState { controls, rflags: 2, ..CpuState::default() },
            ..RegisterFile::default()
        }
    }

    #[test]
    fn the_description_lists_the_registers_in_their_order_and_with_their_sizes() {
        let sizes: Vec<usize> = DESCRIPTION
            .split("<reg ")
            .skip(1)
            .map(|register| {
                let (_, after) = register.split_once("bitsize=\"").expect("each register has a size");
                after.split_once('"').expect("it ends").0.parse::<usize>().expect("a number") / 8
            })
            .collect();
        assert_eq!(sizes, ORDER.map(Name::bytes));
        for (name, place) in [("rip", Name::Rip), ("fs_base", Name::FsBase), ("efer", Name::Efer)] {
            let before = DESCRIPTION.split(&format!("\"{name}\"")).next().expect("it is there");
            assert_eq!(ORDER[before.matches("<reg ").count() - 1], place);
        }
    }

    #[test]
    fn what_is_written_reads_back_and_the_fpu_is_not_known() {
        let mut file = in_long_mode();
        file.set(Name::General(Register::R8), 0x1122_3344_5566_7788).expect("any value");
        file.set(Name::Rip, 0xffff_ffff_8100_0000).expect("it is canonical");
        file.set(Name::GsBase, 0xffff_8880_0000_0000).expect("it is canonical");
        let mut bytes = Vec::new();
        file.gdb_serialize(|byte| bytes.push(byte));
        assert_eq!(bytes.len(), ORDER.iter().map(|name| name.bytes()).sum());
        assert_eq!(bytes.iter().filter(|byte| byte.is_none()).count(), 112);
        let mut back = RegisterFile::default();
        let known: Vec<u8> = bytes.iter().map(|byte| byte.unwrap_or_default()).collect();
        back.gdb_deserialize(&known).expect("as many bytes as were written");
        assert_eq!(back, file);
        assert!(back.gdb_deserialize(&known[1..]).is_err());
    }

    #[test]
    fn no_register_gets_a_value_with_which_the_cpu_refuses_the_guest() {
        let mut file = in_long_mode();
        for name in [Name::Rip, Name::FsBase, Name::GsBase, Name::KernelGsBase] {
            assert_eq!(file.set(name, 0x8000_0000_0000_0000), Err(Unchangeable));
        }
        for name in [Name::Cr0, Name::Cr3, Name::Cr4, Name::Efer, Name::Selector(SegmentRegister::Cs)] {
            let value = file.get(name).expect("it is known");
            assert_eq!(file.set(name, value), Ok(()), "the same value");
            assert_eq!(file.set(name, value ^ 0x40), Err(Unchangeable));
        }
        file.set(Name::Flags, u64::MAX).expect("bits that may not change are left");
        assert_eq!(file.state.rflags, 0x25_7fd7);
        let mut file = RegisterFile::default();
        assert_eq!(file.set(Name::Rip, 1 << 32), Err(Unchangeable), "outside of long mode RIP has 32 bits");
        assert_eq!(file.set(Name::Rip, 0x100_0000), Ok(()));
    }
}
