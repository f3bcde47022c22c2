//! Counts the frames that the tables of a machine take. `cargo test -p vidar-core --test recorded_maps frames --
//! --nocapture` prints them.

use std::collections::BTreeSet;
use std::ops::Range;

use vidar_core::mem::addr::{Gpa, Hpa, PAGE_SIZE, PageSize};
use vidar_core::mem::identity::Identity;
use vidar_core::mem::locks::Locks;
use vidar_core::mem::map::MemoryMap;
use vidar_core::mem::mtrr::{MemoryType, Mtrrs};
use vidar_core::mem::stage2::{ENTRIES, Leaf, MapError, SecondStage, Table, TableMemory};
use vidar_core::vmm::memory::GuestMemory;
use vidar_core::vmx::ept::Ept;

use crate::recorded::{self, BELOW_4G, GIB, MIB};

/// Tables, of which there is a limited number. A test fails if it uses one that does not exist.
pub struct Tables {
    tables: Vec<Option<[u64; ENTRIES]>>,
    used: usize,
    limit: usize,
}

impl Tables {
    pub fn with_limit(limit: usize) -> Self {
        Self { tables: Vec::new(), used: 0, limit }
    }

    fn index(table: Table) -> usize {
        (table.address().0 / PAGE_SIZE) as usize - 1
    }
}

impl TableMemory for Tables {
    fn allocate(&mut self) -> Option<Hpa> {
        (self.used < self.limit).then(|| {
            self.used += 1;
            self.tables.push(Some([0; ENTRIES]));
            Hpa(self.tables.len() as u64 * PAGE_SIZE)
        })
    }

    fn free(&mut self, table: Table) {
        self.used -= 1;
        assert!(self.tables[Self::index(table)].take().is_some(), "{table:?} freed twice");
    }

    fn read(&self, table: Table, index: usize) -> u64 {
        self.tables[Self::index(table)].as_ref().unwrap()[index]
    }

    fn write(&mut self, table: Table, index: usize, entry: u64) {
        self.tables[Self::index(table)].as_mut().unwrap()[index] = entry;
    }
}

fn identity(mtrrs: Mtrrs, region: Range<Hpa>) -> Identity {
    Identity { mtrrs, hidden: [region].into(), watched: None, moved: None, locks: Locks::default(), alias: 0 }
}

/// Returns the guest's memory, with at most `limit` frames for its tables.
pub fn guest(
    map: &MemoryMap<'_>,
    identity: Identity,
    largest: PageSize,
    limit: usize,
    shared: bool,
) -> Result<GuestMemory<Ept, Tables>, MapError> {
    let mut ram = map.usable();
    identity.hidden.iter().for_each(|range| ram.remove(range));
    GuestMemory::new(Tables::with_limit(limit), largest, identity, ram, shared)
}

/// Returns the number of frames of the second stage, with its root and the decoy.
fn second_stage(map: &MemoryMap<'_>, identity: Identity, largest: PageSize) -> usize {
    guest(map, identity, largest, usize::MAX, true).unwrap().tables().used
}

/// Returns the same number by counting: the root, the decoy and the three tables that lead to it everywhere, a table
/// for each 512 GiB with RAM, a table for each GiB with RAM that is not one page, and a table for each 2 MiB in these
/// that are not one page.
fn counted(map: &MemoryMap<'_>, identity: &Identity, largest: PageSize) -> usize {
    let mut blocks: [BTreeSet<u64>; 3] = Default::default();
    let mut ram = map.usable();
    identity.hidden.iter().for_each(|range| ram.remove(range));
    ram.insert(Hpa(0)..Hpa(MIB));
    let is_page = |start: u64, size: u64| {
        let range = Hpa(start)..Hpa(start + size);
        !identity.hidden.overlaps(&range) && identity.mtrrs.uniform_type(range).is_some()
    };
    for range in &ram {
        let under =
            |size: u64| (range.start.0 / size..range.end.0.div_ceil(size)).map(move |block| block * size);
        blocks[0].extend(under(512 * GIB));
        let divided = |start: &u64| largest < PageSize::Size1G || !is_page(*start, GIB);
        let small = |start: &u64| divided(&(start & !(GIB - 1))) && !is_page(*start, 2 * MIB);
        blocks[1].extend(under(GIB).filter(divided));
        blocks[2].extend(under(2 * MIB).filter(small));
    }
    5 + blocks.iter().map(BTreeSet::len).sum::<usize>()
}

