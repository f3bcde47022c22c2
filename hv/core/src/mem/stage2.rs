//! The second-stage page table: guest-physical to host-physical, four levels of 512 entries.
//!
//! Written once for both vendors; how an entry is encoded is a [`Format`], and where tables live is a
//! [`TableMemory`]. Nothing here says what is mapped: that is [`identity`](crate::mem::identity).

use core::marker::PhantomData;
use core::ops::Range;

use super::addr::{Gpa, Hpa, PageSize};
use super::mtrr::MemoryType;

bitflags::bitflags! {
    /// What the guest may do with a page. Its own page tables may forbid more.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Access: u8 {
        /// Reads.
        const READ = 1 << 0;
        /// Writes.
        const WRITE = 1 << 1;
        /// Instruction fetches.
        const EXECUTE = 1 << 2;
    }
}

/// Entries in a table of any level.
pub const ENTRIES: usize = 512;

/// Guest-physical addresses that four levels reach: 256 TiB.
pub const REACH: u64 = 1 << 48;

/// A level of the table, named as the manuals name its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// PML4: the root. Its entries only point to tables.
    Pml4,
    /// Page-directory-pointer table: 1 GiB an entry.
    Pdpt,
    /// Page directory: 2 MiB an entry.
    Pd,
    /// Page table: 4 KiB an entry, and nothing below.
    Pt,
}

impl Level {
    /// The index of the entry for `gpa` in a table of this level.
    pub const fn index(self, gpa: Gpa) -> usize {
        let shift = match self {
            Self::Pml4 => 39,
            Self::Pdpt => 30,
            Self::Pd => 21,
            Self::Pt => 12,
        };
        (gpa.0 >> shift) as usize % ENTRIES
    }

    /// The size of the page that an entry can map; `None` for the root.
    pub const fn page_size(self) -> Option<PageSize> {
        match self {
            Self::Pml4 => None,
            Self::Pdpt => Some(PageSize::Size1G),
            Self::Pd => Some(PageSize::Size2M),
            Self::Pt => Some(PageSize::Size4K),
        }
    }

    /// The level of the tables that entries point to; `None` where they can only map pages.
    pub const fn below(self) -> Option<Self> {
        match self {
            Self::Pml4 => Some(Self::Pdpt),
            Self::Pdpt => Some(Self::Pd),
            Self::Pd => Some(Self::Pt),
            Self::Pt => None,
        }
    }
}

/// How a vendor encodes entries. The entry 0 must be one that is not present.
pub trait Format {
    /// The entry that points to a table. It forbids nothing: leaves do.
    fn table(table: Hpa) -> u64;

    /// The entry that maps the page at `page`, aligned to `size`.
    fn leaf(page: Hpa, size: PageSize, memory_type: MemoryType, access: Access) -> u64;

    /// Returns true if the entry points to a table or maps a page.
    fn is_present(entry: u64) -> bool;

    /// Returns true if a present entry of a table of `level` maps a page.
    fn is_leaf(entry: u64, level: Level) -> bool;

    /// The table or the page that a present entry holds. Bits of a page's address below its size are ignored.
    fn address(entry: u64) -> Hpa;

    /// The memory type of a leaf of this size.
    fn memory_type(entry: u64, size: PageSize) -> MemoryType;

    /// What a leaf allows.
    fn access(entry: u64) -> Access;
}

/// The memory that tables live in.
pub trait TableMemory {
    /// A frame of 4 KiB, zeroed; `None` if there is no more.
    fn allocate(&mut self) -> Option<Hpa>;

    /// Takes a frame back that `allocate` gave.
    fn free(&mut self, table: Hpa);

    /// The entry at `index`, less than [`ENTRIES`], of a table that `allocate` gave.
    fn read(&self, table: Hpa, index: usize) -> u64;

    /// Replaces an entry, in one store: CPUs walk the table meanwhile.
    fn write(&mut self, table: Hpa, index: usize, entry: u64);
}

/// Why a page could not be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// There is no frame for a table.
    #[error("no memory is left for second-stage tables")]
    OutOfTables,
    /// The address has more bits than four levels translate.
    #[error("guest-physical address {0} is beyond the 256 TiB that the second stage reaches")]
    OutOfReach(Gpa),
    /// A larger page that says otherwise is in the way.
    #[error("guest-physical address {0} is mapped already, with a larger page and differently")]
    Occupied(Gpa),
}

/// Tables in which every page is one and the same: any entry can lead to them, so they answer where no frame is left for
/// tables of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Filler {
    /// The page.
    page: Hpa,
    /// The tables: PDPT, PD and PT.
    tables: [Hpa; 3],
}

