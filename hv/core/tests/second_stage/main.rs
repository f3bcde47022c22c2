//! The second-stage table and the identity map, against a model that asks the MTRRs page by page.

mod locks;
mod tables;

use std::ops::Range;

use proptest::prelude::*;
use vidar_core::mem::addr::{Gpa, Hpa, PAGE_SIZE, PageSize};
use vidar_core::mem::identity::Identity;
use vidar_core::mem::locks::Locks;
use vidar_core::mem::moved::MovedPages;
use vidar_core::mem::mtrr::{IA32_MTRR_DEF_TYPE, IA32_MTRRCAP, MemoryType, Mtrrs};
use vidar_core::mem::stage2::{Format, Leaf, MapError, PageAccess, SecondStage};
use vidar_core::svm::npt::Npt;
use vidar_core::vmx::ept::Ept;

use tables::Tables;

const MIB: u64 = 1 << 20;
/// The part of the address space that the tests use.
const END: u64 = 3 << 30;
/// Where moved pages lie.
const ELSEWHERE: Hpa = Hpa(END);

/// MTRRs with ranges of all sizes, the fixed ones in use.
fn mtrrs() -> impl Strategy<Value = Mtrrs> {
    let kind = prop::sample::select(vec![0u64, 1, 4, 5, 6]);
    let pair = (0..END, 12u32..33, kind.clone());
    (prop::collection::vec(pair, 0..8), kind.clone(), kind).prop_map(|(pairs, default, fixed)| {
        Mtrrs::read(36, |index| match index {
            IA32_MTRRCAP => 0x500 | pairs.len() as u64,
            IA32_MTRR_DEF_TYPE => 0xc00 | default,
            0x250..=0x267 => fixed * 0x0101_0101_0101_0101,
            0x268..=0x26f => 0x0606_0606_0606_0606,
            _ => {
                let (base, shift, kind) = pairs[(index as usize - 0x200) / 2];
                let mask = u64::MAX << shift & 0xf_ffff_f000;
                if index % 2 == 0 { base & mask | kind } else { mask | 0x800 }
            }
        })
    })
}

fn identity() -> impl Strategy<Value = Identity> {
    let watched = prop::option::of((0..END / PAGE_SIZE).prop_map(|page| Gpa(page * PAGE_SIZE)));
    let alias = prop::sample::select(vec![0, ALIAS]);
    let moved = prop::option::of((1u64..0x90, 1u64..0x20).prop_map(|(page, pages)| {
        let start = Hpa(page * PAGE_SIZE);
        let window = Hpa(PAGE_SIZE)..Hpa(0xa_0000);
        MovedPages::new(&[start..start + pages * PAGE_SIZE].into(), &window, ELSEWHERE)
    }));
    (mtrrs(), 0..END / PAGE_SIZE, 1u64..2048, watched, moved, alias).prop_map(
        |(mtrrs, page, pages, watched, moved, alias)| {
            let start = Hpa(page * PAGE_SIZE);
            Identity {
                mtrrs,
                hidden: [start..start + pages * PAGE_SIZE].into(),
                watched,
                moved,
                locks: Locks::default(),
                alias,
            }
        },
    )
}

/// An address bit that selects only how memory is encrypted.
const ALIAS: u64 = 1 << 47;

fn largest() -> impl Strategy<Value = PageSize> {
    prop::sample::select(PageSize::DESCENDING.to_vec())
}

/// Returns addresses at which a mistake would show: random ones, and both sides of every kind of edge.
fn probes(identity: &Identity, random: &[u64]) -> Vec<Gpa> {
    let edges = [0, 0x8_0000, 0xa_0000, MIB, 2 * MIB, 1 << 30, END];
    let hidden = identity.hidden.iter().flat_map(|range| [range.start.0, range.end.0]);
    let hidden = hidden.chain(identity.watched.map(|page| page.0));
    let hidden = hidden.chain(identity.moved.iter().flat_map(|moved| moved.pages()).map(|page| page.0));
    let near = edges.into_iter().chain(hidden).chain(random.iter().map(|at| at & !(2 * MIB - 1)));
    let near = near.flat_map(|edge| [edge.saturating_sub(PAGE_SIZE), edge.saturating_sub(1), edge, edge + 1]);
    let all = near.chain(random.iter().copied());
    all.flat_map(|address| [address, address | ALIAS]).map(Gpa).collect()
}