/// Returns the number of frames of Vidar's direct map by its rule: the first 4 GiB have pages of 2 MiB, and Vidar's own
/// memory has small ones. Above 4 GiB, RAM has the largest pages that are possible.
fn direct_map(map: &MemoryMap<'_>, region: &Range<Hpa>, largest: PageSize) -> usize {
    let mut tables = Tables::with_limit(usize::MAX);
    let mut direct = SecondStage::<Ept>::new(&mut tables, largest).unwrap();
    let mut map_page = |at: u64, size| {
        direct.map(&mut tables, Gpa(at), Leaf::new(Hpa(at), size, MemoryType::WriteBack)).unwrap();
    };
    (region.start.0..region.end.0).step_by(PAGE_SIZE as usize).for_each(|at| map_page(at, PageSize::Size4K));
    let low = (0..BELOW_4G.end.0).step_by(PageSize::Size2M.bytes() as usize);
    low.filter(|at| *at != region.start.0).for_each(|at| map_page(at, PageSize::Size2M));
    for range in &map.usable() {
        let start = range.start.max(BELOW_4G.end).align_down(largest.bytes()).0;
        (start..range.end.0).step_by(largest.bytes() as usize).for_each(|at| map_page(at, largest));
    }
    tables.used
}

fn kib(frames: usize) -> usize {
    frames * PAGE_SIZE as usize / 1024
}

#[test]
fn number_of_frames_matches_a_count() {
    println!(
        "{:20}{:>10} {:15}{:>11}{:>11}{:>11}{:>11}",
        "", "RAM, MiB", "MTRRs", "guest 1G", "2M", "host 1G", "2M"
    );
    for machine in recorded::all() {
        let map = machine.map();
        let Some(region) = machine.places_of_vidar().first().cloned() else { continue };
        let sizes = [PageSize::Size1G, PageSize::Size2M];
        let host = sizes.map(|largest| kib(direct_map(&map, &region, largest)));
        for (name, mtrrs) in machine.mtrrs() {
            let identity = identity(mtrrs, region.clone());
            // Without pages of 1 GiB there are many tables, and nearly as many for each set of MTRRs.
            let sizes = if name == "named RAM" { &sizes[..] } else { &sizes[..1] };
            let guest = sizes.iter().map(|largest| {
                let frames = second_stage(&map, identity.clone(), *largest);
                assert_eq!(frames, counted(&map, &identity, *largest), "{}, {name}, {largest}", machine.name);
                kib(frames)
            });
            let guest: Vec<_> = guest.collect();
            let kib = |kib: Option<&usize>| kib.map_or(String::new(), |kib| format!("{kib} KiB"));
            let [huge, large] = [0, 1].map(|at| kib(guest.get(at)));
            let [host_huge, host_large] = [0, 1].map(|at| kib(host.get(at)));
            let (machine, ram) = (&machine.name, map.usable_bytes() / MIB);
            println!("{machine:20}{ram:10} {name:15}{huge:>11}{large:>11}{host_huge:>11}{host_large:>11}");
        }
    }
}

#[test]
fn several_cpus_need_all_tables_in_advance() {
    for machine in recorded::all() {
        let Some(region) = machine.places_of_vidar().first().cloned() else { continue };
        let map = machine.map();
        let identity = identity(Mtrrs::write_back(), region);
        let enough = second_stage(&map, identity.clone(), PageSize::Size1G);
        let make = |frames, shared| guest(&map, identity.clone(), PageSize::Size1G, frames, shared).err();
        assert_eq!(make(enough, true), None, "{}", machine.name);
        assert_eq!(make(enough - 1, true), Some(MapError::OutOfTables), "{}", machine.name);
        assert_eq!(make(enough - 1, false), None, "{}: one CPU makes room", machine.name);
    }
}
