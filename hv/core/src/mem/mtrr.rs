//! Memory types as the MTRRs define them.
//!
//! On VT-x the second-stage table must repeat what the MTRRs say, because the CPU takes a page's memory type from that
//! table alone. On AMD-V the CPU combines both, so the table says write-back everywhere. There a page must still not be
//! so large that the MTRRs divide it. AMD APM Vol. 2, 7.7.4 "MTRRs and Page Cache Controls" and 15.25.8 "Combining
//! Memory Types, MTRRs".
//!
//! Intel SDM Vol. 3A 12.11 "Memory Type Range Registers (MTRRs)".

use core::ops::Range;

use super::addr::{Hpa, PAGE_SIZE};

/// IA32_MTRRCAP: which MTRRs the CPU has. Read-only.
pub const IA32_MTRRCAP: u32 = 0xfe;
/// IA32_MTRR_DEF_TYPE: the enable bits, and the type of memory that no range covers.
pub const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
/// IA32_MTRR_PHYSBASE0: the first of the pairs of base and mask.
pub const IA32_MTRR_PHYSBASE0: u32 = 0x200;

/// The fixed-range registers: the MSR, the address at which its range begins, and the number of bytes for each of its
/// eight fields. Intel SDM Vol. 3A 12.11.2.2 "Fixed Range MTRRs".
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

/// The end of the fixed ranges.
const FIXED_END: u64 = 0x10_0000;

/// The largest number of pairs: more would reach the number of the first fixed-range register.
const MAX_PAIRS: usize = 40;

/// A memory type in the encoding of MTRRs and EPT entries. Intel SDM Vol. 3A 12.11 "Memory Type Range Registers
/// (MTRRs)", table "Memory Types That Can Be Encoded in MTRRs".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MemoryType {
    /// UC: not cached; accesses reach memory in program order. For device registers.
    Uncacheable = 0,
    /// WC: not cached, but writes are combined. For framebuffers.
    WriteCombining = 1,
    /// WT: reads are cached, and writes also go to memory.
    WriteThrough = 4,
    /// WP: reads are cached, and writes go to memory and invalidate the cache line.
    WriteProtected = 5,
    /// WB: reads and writes are cached. For RAM.
    WriteBack = 6,
}

impl MemoryType {
    /// Returns the type with this encoding; `None` if it is reserved.
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

    /// Returns the type of memory that two variable ranges cover: UC takes precedence, and WT takes precedence over WB.
    /// Intel SDM Vol. 3A 12.11.4.1 "MTRR Precedences". For every other pair the manual leaves the type undefined; UC is
    /// then always correct, though slow.
    fn with(self, other: Self) -> Self {
        use MemoryType::{Uncacheable, WriteBack, WriteThrough};
        match (self, other) {
            (a, b) if a == b => a,
            (WriteThrough, WriteBack) | (WriteBack, WriteThrough) => WriteThrough,
            _ => Uncacheable,
        }
    }
}

/// The abilities of the CPU's MTRRs.
struct MtrrCap {
    pairs: usize,
    fixed: bool,
    /// The address bits above the CPU's physical-address width.
    beyond: u64,
}

impl MtrrCap {
    /// Decodes the value of [`IA32_MTRRCAP`]. `phys_bits` is the physical-address width, bits 7:0 of
    /// CPUID.80000008H:EAX.
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

/// An enabled variable range: all addresses that agree with `base` in the bits of `mask`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Variable {
    base: u64,
    mask: u64,
    memory_type: MemoryType,
}

/// How much of a block of addresses a variable range covers.
enum Coverage {
    All,
    None,
    Part,
}

impl Variable {
    /// Returns how much of a naturally aligned block this range covers. This is exact for every mask: the address bits
    /// above `size` are the same in the whole block, and those below take every value.
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

    /// Returns true if the range is contiguous: its mask is ones above zeros.
    fn is_contiguous(&self) -> bool {
        self.mask.leading_ones() + self.mask.trailing_zeros() >= u64::BITS
    }
}

/// The memory types that the MTRRs of a CPU defined when they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mtrrs {
    /// The type of memory that no range covers, or of all memory if the MTRRs are disabled.
    default: MemoryType,
    /// The fields of the fixed-range registers in order of address, if these are enabled.
    fixed: Option<[[MemoryType; 8]; FIXED.len()]>,
    variable: [Variable; MAX_PAIRS],
    /// Number of valid entries in `variable`.
    count: usize,
    /// How the CPU combines the MTRRs with the second stage; `None` if it does not.
    combined: Option<Combination>,
}