/// Returns what the table must say, from the MTRRs and the hidden and moved ranges alone.
fn model(identity: &Identity, gpa: Gpa) -> Option<(Hpa, MemoryType)> {
    let page = gpa.identity();
    let own = Gpa(gpa.0 & !identity.alias);
    let place = identity.moved.as_ref().and_then(|moved| moved.place(own));
    let memory_type = identity.mtrrs.type_at(own.identity());
    (!identity.hidden.contains(own.identity())).then(|| (place.unwrap_or(page), memory_type))
}

fn answer<F: Format>(stage2: &SecondStage<F>, tables: &Tables, gpa: Gpa) -> Option<(Hpa, MemoryType)> {
    stage2.translate(tables, gpa).map(|(hpa, _, memory_type)| (hpa, memory_type))
}

/// The order in which pages are mapped: a range in advance, before or after touches at random addresses.
struct Touches {
    identity: Identity,
    largest: PageSize,
    eager: Range<Gpa>,
    random: Vec<u64>,
    eager_first: bool,
}

impl Touches {
    fn check<F: Format>(&self) -> Result<(), TestCaseError> {
        let Self { identity, largest, eager, random, eager_first } = self;
        let mut tables = Tables::with_limit(usize::MAX);
        let mut stage2 = SecondStage::<F>::new(&mut tables, *largest).unwrap();
        if *eager_first {
            identity.map_range(&mut stage2, &mut tables, eager.clone()).unwrap();
        }
        for &gpa in random {
            let size = identity.map_on_touch(&mut stage2, &mut tables, Gpa(gpa)).unwrap();
            let expected = identity.page_at(Gpa(gpa), *largest).map(|(_, size, _)| size);
            prop_assert_eq!(size, expected);
            prop_assert_eq!(answer(&stage2, &tables, Gpa(gpa)), model(identity, Gpa(gpa)));
        }
        if !*eager_first {
            identity.map_range(&mut stage2, &mut tables, eager.clone()).unwrap();
        }
        for page in (eager.start.align_down(PAGE_SIZE).0..eager.end.0).step_by(PAGE_SIZE as usize).map(Gpa) {
            prop_assert_eq!(answer(&stage2, &tables, page), model(identity, page));
        }
        for gpa in probes(identity, random) {
            let answer = answer(&stage2, &tables, gpa);
            prop_assert!(answer.is_none() || answer == model(identity, gpa));
        }
        stage2.clear(&mut tables);
        prop_assert_eq!(tables.tables.len(), 1);
        prop_assert!(tables.tables[&stage2.root().0].iter().all(|&entry| entry == 0));
        Ok(())
    }
}

/// Other types for what is mapped, with `spare` frames for it.
fn change_types<F: Format>(
    identity: &Identity,
    new: &Mtrrs,
    random: &[u64],
    spare: usize,
) -> Result<(), TestCaseError> {
    let mut tables = Tables::with_limit(usize::MAX);
    let mut stage2 = SecondStage::<F>::new(&mut tables, PageSize::Size1G).unwrap();
    for &gpa in random {
        identity.map_on_touch(&mut stage2, &mut tables, Gpa(gpa)).unwrap();
    }
    let before: Vec<_> = tables.tables.keys().copied().collect();
    tables.limit.set(before.len().saturating_add(spare));
    let probes = probes(identity, random);
    let mapped: Vec<_> = probes.iter().map(|gpa| answer(&stage2, &tables, *gpa)).collect();
    let changed = Identity { mtrrs: new.clone(), ..identity.clone() };
    stage2.retype(&mut tables, &|page| changed.uniform_type(page));
    prop_assert!(before.iter().all(|table| tables.tables.contains_key(table)), "a table was freed");
    for (gpa, old) in probes.into_iter().zip(mapped) {
        let expected = old.map(|(page, _)| (page, new.type_at(Hpa(page.0 & !identity.alias))));
        let got = answer(&stage2, &tables, gpa);
        let unknown = got.map(|(page, _)| (page, MemoryType::Uncacheable));
        prop_assert!(
            got == expected || spare < usize::MAX && got == old.and(unknown),
            "{gpa} {got:?} {expected:?}"
        );
        let place = Gpa(gpa.0 & !identity.alias);
        let watched = identity.watched == Some(place.align_down(PAGE_SIZE));
        let allowed = if watched { PageAccess::READ } else { PageAccess::all() };
        prop_assert_eq!(stage2.access(&tables, gpa), old.map(|_| allowed));
    }
    Ok(())
}