impl Filler {
    /// Returns true if `table` is one of these.
    fn has(&self, table: Hpa) -> bool {
        self.tables.contains(&table)
    }
}

/// A second-stage table. It does not own its memory: every call is given the same one.
pub struct SecondStage<F> {
    root: Hpa,
    largest: PageSize,
    filler: Option<Filler>,
    format: PhantomData<F>,
}

impl<F: Format> SecondStage<F> {
    /// An empty table. `largest` is the largest page that the CPU can map in it.
    pub fn new(memory: &mut impl TableMemory, largest: PageSize) -> Result<Self, MapError> {
        let root = memory.allocate().ok_or(MapError::OutOfTables)?;
        Ok(Self { root, largest, filler: None, format: PhantomData })
    }

    /// Gets ready for [`SecondStage::fill`] with the page at `page`.
    pub fn fill_with(&mut self, memory: &mut impl TableMemory, page: Hpa) -> Result<(), MapError> {
        let mut table = || memory.allocate().ok_or(MapError::OutOfTables);
        let tables = [table()?, table()?, table()?];
        let [pdpt, pd, pt] = tables;
        let leaf = F::leaf(page, PageSize::Size4K, MemoryType::WriteBack, Access::all());
        for (table, entry) in [(pdpt, F::table(pd)), (pd, F::table(pt)), (pt, leaf)] {
            (0..ENTRIES).for_each(|index| memory.write(table, index, entry));
        }
        self.filler = Some(Filler { page, tables });
        Ok(())
    }

    /// Maps the page of [`SecondStage::fill_with`] at `gpa`, and everywhere around it where there is no table yet. This
    /// takes no frame, and no page that is mapped is changed.
    pub fn fill(&mut self, memory: &mut impl TableMemory, gpa: Gpa) {
        let Some(filler) = self.filler else { return };
        let (mut table, mut below) = (self.root, filler.tables.into_iter());
        for level in [Level::Pml4, Level::Pdpt, Level::Pd, Level::Pt] {
            let index = level.index(gpa);
            let entry = memory.read(table, index);
            let filling = below.next().map_or_else(
                || F::leaf(filler.page, PageSize::Size4K, MemoryType::WriteBack, Access::all()),
                F::table,
            );
            if !F::is_present(entry) {
                memory.write(table, index, filling);
                return;
            }
            if F::is_leaf(entry, level) {
                return;
            }
            table = F::address(entry);
        }
    }

    fn fills(&self, table: Hpa) -> bool {
        self.filler.is_some_and(|filler| filler.has(table))
    }

    /// The table of the first level, for the register that holds it.
    pub const fn root(&self) -> Hpa {
        self.root
    }

    /// The largest page that the table can hold.
    pub const fn largest(&self) -> PageSize {
        self.largest
    }

    /// Maps the page of `size` around `gpa` to the one around `hpa`, with every access allowed. The two addresses
    /// must agree in the bits inside the page.
    ///
    /// Where tables divide that page already, only the smaller page around `gpa` is mapped, so that what else they
    /// hold is not lost. A page of the same size is replaced, and what [`SecondStage::fill`] has filled stays. Returns the size that is mapped around `gpa` in the
    /// end. CPUs may go on using what they cached; only a change of a present page needs it flushed.
    pub fn map(
        &mut self,
        memory: &mut impl TableMemory,
        gpa: Gpa,
        hpa: Hpa,
        size: PageSize,
        memory_type: MemoryType,
    ) -> Result<PageSize, MapError> {
        self.map_with(memory, gpa, hpa, size, memory_type, Access::all())
    }

    /// As [`SecondStage::map`], with these accesses allowed.
    pub fn map_with(
        &mut self,
        memory: &mut impl TableMemory,
        gpa: Gpa,
        hpa: Hpa,
        size: PageSize,
        memory_type: MemoryType,
        access: Access,
    ) -> Result<PageSize, MapError> {
        if gpa.0 >= REACH {
            return Err(MapError::OutOfReach(gpa));
        }
        let wanted = size.min(self.largest);
        let (mut table, mut level) = (self.root, Level::Pml4);
        loop {
            let index = level.index(gpa);
            let entry = memory.read(table, index);
            let present = F::is_present(entry);
            let is_leaf = present && F::is_leaf(entry, level);
            let size = level.page_size();
            if let Some(size) = size.filter(|&size| size <= wanted && (is_leaf || !present)) {
                let page = hpa.align_down(size.bytes());
                memory.write(table, index, F::leaf(page, size, memory_type, access));
                return Ok(size);
            }
            if let Some(size) = size.filter(|_| is_leaf) {
                let same_page = F::address(entry).align_down(size.bytes()) == hpa.align_down(size.bytes());
                let same = same_page && F::memory_type(entry, size) == memory_type;
                return if same { Ok(size) } else { Err(MapError::Occupied(gpa)) };
            }
            table = if present {
                F::address(entry)
            } else {
                let below = memory.allocate().ok_or(MapError::OutOfTables)?;
                memory.write(table, index, F::table(below));
                below
            };
            if self.fills(table) {
                return Ok(PageSize::Size4K);
            }
            // Every page size is at most `wanted` at the last level, so the loop ended there at the latest.
            let Some(below) = level.below() else { return Err(MapError::Occupied(gpa)) };
            level = below;
        }
    }

