//! The second-stage page table: it translates guest-physical to host-physical addresses through four levels of tables
//! with 512 entries.
//!
//! The code is the same for both vendors: a [`Format`] encodes the entries, and a [`TableMemory`] holds the tables.
//! What is mapped is decided in [`identity`](crate::mem::identity), and [`rights`](crate::mem::rights) takes rights
//! away.

use core::marker::PhantomData;
use core::ops::Range;

use super::addr::{Gpa, Hpa, PageSize};
pub use super::level::{ENTRIES, Level};
use super::mtrr::MemoryType;

bitflags::bitflags! {
    /// The accesses that the second stage allows the guest in a page. The guest's own page tables may forbid more.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct PageAccess: u8 {
        /// Data reads.
        const READ = 1 << 0;
        /// Data writes.
        const WRITE = 1 << 1;
        /// Instruction fetches.
        const EXECUTE = 1 << 2;
    }
}

/// The end of the guest-physical addresses that four levels can translate: 256 TiB.
pub const REACH: u64 = 1 << 48;

/// The page that an entry maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Any address in the page.
    pub at: Hpa,
    /// The size of the page.
    pub size: PageSize,
    /// The memory type of the page.
    pub memory_type: MemoryType,
    /// The accesses that are allowed.
    pub access: PageAccess,
}

impl Leaf {
    /// Returns the page of `size` around `at`, with every access allowed.
    pub const fn new(at: Hpa, size: PageSize, memory_type: MemoryType) -> Self {
        Self { at, size, memory_type, access: PageAccess::all() }
    }
}

/// A vendor's encoding of entries. The entry 0 must be one that is not present.
pub trait Format {
    /// Returns an entry that points to a table and allows every access; leaves restrict accesses.
    fn table(table: Hpa) -> u64;

    /// Returns the entry that maps the page at `page`, which is aligned to `size`.
    fn leaf(page: Hpa, size: PageSize, memory_type: MemoryType, access: PageAccess) -> u64;

    /// Returns true if the entry points to a table or maps a page.
    fn is_present(entry: u64) -> bool;

    /// Returns true if a present entry of a table of `level` maps a page.
    fn is_leaf(entry: u64, level: Level) -> bool;

    /// Returns the address of the table or the page in a present entry. Callers ignore bits of a page's address below
    /// its size.
    fn address(entry: u64) -> Hpa;

    /// Returns the memory type in a leaf of this size.
    fn memory_type(entry: u64, size: PageSize) -> MemoryType;

    /// Returns the accesses that a leaf allows.
    fn access(entry: u64) -> PageAccess;
}

/// A frame that [`TableMemory::allocate`] has returned to a [`SecondStage`]. Only that makes one. So no other code can
/// have a [`TableMemory`] change or free a frame:
///
/// ```compile_fail
/// use vidar_core::mem::addr::Hpa;
/// use vidar_core::mem::stage2::{Table, TableMemory};
///
/// fn free(memory: &mut impl TableMemory) {
///     memory.free(Table(Hpa(0)));
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table(Hpa);

impl Table {
    /// Returns the table at an address that was read from an entry.
    pub(super) const fn at(address: Hpa) -> Self {
        Self(address)
    }

    /// Returns the address of the frame.
    pub const fn address(self) -> Hpa {
        self.0
    }
}

/// The memory that tables lie in.
pub trait TableMemory {
    /// Returns a zeroed frame of 4 KiB, or `None` if none is left.
    fn allocate(&mut self) -> Option<Hpa>;

    /// Takes back the frame of a table that no entry points to.
    fn free(&mut self, table: Table);

    /// Returns the entry at `index`, less than [`ENTRIES`], of a table.
    fn read(&self, table: Table, index: usize) -> u64;

    /// Replaces an entry in a single store, because CPUs walk the table meanwhile.
    fn write(&mut self, table: Table, index: usize, entry: u64);
}

/// Returns a new table, or `None` if no frame is left.
fn allocate(memory: &mut impl TableMemory) -> Option<Table> {
    memory.allocate().map(Table)
}

/// Takes a frame whose words are all `word`, for a page that the second stage maps. Returns its address, or `None` if
/// no frame is left.
pub fn page_of(memory: &mut impl TableMemory, word: u64) -> Option<Hpa> {
    page_of_pairs(memory, [word; 2])
}

/// Takes a frame whose pairs of words are all `pair`, as [`page_of`] does.
pub fn page_of_pairs(memory: &mut impl TableMemory, pair: [u64; 2]) -> Option<Hpa> {
    let page = allocate(memory)?;
    pair.into_iter().cycle().zip(0..ENTRIES).for_each(|(word, index)| memory.write(page, index, word));
    Some(page.0)
}