/// How an AMD CPU combines the MTRRs with the memory types of the second stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Combination {
    /// The end of the memory above 4 GiB that is write-back if no range covers it, whatever the default type; 0 if
    /// there is none. AMD APM Vol. 2, 7.9.4 "Top of Memory".
    pub write_back_to: u64,
}

impl Combination {
    /// Decodes the values of SYSCFG, bits MtrrTom2En and Tom2ForceMemTypeWB, and of TOP_MEM2.
    pub const fn from_raw(syscfg: u64, top_mem2: u64) -> Self {
        const BOTH: u64 = 0b11 << 21;
        Self { write_back_to: if syscfg & BOTH == BOTH { top_mem2 & 0x000f_ffff_ff80_0000 } else { 0 } }
    }
}

impl Mtrrs {
    /// Returns the types of a CPU without MTRRs, on which page tables alone define memory types: write-back for all
    /// memory.
    pub const fn write_back() -> Self {
        Self::uniform(MemoryType::WriteBack)
    }

    const fn uniform(default: MemoryType) -> Self {
        let unused = Variable { base: 0, mask: 0, memory_type: default };
        Self { default, fixed: None, variable: [unused; MAX_PAIRS], count: 0, combined: None }
    }

    /// Returns these types for a CPU that combines them as `combined` says with those of the second stage. Every page
    /// with one type is then write-back in the second stage.
    pub const fn combined(self, combined: Option<Combination>) -> Self {
        Self { combined, ..self }
    }

    /// Returns how the CPU combines them with the types of the second stage; `None` if it takes the types from the
    /// second stage alone.
    pub const fn how_combined(&self) -> Option<Combination> {
        self.combined
    }

    /// Reads the MTRRs. `phys_bits` is the physical-address width. `rdmsr` is called only for registers that the CPU
    /// has. The CPU must have MTRRs (CPUID.01H:EDX.MTRR). A reserved type, which no CPU holds, is read as UC.
    pub fn read(phys_bits: u32, mut rdmsr: impl FnMut(u32) -> u64) -> Self {
        Self::read_by(phys_bits, &mut rdmsr)
    }

    #[inline(never)] // both extensions use it at the start and when an MTRR changes
    fn read_by(phys_bits: u32, rdmsr: &mut dyn FnMut(u32) -> u64) -> Self {
        let cap = MtrrCap::from_raw(rdmsr(IA32_MTRRCAP), phys_bits);
        let def_type = rdmsr(IA32_MTRR_DEF_TYPE);
        // On AMD CPUs each field has two more bits, which select memory or memory-mapped I/O.
        let type_of = |raw: u8| MemoryType::from_raw(raw & 7).unwrap_or(MemoryType::Uncacheable);
        // Without the E bit (bit 11) all memory is UC: Intel SDM Vol. 3A 12.11.2.1 "IA32_MTRR_DEF_TYPE MSR".
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
            // Address bits above the width are compared as well, so that nothing beyond the address space matches.
            let mask = (mask | cap.beyond) & !(PAGE_SIZE - 1);
            mtrrs.variable[mtrrs.count] =
                Variable { base: base & !cap.beyond & mask, mask, memory_type: type_of(base as u8) };
            mtrrs.count += 1;
        }
        mtrrs
    }

    /// Returns the memory type that the second stage needs for the page that contains `address`.
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

    /// Returns the type of a block that no range covers, if all of it has the same.
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

    /// Returns the memory type that the second stage needs for all pages that `range` touches. Returns `None` if the
    /// MTRRs define different types there, or if the range is empty.
    ///
    /// The result can also be `None` for a uniform range, but only where a variable range with a discontiguous mask
    /// covers a part of it, which firmware does not set up.
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
            // The largest naturally aligned block that begins here and does not reach beyond the last page.
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

    /// Returns the type of a naturally aligned block if all of it has the same. Each level halves the block, and a
    /// contiguous variable range covers a part of at most one block a level, so the search is short.
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
        // Memory that is UC by one range stays UC.
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
    fn overlapping_ranges_follow_the_precedences() {
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