    /// What `gpa` is translated to, and the page that does it; `None` where nothing is mapped.
    pub fn translate(&self, memory: &impl TableMemory, gpa: Gpa) -> Option<(Hpa, PageSize, MemoryType)> {
        if gpa.0 >= REACH {
            return None;
        }
        let (mut table, mut level) = (self.root, Level::Pml4);
        loop {
            let entry = memory.read(table, level.index(gpa));
            if !F::is_present(entry) {
                return None;
            }
            if F::is_leaf(entry, level) {
                let size = level.page_size()?;
                let offset = gpa.0 & (size.bytes() - 1);
                let page = F::address(entry).align_down(size.bytes());
                return Some((page + offset, size, F::memory_type(entry, size)));
            }
            table = F::address(entry);
            level = level.below()?;
        }
    }

    /// Gives every page the type that `uniform` has for its addresses, and divides those for which it has none. A page
    /// that cannot be divided for want of a table becomes uncacheable, which is never wrong, only slow.
    ///
    /// No address is translated differently and no table is freed, so CPUs may use the tables meanwhile; each has to
    /// forget what it cached for the types to hold on it.
    pub fn retype(
        &mut self,
        memory: &mut impl TableMemory,
        uniform: &impl Fn(Range<Hpa>) -> Option<MemoryType>,
    ) {
        self.retype_table(memory, self.root, Level::Pml4, uniform);
    }

    fn retype_table(
        &self,
        memory: &mut impl TableMemory,
        table: Hpa,
        level: Level,
        uniform: &impl Fn(Range<Hpa>) -> Option<MemoryType>,
    ) {
        for index in 0..ENTRIES {
            let entry = memory.read(table, index);
            if !F::is_present(entry) {
                continue;
            }
            let below = level.below();
            let Some(size) = level.page_size().filter(|_| F::is_leaf(entry, level)) else {
                let next = F::address(entry);
                if let Some(below) = below.filter(|_| !self.fills(next)) {
                    self.retype_table(memory, next, below, uniform);
                }
                continue;
            };
            let page = F::address(entry).align_down(size.bytes());
            let wanted = uniform(page..page + size.bytes());
            let divided = if wanted.is_none() { Self::divide(memory, entry, level, size) } else { None };
            if let (Some(divided), Some(below)) = (divided, below) {
                self.retype_table(memory, divided, below, uniform);
                memory.write(table, index, F::table(divided));
                continue;
            }
            let memory_type = wanted.unwrap_or(MemoryType::Uncacheable);
            if F::memory_type(entry, size) != memory_type {
                memory.write(table, index, F::leaf(page, size, memory_type, F::access(entry)));
            }
        }
    }

    /// A table that translates as the leaf `entry` of `level` does, or `None` where there is no smaller page or no frame.
    fn divide(memory: &mut impl TableMemory, entry: u64, level: Level, size: PageSize) -> Option<Hpa> {
        let below = level.below()?.page_size()?;
        let table = memory.allocate()?;
        let page = F::address(entry).align_down(size.bytes());
        let (memory_type, access) = (F::memory_type(entry, size), F::access(entry));
        for index in 0..ENTRIES {
            let part = page + index as u64 * below.bytes();
            memory.write(table, index, F::leaf(part, below, memory_type, access));
        }
        Some(table)
    }

    /// Unmaps everything and frees every table but the root and those of [`SecondStage::fill_with`]. CPUs must then forget what they cached of it
    /// before they enter the guest again.
    pub fn clear(&mut self, memory: &mut impl TableMemory) {
        self.clear_table(memory, self.root, Level::Pml4);
    }

    fn clear_table(&self, memory: &mut impl TableMemory, table: Hpa, level: Level) {
        for index in 0..ENTRIES {
            let entry = memory.read(table, index);
            if !F::is_present(entry) {
                continue;
            }
            // Out of the table first, so that no CPU walks into a table that is being freed.
            memory.write(table, index, 0);
            let next = F::address(entry);
            if let Some(below) = level.below().filter(|_| !F::is_leaf(entry, level) && !self.fills(next)) {
                self.clear_table(memory, next, below);
                memory.free(next);
            }
        }
    }
}