/// The reasons why a page could not be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// No frame is left for a table.
    #[error("no memory is left for second-stage tables")]
    OutOfTables,
    /// The guest-physical address is at or above [`REACH`].
    #[error("guest-physical address {0} is beyond the 256 TiB that the second stage reaches")]
    OutOfReach(Gpa),
    /// A larger page with another address or memory type is mapped there.
    #[error("guest-physical address {0} is already mapped differently by a larger page")]
    Occupied(Gpa),
}

/// Tables that translate every address to the same page. Any entry can point to them, so they serve where no frame is
/// left for further tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Filler {
    /// The page that every address is translated to.
    page: Hpa,
    /// The PDPT, the PD and the PT.
    tables: [Table; 3],
}

impl Filler {
    /// Returns true if `table` is one of these tables.
    fn has(&self, table: Table) -> bool {
        self.tables.contains(&table)
    }
}

/// A second-stage table. It does not own its memory: all calls must be given the same `memory`.
pub struct SecondStage<F> {
    pub(super) root: Table,
    largest: PageSize,
    filler: Option<Filler>,
    format: PhantomData<F>,
}

impl<F: Format> SecondStage<F> {
    /// Returns an empty table. `largest` is the largest page that the CPU can map.
    ///
    /// # Errors
    /// [`MapError::OutOfTables`] if no frame is left for the root.
    pub fn new(memory: &mut impl TableMemory, largest: PageSize) -> Result<Self, MapError> {
        let root = allocate(memory).ok_or(MapError::OutOfTables)?;
        Ok(Self { root, largest, filler: None, format: PhantomData })
    }

    /// Makes the tables that [`SecondStage::fill`] uses, which translate every address to the page at `page`.
    ///
    /// # Errors
    /// [`MapError::OutOfTables`] if fewer than three frames are left.
    pub fn fill_with(&mut self, memory: &mut impl TableMemory, page: Hpa) -> Result<(), MapError> {
        let mut table = || allocate(memory).ok_or(MapError::OutOfTables);
        let tables = [table()?, table()?, table()?];
        let [pdpt, pd, pt] = tables;
        let leaf = F::leaf(page, PageSize::Size4K, MemoryType::WriteBack, PageAccess::all());
        for (table, entry) in [(pdpt, F::table(pd.0)), (pd, F::table(pt.0)), (pt, leaf)] {
            (0..ENTRIES).for_each(|index| memory.write(table, index, entry));
        }
        self.filler = Some(Filler { page, tables });
        Ok(())
    }

    /// Maps the page of [`SecondStage::fill_with`] at `gpa`, and at all addresses around it that have no table yet.
    /// This takes no frame and changes no page that is mapped. It does nothing before [`SecondStage::fill_with`].
    pub fn fill(&mut self, memory: &mut impl TableMemory, gpa: Gpa) {
        let Some(filler) = self.filler else { return };
        let (mut table, mut below) = (self.root, filler.tables.into_iter());
        for level in [Level::Pml4, Level::Pdpt, Level::Pd, Level::Pt] {
            let index = level.index(gpa);
            let entry = memory.read(table, index);
            let filling = below.next().map_or_else(
                || F::leaf(filler.page, PageSize::Size4K, MemoryType::WriteBack, PageAccess::all()),
                |table| F::table(table.0),
            );
            if !F::is_present(entry) {
                memory.write(table, index, filling);
                return;
            }
            if F::is_leaf(entry, level) {
                return;
            }
            table = Table(F::address(entry));
        }
    }

    /// Returns true if `table` is one of those of [`SecondStage::fill_with`].
    pub(super) fn fills(&self, table: Table) -> bool {
        self.filler.is_some_and(|filler| filler.has(table))
    }

    /// Returns the address of the root table, for the register that holds it.
    pub const fn root(&self) -> Hpa {
        self.root.0
    }

    /// Returns the address of the table that the first entry of the root points to, for a walker of three levels;
    /// `None` if nothing is mapped below 512 GiB.
    pub fn first_below_root(&self, memory: &impl TableMemory) -> Option<Hpa> {
        Some(memory.read(self.root, 0)).filter(|entry| F::is_present(*entry)).map(F::address)
    }

    /// Returns the largest page that the table can map.
    pub const fn largest(&self) -> PageSize {
        self.largest
    }

