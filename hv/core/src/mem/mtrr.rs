//! Memory types as the MTRRs give them.
//!
//! On VT-x the second-stage table must repeat what the MTRRs say: with it in use, the CPU takes the type of a page from there
//! and no longer from the MTRRs. On AMD-V the CPU combines both, so the table says write-back everywhere; but a page must not
//! be so large that it has two types. AMD APM Vol. 2, 7.7.4 "MTRRs and Page Cache Controls" and 15.25.8 "Combining Memory Types, MTRRs".
//!
//! Intel SDM Vol. 3A 12.11 "Memory Type Range Registers (MTRRs)".

use core::ops::Range;

use super::addr::{Hpa, PAGE_SIZE};

/// IA32_MTRRCAP: how many of the registers below the CPU has. Read-only.
pub const IA32_MTRRCAP: u32 = 0xfe;
/// IA32_MTRR_DEF_TYPE: the switches, and the type of memory that no range covers.
pub const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
/// IA32_MTRR_PHYSBASE0. Pairs of base and mask follow each other from here on.
pub const IA32_MTRR_PHYSBASE0: u32 = 0x200;

/// The fixed-range registers with the address at which each begins and the bytes that each of its 8 fields stands for:
/// Intel SDM Vol. 3A 12.11.2.2 "Fixed Range MTRRs".
const FIXED: [(u32, u64, u64); 11] = [
    (0x250, 0x0_0000, 0x1_0000),
    (0x258, 0x8_0000, 0x4000),
    (0x259, 0xa_0000, 0x4000),
    (0x268, 0xc_0000, 0x1000),
    (0x269, 0xc_8000, 0x1000),
    (0x26a, 0xd_0000, 0x1000),
    (0x26b, 0xd_8000, 0x1000),
    (0x26c, 0xe_0000, 0x1000),
    (0x26d, 0xe_8000, 0x1000),
    (0x26e, 0xf_0000, 0x1000),
    (0x26f, 0xf_8000, 0x1000),
];

/// Where the fixed ranges end.
const FIXED_END: u64 = 0x10_0000;

/// The most pairs for which there are numbers below the first fixed-range register.
const MAX_PAIRS: usize = 40;

/// A memory type, with the encoding that MTRRs and EPT entries share: Intel SDM Vol. 3A 12.11 "Memory Type Range Registers
/// (MTRRs)", table "Memory Types That Can Be Encoded in MTRRs".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MemoryType {
    /// UC: every access goes to memory, in order. For device registers.
    Uncacheable = 0,
    /// WC: not cached, but writes are gathered. For frame buffers.
    WriteCombining = 1,
    /// WT: reads are cached, writes go through.
    WriteThrough = 4,
    /// WP: reads are cached, writes go to memory and drop the line.
    WriteProtected = 5,
    /// WB: everything is cached. For RAM.
    WriteBack = 6,
}

impl MemoryType {
    /// The type with this encoding; `None` for the reserved ones.
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Uncacheable),
            1 => Some(Self::WriteCombining),
            4 => Some(Self::WriteThrough),
            5 => Some(Self::WriteProtected),
            6 => Some(Self::WriteBack),
            _ => None,
        }
    }

    /// The type of memory that two variable ranges cover: Intel SDM Vol. 3A 12.11.4.1 "MTRR Precedences". UC wins, and WT
    /// wins over WB. For every other pair the manual leaves the type undefined; UC is then the one that is never
    /// wrong, only slow.
    fn with(self, other: Self) -> Self {
        use MemoryType::{Uncacheable, WriteBack, WriteThrough};
        match (self, other) {
            (a, b) if a == b => a,
            (WriteThrough, WriteBack) | (WriteBack, WriteThrough) => WriteThrough,
            _ => Uncacheable,
        }
    }
}

/// What the CPU's MTRRs can do, from [`IA32_MTRRCAP`] and the width of a physical address.
struct MtrrCap {
    pairs: usize,
    fixed: bool,
    /// The bits of a physical address that the CPU does not have.
    beyond: u64,
}

impl MtrrCap {
    /// From the value of [`IA32_MTRRCAP`] and the bits in a physical address, bits 7:0 of CPUID.80000008H:EAX.
    const fn from_raw(raw: u64, phys_bits: u32) -> Self {
        let pairs = (raw & 0xff) as usize;
        Self {
            pairs: if pairs < MAX_PAIRS { pairs } else { MAX_PAIRS },
            fixed: raw & 1 << 8 != 0,
            beyond: match u64::MAX.checked_shl(phys_bits) {
                Some(beyond) => beyond,
                None => 0,
            },
        }
    }
}

/// A variable range in use: every address that agrees with `base` in the bits of `mask`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Variable {
    base: u64,
    mask: u64,
    memory_type: MemoryType,
}

