//! ORC: the table by which the kernel finds the return address of a function that has no frame pointer.
//!
//! For each range of code it says how the caller's stack pointer is computed, where the caller's RBP is, and what lies
//! at the top of the frame: a return address, or registers that an exception or a system call has saved. Linux 6.1,
//! arch/x86/include/asm/orc_types.h, `struct orc_entry`, and Documentation/x86/orc-unwinder.rst.

use super::view::View;

/// The size of an entry in bytes.
const ENTRY: u64 = 6;
/// The most entries. Debian's kernels have about 400,000.
const MAX_ENTRIES: u64 = 4 << 20;
/// The number of entries that are looked at to find out how they are written.
const SAMPLES: u64 = 256;

/// The symbols between which the tables are: the addresses of code from the first to the second, and the entries from
/// the third on.
pub const SYMBOLS: [&str; 3] = ["__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind"];

/// What a register is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The register is not known, or it has not changed.
    Undefined,
    /// The caller's stack pointer.
    PreviousSp,
    /// RSP.
    Sp,
    /// RBP.
    Bp,
    /// The word to which RSP points.
    SpIndirect,
    /// The word to which RBP, with the offset, points.
    BpIndirect,
    /// Another register, which is known only where registers were saved. The number is that of the word in the kernel's
    /// `struct pt_regs`.
    Saved(u8),
}

/// What lies at the top of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The kernel says nothing about this code.
    Undefined,
    /// There is no caller.
    End,
    /// A return address.
    Call,
    /// All registers, as `struct pt_regs` has them.
    Registers,
    /// What an interrupt or an exception pushes: RIP, CS, RFLAGS, RSP and SS.
    Interrupt,
}

/// How to get from a function to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What lies at the top of the frame.
    pub kind: Kind,
    /// What the caller's stack pointer is computed from.
    pub sp: Base,
    /// What is added to it.
    pub sp_offset: i16,
    /// What the address of the caller's RBP is computed from.
    pub bp: Base,
    /// What is added to it.
    pub bp_offset: i16,
    /// The code was interrupted, so the address in it is that of the next instruction and not a return address.
    pub signal: bool,
}

impl Rule {
    /// Returns the rule for a call to address 0, after which the return address is on top of the stack.
    pub const fn null_call() -> Self {
        Self {
            kind: Kind::Call,
            sp: Base::Sp,
            sp_offset: 8,
            bp: Base::Undefined,
            bp_offset: 0,
            signal: false,
        }
    }
}

/// The layout of the bits after the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flags {
    /// Two bits of type and one for the end. Before Linux 6.3.
    End,
    /// Two bits of type, one for interrupted code, and one for the end. Linux 6.3.
    SignalEnd,
    /// Three bits of type, of which two values are the end and undefined code, and one for interrupted code. Since
    /// Linux 6.4.
    Types,
}

/// How entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    flags: Flags,
    /// The bases, by their numbers.
    bases: &'static [Base; 16],
}

/// `struct pt_regs` has these words from the start on: R15, R14, R13, R12, RBP, RBX, R11, R10, R9, R8, RAX, RCX, RDX,
/// RSI, RDI. Linux 6.1, arch/x86/include/asm/ptrace.h.
const R13: Base = Base::Saved(2);
const R10: Base = Base::Saved(7);
const AX: Base = Base::Saved(10);
const DX: Base = Base::Saved(12);
const DI: Base = Base::Saved(14);

/// The numbers of bases up to Linux 6.x. RAX came last.
const FIRST: [Base; 16] = {
    let mut bases = [Base::Undefined; 16];
    bases[1] = Base::PreviousSp;
    (bases[2], bases[3], bases[4], bases[5]) = (DX, DI, Base::Bp, Base::Sp);
    (bases[6], bases[7], bases[8], bases[9]) = (R10, R13, Base::BpIndirect, Base::SpIndirect);
    bases[10] = AX;
    bases
};
/// The numbers of bases in Linux 7.2.
const SECOND: [Base; 16] = {
    let mut bases = [Base::Undefined; 16];
    (bases[1], bases[2], bases[3], bases[4]) = (AX, DX, Base::Sp, Base::Bp);
    (bases[5], bases[6], bases[7]) = (DI, R10, R13);
    (bases[8], bases[9], bases[10]) = (Base::PreviousSp, Base::SpIndirect, Base::BpIndirect);
    bases
};

/// The tables of a kernel.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// The address of the first distance of code from its own place.
    addresses: u64,
    /// The address of the first entry.
    entries: u64,
    count: u32,
    layout: Layout,
}