    /// Maps the page around `gpa` to that of `leaf`. The two addresses must agree in the bits inside the page. Returns
    /// the size of the page that maps `gpa` afterwards.
    ///
    /// If tables divide that page already, only the smaller page around `gpa` is mapped, so that their other entries
    /// are kept. A page of the same size is replaced. An address that [`SecondStage::fill`] has mapped stays as it is.
    /// CPUs need to flush what they have cached only if a present page is changed.
    ///
    /// # Errors
    /// A [`MapError`] if there is no frame for a table, if `gpa` is out of reach, or if a larger page maps it
    /// differently.
    pub fn map(&mut self, memory: &mut impl TableMemory, gpa: Gpa, leaf: Leaf) -> Result<PageSize, MapError> {
        let Leaf { at, memory_type, access, .. } = leaf;
        if gpa.0 >= REACH {
            return Err(MapError::OutOfReach(gpa));
        }
        let wanted = leaf.size.min(self.largest);
        let (mut table, mut level) = (self.root, Level::Pml4);
        loop {
            let index = level.index(gpa);
            let entry = memory.read(table, index);
            let present = F::is_present(entry);
            let is_leaf = present && F::is_leaf(entry, level);
            let size = level.page_size();
            if let Some(size) = size.filter(|&size| size <= wanted && (is_leaf || !present)) {
                let page = at.align_down(size.bytes());
                memory.write(table, index, F::leaf(page, size, memory_type, access));
                return Ok(size);
            }
            if let Some(size) = size.filter(|_| is_leaf) {
                let same_page = F::address(entry).align_down(size.bytes()) == at.align_down(size.bytes());
                let same = same_page && F::memory_type(entry, size) == memory_type;
                return if same { Ok(size) } else { Err(MapError::Occupied(gpa)) };
            }
            table = if present {
                Table(F::address(entry))
            } else {
                let below = allocate(memory).ok_or(MapError::OutOfTables)?;
                memory.write(table, index, F::table(below.0));
                below
            };
            if self.fills(table) {
                return Ok(PageSize::Size4K);
            }
            // The last level has the smallest pages, which are at most `wanted`, so the loop has ended there.
            let Some(below) = level.below() else { return Err(MapError::Occupied(gpa)) };
            level = below;
        }
    }

    /// Returns the address that `gpa` is translated to, and the size and memory type of its page; `None` if nothing is
    /// mapped.
    pub fn translate(&self, memory: &impl TableMemory, gpa: Gpa) -> Option<(Hpa, PageSize, MemoryType)> {
        let (_, _, entry, size) = self.leaf(memory, gpa)?;
        let offset = gpa.0 & (size.bytes() - 1);
        let page = F::address(entry).align_down(size.bytes());
        Some((page + offset, size, F::memory_type(entry, size)))
    }

    /// Changes every page to the type that `uniform` returns for its addresses, and divides a page for which it returns
    /// `None`. A page that cannot be divided because no frame is left becomes uncacheable, which is always correct,
    /// though slow.
    ///
    /// Addresses are translated as before and no table is freed, so CPUs may use the tables meanwhile. A CPU uses the
    /// new types once it has flushed what it has cached.
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
        table: Table,
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
                let next = Table(F::address(entry));
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
                memory.write(table, index, F::table(divided.0));
                continue;
            }
            let memory_type = wanted.unwrap_or(MemoryType::Uncacheable);
            if F::memory_type(entry, size) != memory_type {
                memory.write(table, index, F::leaf(page, size, memory_type, F::access(entry)));
            }
        }
    }

    /// Returns a table that translates like the leaf `entry` of `level`; `None` if there is no smaller page or no
    /// frame.
    pub(super) fn divide(
        memory: &mut impl TableMemory,
        entry: u64,
        level: Level,
        size: PageSize,
    ) -> Option<Table> {
        let below = level.below()?.page_size()?;
        let table = allocate(memory)?;
        let page = F::address(entry).align_down(size.bytes());
        let (memory_type, access) = (F::memory_type(entry, size), F::access(entry));
        for index in 0..ENTRIES {
            let part = page + index as u64 * below.bytes();
            memory.write(table, index, F::leaf(part, below, memory_type, access));
        }
        Some(table)
    }

    /// Unmaps everything, and frees every table except for the root and those of [`SecondStage::fill_with`]. CPUs must
    /// flush what they have cached before they enter the guest again.
    pub fn clear(&mut self, memory: &mut impl TableMemory) {
        self.clear_table(memory, self.root, Level::Pml4);
    }

    fn clear_table(&self, memory: &mut impl TableMemory, table: Table, level: Level) {
        for index in 0..ENTRIES {
            let entry = memory.read(table, index);
            if !F::is_present(entry) {
                continue;
            }
            // The entry is cleared first, so that no CPU walks into a table that is being freed.
            memory.write(table, index, 0);
            let next = Table(F::address(entry));
            if let Some(below) = level.below().filter(|_| !F::is_leaf(entry, level) && !self.fills(next)) {
                self.clear_table(memory, next, below);
                memory.free(next);
            }
        }
    }
}