/// How a variable range lies to a block of addresses.
enum Coverage {
    All,
    None,
    Part,
}

impl Variable {
    /// Exact for every mask: the block is naturally aligned, so the bits above `size` are the same in all of it, and
    /// those below take on every value.
    fn coverage(&self, start: u64, size: u64) -> Coverage {
        let inside = size - 1;
        if (start ^ self.base) & self.mask & !inside != 0 {
            Coverage::None
        } else if self.mask & inside == 0 {
            Coverage::All
        } else {
            Coverage::Part
        }
    }

    /// Returns true if the range is one stretch of addresses: its mask is ones above zeroes.
    fn is_contiguous(&self) -> bool {
        self.mask.leading_ones() + self.mask.trailing_zeros() >= u64::BITS
    }
}

/// The memory types of one CPU, as its MTRRs were when they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mtrrs {
    /// The type of memory that no range covers, or of all memory if the MTRRs are off.
    default: MemoryType,
    /// The fields of the fixed ranges in order of address, if they are in use.
    fixed: Option<[[MemoryType; 8]; FIXED.len()]>,
    variable: [Variable; MAX_PAIRS],
    /// How many of `variable` are in use.
    count: usize,
    /// What else decides on AMD-V.
    combined: Option<Combined>,
}

/// The CPU combines the MTRRs with the types of the second stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Combined {
    /// From 4 GiB up to here memory that no range covers is write-back, whatever the default type; 0 if there is no such
    /// memory. AMD APM Vol. 2, 7.9.4 "Top of Memory".
    pub write_back_to: u64,
}

impl Combined {
    /// By SYSCFG and TOP_MEM2: MtrrTom2En and Tom2ForceMemTypeWB.
    pub const fn from_raw(syscfg: u64, top_mem2: u64) -> Self {
        const BOTH: u64 = 0b11 << 21;
        Self { write_back_to: if syscfg & BOTH == BOTH { top_mem2 & 0x000f_ffff_ff80_0000 } else { 0 } }
    }
}

impl Mtrrs {
    /// All memory write-back: for a CPU without MTRRs, where the page tables alone give types.
    pub const fn write_back() -> Self {
        Self::uniform(MemoryType::WriteBack)
    }

    const fn uniform(default: MemoryType) -> Self {
        let unused = Variable { base: 0, mask: 0, memory_type: default };
        Self { default, fixed: None, variable: [unused; MAX_PAIRS], count: 0, combined: None }
    }

    /// The same where the CPU combines them with the types of the second stage: all that is uniform is write-back there.
    pub const fn combined(self, combined: Option<Combined>) -> Self {
        Self { combined, ..self }
    }

    /// How the CPU combines them with the types of the second stage; `None` if it takes the types from there alone.
    pub const fn how_combined(&self) -> Option<Combined> {
        self.combined
    }

    /// Reads the MTRRs. `phys_bits` is the number of bits in a physical address; `rdmsr` is asked only for registers
    /// that the CPU has, and must not be called for a CPU without MTRRs (CPUID.01H:EDX.MTRR).
    /// A reserved type in a register, which no CPU holds, is taken as UC.
    pub fn read(phys_bits: u32, mut rdmsr: impl FnMut(u32) -> u64) -> Self {
        let cap = MtrrCap::from_raw(rdmsr(IA32_MTRRCAP), phys_bits);
        let def_type = rdmsr(IA32_MTRR_DEF_TYPE);
        // AMD has two more bits in each field, which say whether it is memory at all.
        let type_of = |raw: u8| MemoryType::from_raw(raw & 7).unwrap_or(MemoryType::Uncacheable);
        // Without E (bit 11) all memory is UC: Intel SDM Vol. 3A 12.11.2.1 "IA32_MTRR_DEF_TYPE MSR".
        if def_type & 1 << 11 == 0 {
            return Self::uniform(MemoryType::Uncacheable);
        }
        let mut mtrrs = Self::uniform(type_of(def_type as u8));
        if cap.fixed && def_type & 1 << 10 != 0 {
            mtrrs.fixed = Some(FIXED.map(|(index, ..)| rdmsr(index).to_le_bytes().map(type_of)));
        }
        for index in (IA32_MTRR_PHYSBASE0..).step_by(2).take(cap.pairs) {
            let mask = rdmsr(index + 1);
            if mask & 1 << 11 == 0 {
                continue;
            }
            let base = rdmsr(index);
            // Bits that no address has are compared as well, so that nothing matches past the end of the space.
            let mask = (mask | cap.beyond) & !(PAGE_SIZE - 1);
            mtrrs.variable[mtrrs.count] =
                Variable { base: base & !cap.beyond & mask, mask, memory_type: type_of(base as u8) };
            mtrrs.count += 1;
        }
        mtrrs
    }

