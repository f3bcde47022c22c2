//! Locked memory, against a model that has a set of locked pages.

use std::collections::BTreeSet;

use vidar_core::mem::locks::{Lock, Locks};
use vidar_core::mem::ranges::RangeSet;
use vidar_core::vmm::memory::GuestMemory;

use super::*;

/// The end of the guest's RAM in these tests.
const RAM: u64 = 64 * MIB;

/// Something that happens to the guest's memory.
#[derive(Debug, Clone)]
enum Event {
    /// The guest touches an address.
    Touch(u64),
    /// The guest writes to an address. A write to locked code opens its page.
    Write(u64),
    /// The MTRRs change.
    Follow(Box<Mtrrs>),
    /// Memory is locked, if none has been locked before.
    Lock(Locks),
    /// Opened pages are closed.
    LockAgain,
}

/// A range of up to 5 MiB, often with an edge of a large page.
fn range() -> impl Strategy<Value = Range<Gpa>> {
    let edge = prop_oneof![(0..RAM / MIB).prop_map(|at| at * MIB), 0..RAM];
    (edge, prop_oneof![Just(0u64), 1..64 * PAGE_SIZE, 0..5 * MIB])
        .prop_map(|(start, length)| Gpa(start)..Gpa(start + length))
}

fn event() -> impl Strategy<Value = Event> {
    let locks = (range(), range(), range()).prop_map(|(one, other, text)| Locks::new([one, other], text));
    let address = || prop_oneof![0..RAM, (0..RAM).prop_map(|at| at | ALIAS), 0..END];
    prop_oneof![
        3 => address().prop_map(Event::Touch),
        3 => address().prop_map(Event::Write),
        2 => mtrrs().prop_map(|mtrrs| Event::Follow(Box::new(mtrrs))),
        2 => locks.prop_map(Event::Lock),
        1 => Just(Event::LockAgain),
    ]
}

/// The pages that are locked, as a set of their numbers, and those of them that are open.
#[derive(Default)]
struct Model {
    data: BTreeSet<u64>,
    text: BTreeSet<u64>,
    open: BTreeSet<u64>,
}

impl Model {
    fn lock(&mut self, locks: &Locks) {
        let ranges: Vec<_> = locks.ranges().collect();
        let pages = |range: &Range<Gpa>| range.start.0 / PAGE_SIZE..range.end.0 / PAGE_SIZE;
        self.data = ranges[..2].iter().flat_map(|range| pages(range)).collect();
        self.text = pages(ranges[2]).collect();
        self.open.clear();
    }

    fn denies(&self, identity: &Identity, gpa: u64) -> Option<Lock> {
        let page = (gpa & !identity.alias) / PAGE_SIZE;
        if self.data.contains(&page) {
            Some(Lock::Data)
        } else {
            // A page is opened at one of its addresses, and stays locked at the other.
            (self.text.contains(&page) && !self.open.contains(&(gpa / PAGE_SIZE))).then_some(Lock::Text)
        }
    }
}

