//! The tables, against a walk of the test's own: every address is itself, or not mapped in a hole.

use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;
use vidar_core::iommu::plan::{Obstacle, Plan, frames};
use vidar_core::iommu::tables::build;
use vidar_core::mem::addr::{Hpa, PAGE_SIZE, PageSize, overlaps};
use vidar_core::mem::level::ENTRIES;
use vidar_core::mem::moved::MovedPages;
use vidar_core::mem::ranges::RangeSet;
use vidar_core::mem::stage2::{Table, TableMemory};

/// Frames for tables, up to a limit.
struct Frames {
    all: BTreeMap<u64, Vec<u64>>,
    limit: usize,
}

impl TableMemory for Frames {
    fn allocate(&mut self) -> Option<Hpa> {
        let at = (self.all.len() as u64 + 1) * PAGE_SIZE;
        (self.all.len() < self.limit).then(|| {
            self.all.insert(at, vec![0; ENTRIES]);
            Hpa(at)
        })
    }

    fn free(&mut self, _: Table) {
        unreachable!("no table is freed");
    }

    fn read(&self, table: Table, index: usize) -> u64 {
        self.all[&table.address().0][index]
    }

    fn write(&mut self, table: Table, index: usize, entry: u64) {
        self.all.get_mut(&table.address().0).expect("a table")[index] = entry;
    }
}

impl Frames {
    fn pair(&self, table: u64, index: usize) -> [u64; 2] {
        let words = &self.all[&table];
        [words[2 * index], words[2 * index + 1]]
    }

    /// Walks as the unit does for a request of `device`. Returns the address in memory, or `None` for a fault.
    fn walk(&self, root: Hpa, device: u16, address: u64) -> Option<u64> {
        let [entry, reserved] = self.pair(root.0, usize::from(device >> 8));
        assert_eq!((entry & 0xfff, reserved), (1, 0), "a root entry");
        let [context, width] = self.pair(entry & !0xfff, usize::from(device & 0xff));
        assert_eq!(context & 0xfff, 1, "a context entry of the type for untranslated requests");
        let levels = match width & 7 {
            1 => 3,
            2 => 4,
            _ => panic!("a width that no unit has"),
        };
        assert_eq!(width & !7, 1 << 8, "a domain other than 0");
        if address >> (12 + 9 * levels) != 0 {
            return None;
        }
        let mut table = context & !0xfff;
        for level in (0..levels).rev() {
            let shift = 12 + 9 * level;
            let entry = self.all[&table][(address >> shift) as usize % ENTRIES];
            if entry & 3 == 0 {
                return None;
            }
            assert_eq!(entry & 0x7c | entry >> 52, 0, "reserved bits");
            assert_eq!(entry & 3, 3, "reads and writes");
            if level == 0 || entry & 0x80 != 0 {
                let page = 1u64 << shift;
                assert!(level < 3 && entry & 0xf_ffff_ffff_f000 & (page - 1) == 0, "an aligned page");
                return Some(entry & 0xf_ffff_ffff_f000 | address & (page - 1));
            }
            table = entry & !0xfff;
        }
        unreachable!("the last level maps pages");
    }
}

const GIB: u64 = 1 << 30;
const END: Hpa = Hpa(4 * GIB);

/// Holes of whole pages, near each other and near the borders of large pages.
fn holes() -> impl Strategy<Value = Vec<Range<Hpa>>> {
    let around = prop_oneof![Just(0), Just(0x20_0000), Just(GIB), Just(3 * GIB), 0..END.0];
    let hole =
        (around, -8i64..8, prop_oneof![Just(1u64), Just(512), 1u64..600]).prop_map(|(at, off, pages)| {
            let start = at.saturating_add_signed(off * PAGE_SIZE as i64) & !(PAGE_SIZE - 1);
            Hpa(start)..Hpa((start + pages * PAGE_SIZE).min(END.0))
        });
    prop::collection::vec(hole, 0..5)
}

fn plan() -> impl Strategy<Value = Plan> {
    let largest = prop::sample::select(vec![PageSize::Size1G, PageSize::Size2M]);
    (any::<bool>(), largest).prop_map(|(four_levels, largest)| Plan { four_levels, largest, end: END })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_address_is_itself_or_in_a_hole(
        plan in plan(), holes in holes(), probes in prop::collection::vec(0..END.0, 32), device: u16,
    ) {
        let set: RangeSet = holes.iter().cloned().collect();
        let most = frames(plan.largest, plan.end, holes.len() as u64) as usize;
        let mut memory = Frames { all: BTreeMap::new(), limit: most };
        let root = build(&mut memory, &plan, set.clone(), None);
        let root = root.expect("the plan has counted the frames");
        let edges = holes.iter().flat_map(|hole| [hole.start.0.wrapping_sub(1), hole.start.0, hole.end.0 - 1, hole.end.0]);
        for address in probes.into_iter().chain(edges).chain([0, END.0 - 1]).filter(|at| *at < END.0) {
            let expected = (!set.contains(Hpa(address))).then_some(address);
            prop_assert_eq!(memory.walk(root, device, address), expected, "{:#x}", address);
        }
        prop_assert_eq!(memory.walk(root, device, END.0), None);
        prop_assert_eq!(memory.walk(root, device, 1 << 40), None);
    }
}

#[test]
fn usual_machine_takes_28_kib() {
    let plan = Plan { four_levels: true, largest: PageSize::Size1G, end: Hpa(512 * GIB) };
    let holes: [Range<Hpa>; 2] = [Hpa(0x20_0000)..Hpa(0x40_0000), Hpa(0xfed9_0000)..Hpa(0xfed9_1000)];
    let mut memory = Frames { all: BTreeMap::new(), limit: 100 };
    let root = build(&mut memory, &plan, holes.into_iter().collect(), None).expect("frames enough");
    assert_eq!(
        memory.all.len(),
        7,
        "root, context, two levels, two directories, and a table for the registers"
    );
    assert_eq!(memory.walk(root, 0, 500 * GIB), Some(500 * GIB));
}

#[test]
fn devices_find_moved_pages_where_the_guest_does() {
    let low: RangeSet = [Hpa(0)..Hpa(0x9_f000)].into();
    let window = Hpa(0x1000)..Hpa(0xa_0000);
    let moved = MovedPages::new(&low, &window, Hpa(0x30_0000));
    let plan = Plan { four_levels: true, largest: PageSize::Size2M, end: END };
    let mut memory = Frames { all: BTreeMap::new(), limit: 100 };
    let kept = Hpa(0x20_0000)..Hpa(0x40_0000);
    assert!(!overlaps(&window, &kept));
    let root = build(&mut memory, &plan, [kept].into(), Some(moved)).expect("frames enough");
    for (address, place) in [
        (0x123, Some(0x123)),
        (0x1123, Some(0x30_0123)),
        (0x9_e000, Some(0x39_d000)),
        (0x9_f000, Some(0x9_f000)),
        (0x30_0123, None),
    ] {
        assert_eq!(memory.walk(root, 0x1234, address), place, "{address:#x}");
    }
}

#[test]
fn too_few_frames_are_an_obstacle() {
    let plan = Plan { four_levels: true, largest: PageSize::Size2M, end: END };
    for limit in 0..8 {
        let mut memory = Frames { all: BTreeMap::new(), limit };
        assert_eq!(build(&mut memory, &plan, RangeSet::new(), None), Err(Obstacle::NoMemory), "{limit}");
    }
    let mut memory = Frames { all: BTreeMap::new(), limit: 8 };
    assert!(build(&mut memory, &plan, RangeSet::new(), None).is_ok());
}
