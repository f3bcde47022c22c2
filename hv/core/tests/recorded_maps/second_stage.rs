//! The second stage on real machines: each address leads to itself, with the type that the MTRRs give, except for
//! Vidar's memory.

use std::ops::Range;

use vidar_core::mem::addr::{Gpa, Hpa, PAGE_SIZE, PageSize};
use vidar_core::mem::identity::Identity;
use vidar_core::mem::locks::Locks;
use vidar_core::mem::mtrr::{MemoryType, Mtrrs};
use vidar_core::mem::ranges::RangeSet;
use vidar_core::mem::stage2::{Format, SecondStage};
use vidar_core::svm::npt::Npt;
use vidar_core::vmx::ept::Ept;

use crate::recorded::{self, GIB, Machine};
use crate::tables::Tables;

/// The page below 640 KiB from which CPUs are started.
const STARTUP: Range<Hpa> = Hpa(0x8000)..Hpa(0x9000);
/// Addresses at which processors have windows for devices: above 4 GiB, above 512 GiB, above 1 TiB, and up to 128 TiB.
const WINDOWS: [Range<u64>; 4] = [
    8 * GIB..(8 * GIB + 0x1234_5000),
    (512 * GIB - 0x20_0000)..514 * GIB,
    (1 << 40)..(1 << 40) + 0x2000,
    ((1 << 47) - 3 * GIB)..(1 << 47),
];

fn windows(machine: &Machine) -> Vec<Range<Gpa>> {
    let known = machine.windows.iter().map(|window| window.start.identity()..window.end.identity());
    known.chain(WINDOWS.map(|window| Gpa(window.start)..Gpa(window.end))).collect()
}

/// Returns the addresses on both sides of each edge: the next byte, the next page and the next large page.
fn probes(edges: impl IntoIterator<Item = u64>) -> Vec<Gpa> {
    let beside = |edge: u64| {
        let steps = [1, PAGE_SIZE, PageSize::Size2M.bytes(), GIB];
        steps.into_iter().flat_map(move |step| [edge.saturating_sub(step), edge, edge + step - 1])
    };
    edges.into_iter().filter(|edge| *edge <= 1 << 47).flat_map(beside).map(Gpa).collect()
}

fn model(identity: &Identity, gpa: Gpa) -> Option<(Hpa, MemoryType)> {
    let page = gpa.identity();
    (!identity.hidden.contains(page)).then(|| (page, identity.mtrrs.type_at(page)))
}

/// RAM is mapped beforehand, and windows when they are touched. The touches come before or after that.
fn check<F: Format>(machine: &Machine, identity: &Identity, largest: PageSize, touch_first: bool) {
    let mut tables = Tables::with_limit(usize::MAX);
    let mut stage2 = SecondStage::<F>::new(&mut tables, largest).unwrap();
    let usable = machine.map().usable();
    let windows = windows(machine);
    let touched = probes(windows.iter().flat_map(|window| [window.start.0, window.end.0]));
    let touch = |stage2: &mut SecondStage<F>, tables: &mut Tables| {
        for gpa in &touched {
            let mapped = identity.map_on_touch(stage2, tables, *gpa).unwrap();
            assert_eq!(mapped.is_none(), identity.hidden.contains(gpa.identity()));
        }
    };
    if touch_first {
        touch(&mut stage2, &mut tables);
    }
    for range in &usable {
        identity.map_range(&mut stage2, &mut tables, range.start.identity()..range.end.identity()).unwrap();
    }
    if !touch_first {
        touch(&mut stage2, &mut tables);
    }

    let answer = |gpa| stage2.translate(&tables, gpa).map(|(hpa, _, memory_type)| (hpa, memory_type));
    let name = &machine.name;
    for gpa in &touched {
        assert_eq!(answer(*gpa), model(identity, *gpa), "{name} at {gpa}");
    }
    let edges =
        machine.edges().into_iter().chain(identity.hidden.iter().flat_map(|range| [range.start, range.end]));
    for gpa in probes(edges.map(|edge| edge.0)) {
        let found = answer(gpa);
        let expected = model(identity, gpa);
        // Memory that is not RAM may be mapped already if it shares a page with RAM. Then the mapping is right.
        let page = gpa.align_down(PAGE_SIZE).identity();
        assert!(
            found == expected || found.is_none() && !usable.overlaps(&(page..page + PAGE_SIZE)),
            "{name} at {gpa}"
        );
    }
}

fn identity(mtrrs: Mtrrs, region: &Range<Hpa>) -> Identity {
    Identity {
        mtrrs,
        hidden: RangeSet::from([region.clone(), STARTUP]),
        watched: None,
        moved: None,
        locks: Locks::default(),
        alias: 0,
    }
}

#[test]
fn memory_is_mapped_to_itself_except_for_vidars() {
    for machine in recorded::all() {
        for (_, mtrrs) in machine.mtrrs() {
            for region in machine.places_of_vidar() {
                let identity = identity(mtrrs.clone(), &region);
                check::<Ept>(&machine, &identity, PageSize::Size1G, false);
                check::<Npt>(&machine, &identity, PageSize::Size1G, true);
            }
        }
    }
}

#[test]
fn translation_is_the_same_without_1_gib_pages() {
    for machine in recorded::all() {
        let (Some((_, mtrrs)), Some(region)) = (machine.mtrrs().pop(), machine.places_of_vidar().pop())
        else {
            continue;
        };
        check::<Ept>(&machine, &identity(mtrrs, &region), PageSize::Size2M, true);
    }
}

#[test]
fn ram_is_write_back_and_windows_are_not() {
    for machine in recorded::all() {
        let usable = machine.map().usable();
        for (name, mtrrs) in machine.mtrrs() {
            // Conventional memory ends within the fixed ranges.
            let above = usable.iter().filter(|range| range.start.0 >= 0x10_0000);
            for range in above {
                assert_eq!(
                    mtrrs.uniform_type(range.clone()),
                    Some(MemoryType::WriteBack),
                    "{}, {name}",
                    machine.name
                );
            }
            for window in machine.windows.iter().filter(|_| name != "none") {
                let found = mtrrs.uniform_type(window.clone());
                assert_eq!(found, Some(MemoryType::Uncacheable), "{}, {name}, {window:?}", machine.name);
            }
        }
    }
}