fn run_out_of_frames<F: Format>(
    identity: &Identity,
    limit: usize,
    random: &[u64],
) -> Result<(), TestCaseError> {
    let mut tables = Tables::with_limit(limit);
    let Ok(mut stage2) = SecondStage::<F>::new(&mut tables, PageSize::Size2M) else {
        prop_assert_eq!(limit, 0);
        return Ok(());
    };
    let mut mapped = Vec::new();
    for &gpa in random {
        match identity.map_on_touch(&mut stage2, &mut tables, Gpa(gpa)) {
            Ok(Some(_)) => mapped.push(Gpa(gpa)),
            Ok(None) => {}
            Err(MapError::OutOfTables) => prop_assert_eq!(tables.tables.len(), limit),
            Err(error) => prop_assert_eq!(error, MapError::OutOfReach(Gpa(gpa))),
        }
        for &gpa in &mapped {
            prop_assert_eq!(answer(&stage2, &tables, gpa), model(identity, gpa));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pages_have_one_type_avoid_hidden_memory_and_are_the_largest(
        identity in identity(),
        largest in largest(),
        random in prop::collection::vec(0..END, 20),
    ) {
        let pages = |base: u64, size: PageSize| {
            // Every page of the small ones, and a share of the huge one.
            let step = if size == PageSize::Size1G { 33 } else { 1 };
            (base..base + size.bytes()).step_by(step * PAGE_SIZE as usize).map(Gpa)
        };
        for gpa in probes(&identity, &random) {
            let Some((base, size, memory_type)) = identity.page_at(gpa, largest) else {
                prop_assert_eq!(model(&identity, gpa), None);
                continue;
            };
            prop_assert!(size <= largest && base == gpa.align_down(size.bytes()));
            let moved = identity.moved.as_ref().filter(|_| size == PageSize::Size4K);
            for page in pages(base.0, size) {
                let own = Gpa(page.0 & !identity.alias);
                let place = moved.and_then(|moved| moved.place(own)).unwrap_or(page.identity());
                prop_assert_eq!(model(&identity, page), Some((place, memory_type)));
            }
            if size == PageSize::Size4K && largest > size {
                let above = gpa.align_down(PageSize::Size2M.bytes());
                let same = |page| model(&identity, page) == Some((page.identity(), memory_type));
                let place = Gpa(above.0 & !identity.alias);
                let watched = identity.watched.is_some_and(|page| page.align_down(2 * MIB) == place);
                prop_assert!(watched || !pages(above.0, PageSize::Size2M).all(same));
            }
        }
    }

    #[test]
    fn translation_does_not_depend_on_when_pages_are_mapped(
        identity in identity(),
        largest in prop::sample::select(vec![PageSize::Size1G, PageSize::Size2M]),
        start in 0..END,
        length in 0..64 * MIB,
        random in prop::collection::vec(0..END, 30),
        eager_first: bool,
    ) {
        let touches = Touches { identity, largest, eager: Gpa(start)..Gpa(start + length), random, eager_first };
        touches.check::<Ept>()?;
        touches.check::<Npt>()?;
    }

    #[test]
    fn types_change_in_place(
        identity in identity(),
        new in mtrrs(),
        random in prop::collection::vec(0..END, 20),
        spare in prop_oneof![Just(usize::MAX), 0usize..3],
    ) {
        change_types::<Ept>(&identity, &new, &random, spare)?;
        change_types::<Npt>(&identity, &new, &random, spare)?;
    }

    #[test]
    fn running_out_of_frames_is_an_error_and_keeps_mapped_pages(
        identity in identity(),
        limit in 0usize..8,
        random in prop::collection::vec(any::<u64>(), 20),
    ) {
        run_out_of_frames::<Ept>(&identity, limit, &random)?;
        run_out_of_frames::<Npt>(&identity, limit, &random)?;
    }
}

fn empty<F: Format>(largest: PageSize) -> (Tables, SecondStage<F>) {
    let mut tables = Tables::with_limit(usize::MAX);
    let stage2 = SecondStage::new(&mut tables, largest).unwrap();
    (tables, stage2)
}

#[test]
fn large_page_is_mapped_small_where_tables_exist() {
    go_down::<Ept>();
    go_down::<Npt>();
}

/// Returns the page around `gpa` in the identity map.
fn same(gpa: Gpa, size: PageSize, memory_type: MemoryType) -> Leaf {
    Leaf::new(gpa.identity(), size, memory_type)
}

fn go_down<F: Format>() {
    let (mut tables, mut stage2) = empty::<F>(PageSize::Size1G);
    let (decoy, wb) = (Hpa(0x70_0000), MemoryType::WriteBack);
    stage2.map(&mut tables, Gpa(0x20_1000), Leaf::new(decoy, PageSize::Size4K, wb)).unwrap();
    let gpa = Gpa(0x20_5000);
    assert_eq!(stage2.map(&mut tables, gpa, same(gpa, PageSize::Size1G, wb)), Ok(PageSize::Size4K));
    let gpa = Gpa(0x40_5000);
    assert_eq!(stage2.map(&mut tables, gpa, same(gpa, PageSize::Size1G, wb)), Ok(PageSize::Size2M));
    let at = |gpa| stage2.translate(&tables, Gpa(gpa));
    assert_eq!(at(0x20_1234), Some((decoy + 0x234, PageSize::Size4K, wb)));
    assert_eq!(at(0x20_5678), Some((Hpa(0x20_5678), PageSize::Size4K, wb)));
    assert_eq!(at(0x40_0000), Some((Hpa(0x40_0000), PageSize::Size2M, wb)));
    assert_eq!(at(0x20_2000), None);
}

#[test]
fn larger_page_that_is_mapped_is_kept() {
    keep::<Ept>();
    keep::<Npt>();
}

fn keep<F: Format>() {
    let (mut tables, mut stage2) = empty::<F>(PageSize::Size2M);
    let (wb, uc) = (MemoryType::WriteBack, MemoryType::Uncacheable);
    let gpa = Gpa(0x4000_3000);
    assert_eq!(stage2.map(&mut tables, gpa, same(gpa, PageSize::Size1G, wb)), Ok(PageSize::Size2M));
    assert_eq!(stage2.map(&mut tables, gpa, same(gpa, PageSize::Size4K, wb)), Ok(PageSize::Size2M));
    let differs = stage2.map(&mut tables, gpa, same(gpa, PageSize::Size4K, uc));
    assert_eq!(differs, Err(MapError::Occupied(gpa)));
    let far = Gpa(1 << 48);
    assert_eq!(stage2.map(&mut tables, far, same(far, PageSize::Size4K, wb)), Err(MapError::OutOfReach(far)));
    assert_eq!(stage2.translate(&tables, far), None);
}

#[test]
fn filling_takes_no_frame_and_is_kept() {
    fill::<Ept>();
    fill::<Npt>();
}

fn fill<F: Format>() {
    let (mut tables, mut stage2) = empty::<F>(PageSize::Size1G);
    let (page, wb) = (Hpa(0x70_0000), MemoryType::WriteBack);
    stage2.fill_with(&mut tables, page).unwrap();
    let kept = Gpa(0x20_5000);
    stage2.map(&mut tables, kept, same(kept, PageSize::Size4K, wb)).unwrap();
    tables.limit.set(tables.tables.len());
    let before = tables.tables.len();
    let filled = |stage2: &SecondStage<F>, tables: &Tables, gpa: u64| {
        stage2.translate(tables, Gpa(gpa)) == Some((page + gpa % PAGE_SIZE, PageSize::Size4K, wb))
    };
    // In a table of each level there is one entry with something below it, and each fills what is beside that.
    for gpa in [0x20_6789, 0x40_1000, 0x1_4000_0000, 0x12_3456_789a_bcde >> 5, (1 << 48) - 1] {
        stage2.fill(&mut tables, Gpa(gpa));
        assert!(filled(&stage2, &tables, gpa), "{gpa:#x}");
        // Another CPU has touched it as well: one finds the tables that fill in its way, or a page of its own.
        stage2.fill(&mut tables, Gpa(gpa));
        assert!(filled(&stage2, &tables, gpa), "{gpa:#x}");
    }
    for gpa in [0x40_1000, 0x1_4000_0000, (1 << 48) - PAGE_SIZE] {
        let page = same(Gpa(gpa), PageSize::Size4K, wb);
        assert_eq!(stage2.map(&mut tables, Gpa(gpa), page), Ok(PageSize::Size4K));
        assert!(filled(&stage2, &tables, gpa), "{gpa:#x}");
    }
    stage2.fill(&mut tables, kept);
    assert_eq!(stage2.translate(&tables, kept), Some((kept.identity(), PageSize::Size4K, wb)));
    stage2.retype(&mut tables, &|range| (range.start != page).then_some(MemoryType::Uncacheable));
    assert!(filled(&stage2, &tables, 0x40_1000), "the page's place has no type");
    assert_eq!(tables.tables.len(), before);
    stage2.clear(&mut tables);
    assert_eq!(tables.tables.len(), 4, "the root and the tables that fill");
    stage2.fill(&mut tables, Gpa(0x40_1000));
    assert!(filled(&stage2, &tables, 0x40_1000));
}