    /// The type of the page that holds `address`, for the second stage.
    pub fn type_at(&self, address: Hpa) -> MemoryType {
        if self.combined.is_some() { MemoryType::WriteBack } else { self.own_type_at(address) }
    }

    fn own_type_at(&self, address: Hpa) -> MemoryType {
        if let Some(memory_type) = self.fixed_type_at(address.0) {
            return memory_type;
        }
        self.variable()
            .iter()
            .filter(|variable| (address.0 ^ variable.base) & variable.mask == 0)
            .map(|variable| variable.memory_type)
            .reduce(MemoryType::with)
            .or_else(|| self.default_type(address.align_down(PAGE_SIZE).0, PAGE_SIZE))
            .unwrap_or(self.default)
    }

    /// The type of the part of a block that no range covers, if it has one.
    fn default_type(&self, start: u64, size: u64) -> Option<MemoryType> {
        const FROM: u64 = 4 << 30;
        let to = self.combined.map_or(0, |combined| combined.write_back_to);
        let last = start + (size - 1);
        if last < FROM || start >= to {
            Some(self.default)
        } else if start >= FROM && last < to {
            Some(MemoryType::WriteBack)
        } else {
            (self.default == MemoryType::WriteBack).then_some(self.default)
        }
    }

    /// The type of every page that `range` touches for the second stage, if they all have the same. An empty range has none.
    ///
    /// `None` for a uniform range is possible only where a variable range with a discontiguous mask covers a part
    /// of it, which firmware does not set up.
    pub fn uniform_type(&self, range: Range<Hpa>) -> Option<MemoryType> {
        let own = self.own_uniform_type(range)?;
        Some(if self.combined.is_some() { MemoryType::WriteBack } else { own })
    }

    fn own_uniform_type(&self, range: Range<Hpa>) -> Option<MemoryType> {
        if range.is_empty() {
            return None;
        }
        let last = Hpa(range.end.0 - 1).align_down(PAGE_SIZE).0;
        let mut start = range.start.align_down(PAGE_SIZE).0;
        let mut common = None;
        loop {
            // The largest naturally aligned block that begins here and ends with or before the last page.
            let mut size = PAGE_SIZE;
            while start & size == 0 && size << 1 != 0 && last - start >= (size << 1) - PAGE_SIZE {
                size <<= 1;
            }
            let memory_type = self.block_type(start, size)?;
            if *common.get_or_insert(memory_type) != memory_type {
                return None;
            }
            match start.checked_add(size) {
                Some(next) if next <= last => start = next,
                _ => return common,
            }
        }
    }

    /// The type of a naturally aligned block, if it has one. Each level halves the block, and a contiguous variable
    /// range covers a part of at most one block a level, so the search is short.
    fn block_type(&self, start: u64, size: u64) -> Option<MemoryType> {
        if size == PAGE_SIZE {
            return Some(self.own_type_at(Hpa(start)));
        }
        let mut whole = None;
        let mut divided = self.fixed.is_some() && start < FIXED_END;
        if !divided {
            for variable in self.variable() {
                match variable.coverage(start, size) {
                    Coverage::None => {}
                    Coverage::All => {
                        let memory_type = variable.memory_type;
                        whole = Some(whole.map_or(memory_type, |whole: MemoryType| whole.with(memory_type)));
                    }
                    Coverage::Part if variable.is_contiguous() => divided = true,
                    Coverage::Part => return None,
                }
            }
        }
        // Nothing changes what is UC already.
        if !divided || whole == Some(MemoryType::Uncacheable) {
            return whole.or_else(|| self.default_type(start, size));
        }
        let half = size / 2;
        let below = self.block_type(start, half)?;
        let above = self.block_type(start + half, half)?;
        (below == above).then_some(below)
    }

    fn fixed_type_at(&self, address: u64) -> Option<MemoryType> {
        let fixed = self.fixed.as_ref()?;
        FIXED.iter().zip(fixed).find_map(|(&(_, start, size), fields)| {
            fields.get(usize::try_from(address.checked_sub(start)? / size).ok()?).copied()
        })
    }

    fn variable(&self) -> &[Variable] {
        self.variable.get(..self.count).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryType::{Uncacheable, WriteBack, WriteCombining, WriteProtected, WriteThrough};

    #[test]
    fn overlaps() {
        for (a, b, both) in [
            (WriteBack, WriteBack, WriteBack),
            (WriteBack, Uncacheable, Uncacheable),
            (WriteBack, WriteThrough, WriteThrough),
            (WriteCombining, Uncacheable, Uncacheable),
            (WriteCombining, WriteBack, Uncacheable),
            (WriteProtected, WriteThrough, Uncacheable),
        ] {
            assert_eq!((a.with(b), b.with(a)), (both, both));
        }
    }
}