impl Table {
    /// Returns the tables at these addresses, those of [`SYMBOLS`]. `before_6_3` chooses between two layouts that look
    /// alike. `None` if this cannot be such a table.
    pub fn new(view: View<'_>, [start, stop, entries]: [u64; 3], before_6_3: bool) -> Option<Self> {
        let count = u32::try_from(stop.checked_sub(start)? / 4).ok()?;
        let layout = Layout::find(view, entries, count.into(), before_6_3)?;
        Self { addresses: start, entries, count, layout }.elsewhere(start, entries, count)
    }

    /// Returns a module's table, which is written like this one.
    pub fn elsewhere(&self, addresses: u64, entries: u64, count: u32) -> Option<Self> {
        let bytes = u64::from(count) * ENTRY;
        let sound = count > 0 && u64::from(count) <= MAX_ENTRIES && entries.checked_add(bytes).is_some();
        sound.then_some(Self { addresses, entries, count, layout: self.layout })
    }

    /// Returns the address of the code from which on the entry `number` counts.
    fn address(&self, view: View<'_>, number: u32) -> Option<u64> {
        let place = self.addresses.checked_add(u64::from(number) * 4)?;
        Some(place.wrapping_add_signed(view.u32(place)?.cast_signed().into()))
    }

    /// Returns the rule for the instruction at `address`. The code after the last entry is not the kernel's own: the
    /// last entry says nothing.
    pub fn rule(&self, view: View<'_>, address: u64) -> Option<Rule> {
        // The last entry at or below the address counts, as in the kernel's `__orc_find`.
        let (mut low, mut high) = (0, self.count);
        if self.address(view, low)? > address {
            return None;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.address(view, middle)? <= address { low = middle } else { high = middle }
        }
        Some(self.layout.decode(Raw::read(view, self.entries + u64::from(low) * ENTRY)?))
    }
}

/// The fields of an entry.
#[derive(Clone, Copy)]
struct Raw {
    sp_offset: i16,
    bp_offset: i16,
    registers: u8,
    flags: u8,
}

impl Raw {
    fn read(view: View<'_>, at: u64) -> Option<Self> {
        let (offsets, rest) = (view.u32(at)?, view.u16(at.checked_add(4)?)?);
        let [registers, flags] = rest.to_le_bytes();
        Some(Self {
            sp_offset: (offsets as u16).cast_signed(),
            bp_offset: ((offsets >> 16) as u16).cast_signed(),
            registers,
            flags,
        })
    }
}

impl Layout {
    /// Finds the layout by some of the entries. Nearly all code computes the caller's stack pointer from RSP and is
    /// called, so the number for RSP and that for a call are by far the most frequent. No layout has the same two
    /// numbers as another, except for those before and after Linux 6.3.
    fn find(view: View<'_>, entries: u64, count: u64, before_6_3: bool) -> Option<Self> {
        let (mut sp, mut kinds) = ([0u32; 16], [0u32; 8]);
        let samples = count.min(SAMPLES);
        for sample in 0..samples {
            let raw = Raw::read(view, entries.checked_add(sample * count / samples * ENTRY)?)?;
            let base = usize::from(raw.registers & 15);
            if base != 0 {
                sp[base] += 1;
                kinds[usize::from(raw.flags & 7)] += 1;
            }
        }
        let most = |counts: &[u32]| {
            let all: u32 = counts.iter().sum();
            counts.iter().position(|count| *count > all / 2)
        };
        let bases = match most(&sp)? {
            5 => &FIRST,
            3 => &SECOND,
            _ => return None,
        };
        let flags = match most(&kinds)? {
            2 => Flags::Types,
            0 if before_6_3 => Flags::End,
            0 => Flags::SignalEnd,
            _ => return None,
        };
        Some(Self { flags, bases })
    }

    fn decode(self, raw: Raw) -> Rule {
        let Raw { sp_offset, bp_offset, registers, flags } = raw;
        let (sp, bp) = (self.bases[usize::from(registers & 15)], self.bases[usize::from(registers >> 4)]);
        let end = |bit: u8| if flags & bit != 0 { Kind::End } else { Kind::Undefined };
        let kinds = [Kind::Call, Kind::Registers, Kind::Interrupt, Kind::Undefined];
        let plain = kinds[usize::from(flags & 3)];
        let (kind, signal) = match self.flags {
            Flags::End if sp == Base::Undefined => (end(1 << 2), false),
            Flags::End => (plain, plain != Kind::Call),
            Flags::SignalEnd if sp == Base::Undefined => (end(1 << 3), false),
            Flags::SignalEnd => (plain, flags & 1 << 2 != 0),
            Flags::Types => {
                let kind = match flags & 7 {
                    1 => Kind::End,
                    2 => Kind::Call,
                    3 => Kind::Registers,
                    4 => Kind::Interrupt,
                    _ => Kind::Undefined,
                };
                (kind, flags & 1 << 3 != 0)
            }
        };
        Rule { kind, sp, sp_offset, bp, bp_offset, signal }
    }
}
