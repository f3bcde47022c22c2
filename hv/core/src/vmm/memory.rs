//! The guest's memory: the machine's memory at its own addresses, with a decoy in place of Vidar's memory.

use core::iter;
use core::ops::Range;

use crate::mem::addr::{Gpa, Hpa, PAGE_SIZE, PageSize};
use crate::mem::identity::Identity;
use crate::mem::locks::{Lock, Locks, Part};
use crate::mem::mtrr::{MemoryType, Mtrrs};
use crate::mem::ranges::RangeSet;
use crate::mem::stage2::{self, Format, Leaf, MapError, PageAccess, SecondStage, TableMemory};

/// The first MiB, where a PC has its BIOS, its ROMs and its text screen. Operating systems search all of it, and the
/// fixed-range MTRRs require pages of 4 KiB there, so it is mapped at the start.
const LEGACY: Range<Gpa> = Gpa(0)..Gpa(0x10_0000);

/// The value that a CPU reads at an address where no device answers. The decoy holds it until the guest writes there.
const OPEN_BUS: u64 = u64::MAX;

/// The second stage, and what it is made from: the identity map, the RAM and the memory for tables.
pub struct GuestMemory<F, T> {
    stage2: SecondStage<F>,
    tables: T,
    identity: Identity,
    ram: RangeSet,
    /// More than one CPU uses the tables, and Vidar cannot make another CPU flush its translations.
    shared: bool,
    /// The page that the guest sees in place of Vidar's memory, and wherever no table is left to map anything else.
    decoy: Hpa,
}

/// What [`GuestMemory::touch`] has mapped at an address that the guest touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// The memory or the device that a bare machine has there.
    Mapped,
    /// The decoy, since the address is in Vidar's memory.
    Hidden,
    /// The decoy, at this address and around it, since no frame was left for tables.
    Filled,
    /// Nothing, since the address has more bits than the second stage translates.
    Beyond,
}

impl<F: Format, T: TableMemory> GuestMemory<F, T> {
    /// Builds the second stage, and maps all RAM and the first MiB. Devices are mapped when the guest touches them.
    /// `largest` is the largest page that the CPU can map. `shared` says that more than one CPU uses the tables: then
    /// nothing is ever unmapped, so that no CPU uses a cached table whose frame has become another table.
    ///
    /// # Errors
    /// Returns a [`MapError`] if `tables` has too few frames for the empty second stage. With `shared`, it also returns
    /// one if `tables` has too few frames to map all RAM, since tables cannot be freed later.
    pub fn new(
        mut tables: T,
        largest: PageSize,
        identity: Identity,
        ram: RangeSet,
        shared: bool,
    ) -> Result<Self, MapError> {
        let mut stage2 = SecondStage::new(&mut tables, largest)?;
        let decoy = stage2::page_of(&mut tables, OPEN_BUS).ok_or(MapError::OutOfTables)?;
        stage2.fill_with(&mut tables, decoy)?;
        let mut memory = Self { stage2, tables, identity, ram, shared, decoy };
        memory.map_ram()?;
        Ok(memory)
    }

    /// Returns the address of the second stage's root table.
    pub fn root(&self) -> Hpa {
        self.stage2.root()
    }

    /// Returns what the second stage maps.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the memory that the tables are allocated from.
    pub fn tables(&self) -> &T {
        &self.tables
    }

    /// Returns true if more than one CPU uses the tables.
    pub const fn is_shared(&self) -> bool {
        self.shared
    }

    /// Returns the address of the page that the guest sees in place of Vidar's memory.
    pub const fn decoy(&self) -> Hpa {
        self.decoy
    }

    /// Returns the accesses that the second stage allows at `address`; `None` if nothing is mapped there yet.
    pub fn access(&self, address: Gpa) -> Option<PageAccess> {
        self.stage2.access(&self.tables, address)
    }

    /// Returns the host-physical address to which the second stage translates `address`, and the size and the memory
    /// type of the page. Returns `None` if nothing is mapped there yet.
    pub fn translate(&self, address: Gpa) -> Option<(Hpa, PageSize, MemoryType)> {
        self.stage2.translate(&self.tables, address)
    }

    /// Maps the page around an address that the guest touched. Returns what it has mapped, and true if it has unmapped
    /// everything else to free frames for tables: the CPU must then flush its second-stage translations.
    pub fn touch(&mut self, address: Gpa) -> (Touch, bool) {
        let hidden = self.identity.hides(address);
        let touch = if hidden { Touch::Hidden } else { Touch::Mapped };
        let mut mapped = self.map(address, hidden);
        let flush = mapped == Err(MapError::OutOfTables) && !self.shared;
        if flush {
            self.stage2.clear(&mut self.tables);
            mapped = self.map(address, hidden);
        }
        let touch = match mapped {
            // A larger page with another memory type covers the address: no frame was left to split it.
            Ok(()) | Err(MapError::Occupied(_)) => touch,
            Err(MapError::OutOfReach(_)) => Touch::Beyond,
            Err(MapError::OutOfTables) => {
                self.stage2.fill(&mut self.tables, address);
                if hidden { touch } else { Touch::Filled }
            }
        };
        (touch, flush)
    }