fn check<F: Format>(identity: &Identity, shared: bool, events: &[Event]) -> Result<(), TestCaseError> {
    let largest = PageSize::Size1G;
    let ram: RangeSet = [Hpa(0)..Hpa(RAM)].into();
    let frames = Tables::with_limit(usize::MAX);
    let mut memory = GuestMemory::<F, _>::new(frames, largest, identity.clone(), ram, shared).unwrap();
    let mut model = Model::default();
    let mut probes: Vec<u64> = probes(identity, &[]).iter().map(|gpa| gpa.0).collect();
    for event in events {
        match event {
            Event::Touch(gpa) => {
                memory.touch(Gpa(*gpa));
                probes.push(*gpa);
            }
            Event::Write(gpa) => {
                memory.touch(Gpa(*gpa));
                if memory.denies_write(Gpa(*gpa)) == Some(Lock::Text) {
                    memory.open(Gpa(*gpa));
                    model.open.insert(gpa / PAGE_SIZE);
                }
                probes.push(*gpa);
            }
            Event::Follow(mtrrs) => {
                // On one CPU everything is mapped anew, and what was open is locked again.
                if memory.follow((**mtrrs).clone()) && !shared {
                    model.open.clear();
                }
            }
            Event::Lock(_) if memory.identity().locks != Locks::default() => {}
            Event::Lock(locks) => {
                memory.lock(locks.clone()).unwrap();
                model.lock(locks);
                let edges = locks.ranges().flat_map(|range| [range.start.0, range.end.0]);
                probes.extend(edges.flat_map(|edge| [edge.saturating_sub(1), edge, edge | ALIAS]));
            }
            Event::LockAgain => {
                memory.lock_again().unwrap();
                model.open.clear();
            }
        }
        for gpa in probes.iter().map(|at| Gpa(*at)) {
            let Some(access) = memory.access(gpa) else { continue };
            let place = Gpa(gpa.0 & !identity.alias);
            let watched = identity.watched == Some(place.align_down(PAGE_SIZE));
            let hidden = identity.hides(gpa);
            let denies = model.denies(identity, gpa.0).filter(|_| !hidden);
            let expected =
                if denies.is_some() || watched && !hidden { PageAccess::READ } else { PageAccess::all() };
            let execute = PageAccess::EXECUTE;
            prop_assert_eq!(access - execute, expected - execute, "{} after {:?}", gpa, event);
            prop_assert_eq!(memory.denies_write(gpa), denies, "{} after {:?}", gpa, event);
            let (page, _, memory_type) = memory.translate(gpa).unwrap();
            if !hidden {
                let current = memory.identity();
                prop_assert_eq!(Some((page, memory_type)), super::model(current, gpa), "{}", gpa);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn locked_memory_stays_locked_and_other_memory_keeps_its_rights_and_types(
        identity in identity().prop_filter("what is locked is not moved", |identity| identity.moved.is_none()),
        shared: bool,
        events in prop::collection::vec(event(), 1..24),
    ) {
        check::<Ept>(&identity, shared, &events)?;
        check::<Npt>(&identity, shared, &events)?;
    }
}

/// The identity map in which these ranges are hidden, and nothing else is special.
fn plain(hidden: RangeSet) -> Identity {
    Identity {
        mtrrs: Mtrrs::write_back(),
        hidden,
        watched: None,
        moved: None,
        locks: Locks::default(),
        alias: 0,
    }
}

#[test]
fn the_decoy_is_never_locked() {
    decoy::<Ept>();
    decoy::<Npt>();
}

fn decoy<F: Format>() {
    let hidden = Gpa(2 * MIB);
    let identity = plain([hidden.identity()..hidden.identity() + PAGE_SIZE].into());
    let ram: RangeSet = [Hpa(0)..Hpa(RAM)].into();
    let tables = Tables::with_limit(usize::MAX);
    let mut memory = GuestMemory::<F, _>::new(tables, PageSize::Size1G, identity, ram, false).unwrap();
    memory.touch(hidden);
    let (decoy, ..) = memory.translate(hidden).unwrap();
    assert_eq!(decoy, memory.decoy());
    // The guest may lock the page that has the decoy's number.
    memory.lock(Locks::new([Gpa(0)..Gpa(decoy.0 + PAGE_SIZE), Range::default()], Range::default())).unwrap();
    assert_eq!(memory.access(hidden), Some(PageAccess::all()));
    assert_eq!(memory.denies_write(hidden), None);
    assert_eq!(memory.denies_write(Gpa(0)), Some(Lock::Data));
}

#[test]
fn without_frames_nothing_is_locked() {
    run_out::<Ept>();
    run_out::<Npt>();
}

fn run_out<F: Format>() {
    let identity = plain(RangeSet::new());
    let ram: RangeSet = [Hpa(0)..Hpa(RAM)].into();
    // The range begins and ends inside of large pages.
    let (inside, ends) = (Gpa(0x123_4000), [Gpa(0x123_0000), Gpa(0x345_6000)]);
    let locks = Locks::new([ends[0]..ends[1], Range::default()], Range::default());
    let mut locked = 0;
    for spare in 0..5 {
        let frames = Tables::with_limit(usize::MAX);
        let mut memory =
            GuestMemory::<F, _>::new(frames, PageSize::Size1G, identity.clone(), ram.clone(), true).unwrap();
        let used = memory.tables().tables.len();
        memory.tables().limit.set(used + spare);
        let result = memory.lock(locks.clone());
        if let Ok(tables) = &result {
            assert_eq!((*tables, memory.tables().tables.len()), (3, used + 3));
        }
        let denied = memory.denies_write(inside);
        assert_eq!(result.is_ok(), denied.is_some(), "{spare} frames");
        assert_eq!(memory.access(ends[1]), Some(PageAccess::all()));
        assert_eq!(memory.access(Gpa(0x200_0000)).unwrap().contains(PageAccess::WRITE), result.is_err());
        locked += usize::from(result.is_ok());
    }
    assert_eq!(locked, 2, "three frames are needed: one for pages of 2 MiB, and two for small ones");
}
