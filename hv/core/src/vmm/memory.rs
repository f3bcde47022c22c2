//! The guest's memory: the whole machine's at its own addresses, with Vidar's region behind a decoy.

use core::iter;
use core::ops::Range;

use crate::mem::addr::{Gpa, Hpa, PAGE_SIZE, PageSize};
use crate::mem::identity::Identity;
use crate::mem::mtrr::{MemoryType, Mtrrs};
use crate::mem::ranges::RangeSet;
use crate::mem::stage2::{ENTRIES, Format, MapError, SecondStage, TableMemory};

/// The first MiB, where a PC has its BIOS, its ROMs and its text screen: operating systems search all of it, page by
/// page, and the fixed-range MTRRs make its pages small.
const LEGACY: Range<Gpa> = Gpa(0)..Gpa(0x10_0000);

/// What a CPU reads where nothing answers on the bus. The decoy holds it at first, and then what the guest writes there.
const OPEN_BUS: u64 = u64::MAX;

/// The second stage and what it is made from.
pub struct GuestMemory<F, T> {
    stage2: SecondStage<F>,
    tables: T,
    identity: Identity,
    ram: RangeSet,
    /// More than one CPU uses the tables, and none can be told to forget what it cached of them.
    shared: bool,
    /// The page that the guest sees wherever Vidar's memory is, and where nothing else can be mapped.
    decoy: Hpa,
}

/// What is at an address that the guest touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// What a bare machine has there, mapped now.
    Mapped,
    /// Vidar's memory: the guest is shown the decoy.
    Hidden,
    /// No frame was left for tables: the guest is shown the decoy there and around it.
    Filled,
    /// Nothing: the address has more bits than the second stage translates.
    Beyond,
}

impl<F: Format, T: TableMemory> GuestMemory<F, T> {
    /// Maps all RAM and the first MiB. Devices follow as the guest touches them. With `shared` more than one CPU uses the
    /// tables: nothing is unmapped then, so no CPU can hold on to a table that has become another.
    ///
    /// # Errors
    /// [`MapError`] where not even an empty table fits in what `tables` has; with `shared`, where not all RAM does: there
    /// is no good way then to make room once the guest touches the rest.
    pub fn new(
        mut tables: T,
        largest: PageSize,
        identity: Identity,
        ram: RangeSet,
        shared: bool,
    ) -> Result<Self, MapError> {
        let mut stage2 = SecondStage::new(&mut tables, largest)?;
        let decoy = tables.allocate().ok_or(MapError::OutOfTables)?;
        (0..ENTRIES).for_each(|index| tables.write(decoy, index, OPEN_BUS));
        stage2.fill_with(&mut tables, decoy)?;
        let mut memory = Self { stage2, tables, identity, ram, shared, decoy };
        memory.map_ram()?;
        Ok(memory)
    }

    /// The second stage's root table.
    pub fn root(&self) -> Hpa {
        self.stage2.root()
    }

    /// The memory that tables live in.
    pub fn tables(&self) -> &T {
        &self.tables
    }

    /// Returns true if more than one CPU uses the tables.
    pub const fn is_shared(&self) -> bool {
        self.shared
    }

    /// The page that the guest sees wherever Vidar's memory is.
    pub const fn decoy(&self) -> Hpa {
        self.decoy
    }

    /// Maps the page around an address that the guest touched. Whether a table was taken for it from others, so that what
    /// CPUs remember must be flushed, is the second of what it returns.
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
            // A page that is mapped with another type is one that could not be divided.
            Ok(()) | Err(MapError::Occupied(_)) => touch,
            Err(MapError::OutOfReach(_)) => Touch::Beyond,
            Err(MapError::OutOfTables) => {
                self.stage2.fill(&mut self.tables, address);
                if hidden { touch } else { Touch::Filled }
            }
        };
        (touch, flush)
    }

    /// Makes the memory types follow the MTRRs. Returns true if anything changed: what CPUs remember must then be flushed.
    pub fn follow(&mut self, mtrrs: Mtrrs) -> bool {
        let mtrrs = mtrrs.combined(self.identity.mtrrs.how_combined());
        // Linux writes back what it read, and sets up ranges before it switches them on.
        if self.identity.mtrrs == mtrrs {
            return false;
        }
        self.identity.mtrrs = mtrrs;
        if self.shared {
            let Self { stage2, tables, identity, decoy, .. } = self;
            // The decoy's place has no type of its own.
            let uniform = |page: Range<Hpa>| {
                if page.start == *decoy { Some(MemoryType::WriteBack) } else { identity.uniform_type(page) }
            };
            stage2.retype(tables, &uniform);
        } else {
            self.stage2.clear(&mut self.tables);
            // What cannot be mapped at once is mapped as it is touched.
            let _ = self.map_ram();
        }
        true
    }

    fn map(&mut self, address: Gpa, decoy: bool) -> Result<(), MapError> {
        let Self { stage2, tables, identity, .. } = self;
        if decoy {
            let page = address.align_down(PAGE_SIZE);
            stage2.map(tables, page, self.decoy, PageSize::Size4K, MemoryType::WriteBack)?;
            return Ok(());
        }
        identity.map_on_touch(stage2, tables, address)?.map(|_| ()).ok_or(MapError::OutOfReach(address))
    }

    /// Maps what the guest will surely use; what the tables cannot hold is mapped as it is touched, if it can be.
    fn map_ram(&mut self) -> Result<(), MapError> {
        let Self { stage2, tables, identity, ram, shared, .. } = self;
        // The watched page must never be filled.
        let watched = identity.watched.map(|page| page..page + PAGE_SIZE);
        let ranges = ram.iter().map(|range| range.start.identity()..range.end.identity());
        let mut all = watched.into_iter().chain(iter::once(LEGACY)).chain(ranges);
        match all.try_for_each(|range| identity.map_range(stage2, tables, range)) {
            Err(MapError::OutOfTables) if !*shared => Ok(()),
            result => result,
        }
    }
}