    /// Changes the memory types of the second stage to those of `mtrrs`. Returns true if anything changed: CPUs must
    /// then flush their second-stage translations.
    pub fn follow(&mut self, mtrrs: Mtrrs) -> bool {
        let mtrrs = mtrrs.combined(self.identity.mtrrs.how_combined());
        // Linux often writes values back unchanged, and sets up ranges before it enables them.
        if self.identity.mtrrs == mtrrs {
            return false;
        }
        self.identity.mtrrs = mtrrs;
        if self.shared {
            let Self { stage2, tables, identity, decoy, .. } = self;
            // The decoy is always write-back, since it stands for addresses of any type.
            let uniform = |page: Range<Hpa>| {
                if page.start == *decoy { Some(MemoryType::WriteBack) } else { identity.uniform_type(page) }
            };
            stage2.retype(tables, &uniform);
        } else {
            self.stage2.clear(&mut self.tables);
            // What cannot be mapped now is mapped when the guest touches it.
            let _ = self.map_ram();
        }
        true
    }

    /// Takes the right to write to the memory that `locks` names, where nothing was locked before. CPUs may still write
    /// there until each has flushed its second-stage translations. Returns the number of new tables.
    ///
    /// # Errors
    /// [`MapError::OutOfTables`] if `tables` has too few frames. Nothing changes then for the guest.
    pub fn lock(&mut self, locks: Locks) -> Result<usize, MapError> {
        self.identity.locks = locks;
        let result = self.lock_again();
        if result.is_err() {
            self.identity.locks = Locks::default();
        }
        result
    }

    /// Takes the right to write from all locked memory, also where [`GuestMemory::open`] has given it back. Returns the
    /// number of new tables.
    ///
    /// # Errors
    /// As [`GuestMemory::lock`].
    pub fn lock_again(&mut self) -> Result<usize, MapError> {
        let Self { stage2, tables, identity, decoy, .. } = self;
        // The decoy lies in Vidar's memory, and what the guest sees through it is not the memory at the decoy's own
        // address.
        stage2
            .lock(tables, &|page| if page.start == *decoy { Part::None } else { identity.locked_part(page) })
    }

    /// Returns the lock that denies a write at `address`; `None` if it is allowed, or nothing is mapped there.
    pub fn denies_write(&self, address: Gpa) -> Option<Lock> {
        if self.stage2.access(&self.tables, address)?.contains(PageAccess::WRITE) {
            return None;
        }
        let page = address.align_down(PAGE_SIZE).identity();
        match self.identity.locked_part(page..page + PAGE_SIZE) {
            Part::All(lock) => Some(lock),
            Part::None | Part::Some => None,
        }
    }

    /// Gives the guest the right to write to the page around `address`, until [`GuestMemory::lock_again`].
    pub fn open(&mut self, address: Gpa) {
        self.stage2.allow_write(&mut self.tables, address);
    }

    fn map(&mut self, address: Gpa, decoy: bool) -> Result<(), MapError> {
        let Self { stage2, tables, identity, .. } = self;
        if decoy {
            let page = address.align_down(PAGE_SIZE);
            stage2.map(tables, page, Leaf::new(self.decoy, PageSize::Size4K, MemoryType::WriteBack))?;
            return Ok(());
        }
        identity.map_on_touch(stage2, tables, address)?.map(|_| ()).ok_or(MapError::OutOfReach(address))
    }

    /// Maps the watched page, the first MiB and all RAM. If no frames are left for tables and `shared` is false, the
    /// rest is mapped when the guest touches it.
    fn map_ram(&mut self) -> Result<(), MapError> {
        let Self { stage2, tables, identity, ram, shared, .. } = self;
        // The watched page comes first, since the decoy must never take its place.
        let watched = identity.watched.map(|page| page..page + PAGE_SIZE);
        let ranges = ram.iter().map(|range| range.start.identity()..range.end.identity());
        let mut all = watched.into_iter().chain(iter::once(LEGACY)).chain(ranges);
        match all.try_for_each(|range| identity.map_range(stage2, tables, range)) {
            Err(MapError::OutOfTables) if !*shared => Ok(()),
            result => result,
        }
    }
}
