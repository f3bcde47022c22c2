//! Places random kernels and initrds in random machines, and carries the placements out on a small simulated memory.

use std::ops::Range;

use proptest::prelude::*;
use vidar_core::linux::bzimage::BzImage;
use vidar_core::linux::placement::{Placement, PlacementError, Request, place};
use vidar_core::mem::addr::{Hpa, PAGE_SIZE, overlaps};
use vidar_core::mem::map::{MemoryKind, MemoryMap, MemoryRegion};

const MIB: u64 = 1 << 20;
const TOP: u64 = 24 * MIB;
/// The size in bytes of a unit of the simulated memory. It is a sector, since a kernel's payload begins at a sector.
const UNIT: u64 = 512;
const ALL: Range<Hpa> = Hpa(0)..Hpa(TOP);

/// Returns a kernel whose payload begins at the third sector of its file.
fn kernel(payload: usize, more: u64, pref_address: u64, alignment: u64, relocatable: bool) -> BzImage {
    let mut file = vec![0; 3 * 512 + payload];
    let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[2]);
    put(0x1f4, &(payload as u32 / 16).to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS\x0f\x02");
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &(alignment as u32).to_le_bytes());
    put(0x234, &[u8::from(relocatable)]);
    put(0x258, &pref_address.to_le_bytes());
    put(0x260, &(payload as u32 + more as u32).to_le_bytes());
    BzImage::parse(&file).unwrap()
}

#[derive(Debug, Clone)]
struct Machine {
    map: MemoryMap<'static>,
    hidden: Range<Hpa>,
    keep: Vec<Range<Hpa>>,
    kernel: BzImage,
    kernel_module: Range<Hpa>,
    information: Range<Hpa>,
    initrds: Vec<Range<Hpa>>,
    handover_size: u64,
}

impl Machine {
    fn place(&self) -> Result<Placement, PlacementError> {
        place(&Request {
            map: &self.map,
            hidden: self.hidden.clone(),
            keep: self.keep.iter().cloned(),
            information: self.information.clone(),
            kernel: &self.kernel,
            kernel_module: self.kernel_module.clone(),
            initrds: self.initrds.iter().cloned(),
            handover_size: self.handover_size,
        })
    }
}

/// Takes `size` bytes out of the free memory, at a page that `choice` picks.
fn take(free: &mut vidar_core::mem::ranges::RangeSet, size: u64, choice: u64) -> Option<Range<Hpa>> {
    let at = Hpa(choice % TOP);
    let start = free
        .lowest_fit(size, PAGE_SIZE, &(at..Hpa(TOP)))
        .or_else(|| free.lowest_fit(size, PAGE_SIZE, &ALL))?;
    let range = start..start + size;
    free.remove(&range);
    Some(range)
}

/// Returns a machine as GRUB leaves it: all that GRUB has loaded is in usable memory, and nothing overlaps.
fn machine() -> impl Strategy<Value = Machine> {
    let holes = prop::collection::vec((0..TOP / PAGE_SIZE, 1u64..64), 0..5);
    let kernel = (1usize..6000, 0..4 * MIB, 0u64..12, 12u32..22, prop::bool::weighted(0.8)).prop_map(
        |(sectors, more, at, shift, relocatable)| {
            kernel(sectors * 512, more, at * MIB, 1 << shift, relocatable)
        },
    );
    let places = prop::collection::vec(any::<u64>(), 8);
    let initrds = prop::collection::vec((0..3 * MIB, any::<bool>(), any::<u64>()), 0..4);
    (3 * MIB..TOP, holes, kernel, initrds, 1u64..6, places, any::<[bool; 2]>()).prop_filter_map(
        "the modules do not fit",
        |(top, holes, kernel, parts, handover_pages, places, [keep, low])| {
            let region = |start, end, kind| MemoryRegion { range: Hpa(start)..Hpa(end), kind };
            let ram = [region(0, 0x9_f000, MemoryKind::Usable), region(MIB, top, MemoryKind::Usable)];
            let holes = holes.into_iter().map(|(page, pages)| {
                region(page * PAGE_SIZE, (page + pages) * PAGE_SIZE, MemoryKind::AcpiNvs)
            });
            let ram = ram.into_iter().skip(usize::from(!low));
            let map = MemoryMap::from_regions(ram.chain(holes));
            let mut free = map.usable();
            free.remove(&(Hpa(0)..Hpa(0x1000)));
            let hidden = take(&mut free, (1 + places[0] % 512) * PAGE_SIZE, places[1])?;
            let keep = if keep { vec![take(&mut free, PAGE_SIZE, places[2])?] } else { Vec::new() };
            let file_size = kernel.payload.end as u64 + places[3] % 2 * UNIT;
            let kernel_module = take(&mut free, file_size, places[4])?;
            let information = take(&mut free, 2 * PAGE_SIZE, places[5])?;
            let count = parts.len();
            // All parts but the last end with a unit, so that each begins with one. Parts often follow each other
            // directly.
            let parts = parts.into_iter().enumerate().map(|(index, (size, unaligned, place))| {
                let size = if index + 1 < count { size / UNIT * UNIT } else { size };
                let start = if unaligned { UNIT } else { 0 };
                let place = if places[6] % 2 == 0 { places[7] } else { place };
                let taken = take(&mut free, start + size, place)?;
                Some(taken.start + start..taken.end)
            });
            let initrds = parts.collect::<Option<Vec<_>>>()?;
            let handover_size = handover_pages * PAGE_SIZE;
            Some(Machine { map, hidden, keep, kernel, kernel_module, information, initrds, handover_size })
        },
    )
}

fn units(range: &Range<Hpa>) -> Range<usize> {
    (range.start.0 / UNIT) as usize..range.end.0.div_ceil(UNIT) as usize
}

/// Fills a range with marks that differ from unit to unit and from range to range.
fn marks(kind: u32, range: &Range<Hpa>) -> Vec<u32> {
    (0..units(range).len() as u32).map(|at| kind << 24 | at).collect()
}

fn check(machine: &Machine, placement: &Placement) {
    let kernel = &machine.kernel;
    let run = placement.kernel_run.clone();
    let handover = placement.handover..placement.handover + machine.handover_size;
    let page_end = |range: &Range<Hpa>| range.start..range.end.align_up(PAGE_SIZE).unwrap();
    let initrd = placement.initrd.as_ref().map(page_end);

    let mut finals = vec![run.clone(), handover.clone()];
    finals.extend(initrd.clone());
    let mut usable = machine.map.usable();
    usable.remove(&machine.hidden);
    for (place, range) in finals.iter().enumerate() {
        assert!(usable.covers(range), "{range:?} is not usable");
        assert!(finals[..place].iter().all(|other| !overlaps(range, other)), "{finals:?}");
    }
    assert_eq!((run.start, run.end), (placement.kernel, placement.kernel + kernel.init_size));
    assert!(run.end <= Hpa(1 << 32) && handover.end <= Hpa(1 << 32));
    assert!(placement.handover.is_aligned(PAGE_SIZE));
    if kernel.relocatable {
        assert!(run.start.is_aligned(kernel.alignment) && run.start >= kernel.pref_address.max(Hpa(MIB)));
    } else {
        assert_eq!(run.start, kernel.pref_address);
    }
    if let Some(initrd) = &initrd {
        assert!(initrd.start.is_aligned(PAGE_SIZE) && initrd.end.0 <= kernel.initrd_addr_max.0 + 1);
    }

    // Carry the placement out. The block is written first here, which must give the same result as writing it last.
    let payload_start = machine.kernel_module.start + kernel.payload.start as u64;
    let payload = payload_start..payload_start + kernel.payload.len() as u64;
    let mut memory = vec![0u32; (TOP / UNIT) as usize];
    let mut kept = vec![machine.hidden.clone()];
    kept.extend(machine.keep.iter().cloned());
    let mut write = |kind, range: &Range<Hpa>| memory[units(range)].copy_from_slice(&marks(kind, range));
    for range in &kept {
        write(1, range);
    }
    write(2, &payload);
    for (kind, module) in (16..).zip(&machine.initrds) {
        write(kind, module);
    }
    write(3, &machine.information);
    write(4, &handover);
    let mut moves = placement.moves(machine.initrds.iter().cloned()).peekable();
    while let Some(step) = moves.next() {
        memory.copy_within(units(&step.from), (step.to.0 / UNIT) as usize);
        assert_eq!(step.zeros, 0, "the parts begin with units");
        // The modules' places are still read until the kernel's code is moved.
        if moves.peek().is_some() {
            let marks = marks(3, &machine.information);
            assert_eq!(&memory[units(&machine.information)], marks, "the information is gone");
        }
    }
    let holds = |kind, range: &Range<Hpa>, source: &Range<Hpa>| {
        assert_eq!(&memory[units(range)], marks(kind, source), "mark {kind} at {range:?}");
    };
    for range in &kept {
        holds(1, range, range);
    }
    holds(2, &(run.start..run.start + kernel.payload.len() as u64), &payload);
    let mut next = placement.initrd.as_ref().map_or(Hpa(0), |initrd| initrd.start);
    for (kind, module) in (16..).zip(&machine.initrds).filter(|(_, module)| !module.is_empty()) {
        let end = next + (module.end.0 - module.start.0);
        holds(kind, &(next..end), module);
        next = end;
    }
    assert_eq!(placement.initrd.as_ref().map_or(Hpa(0), |initrd| initrd.end), next);
    holds(4, &handover, &handover);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn moves_bring_everything_to_its_place(machine in machine()) {
        match machine.place() {
            Ok(placement) => check(&machine, &placement),
            Err(error) => {
                let sentence = error.to_string();
                prop_assert!(sentence.contains(": ") && !sentence.ends_with('.'), "{}", sentence);
            }
        }
    }

    #[test]
    fn preferred_places_are_used_if_they_are_free(machine in machine()) {
        let kernel = &machine.kernel;
        let preferred = kernel.pref_address.max(Hpa(MIB)).align_up(kernel.alignment).unwrap();
        let run = preferred..preferred + kernel.init_size;
        let mut free = machine.map.usable();
        free.remove(&machine.hidden);
        machine.keep.iter().for_each(|range| free.remove(range));
        let modules: Vec<_> = machine.initrds.iter().filter(|module| !module.is_empty()).collect();
        let page_end = |module: &Range<Hpa>| module.start.align_down(PAGE_SIZE)..module.end.align_up(PAGE_SIZE).unwrap();
        let beside = modules.iter().all(|module| !overlaps(&run, &page_end(module)));
        if let Ok(placement) = machine.place() {
            if kernel.relocatable && free.covers(&run) && beside {
                prop_assert_eq!(placement.kernel, preferred);
            }
            if let (Some(initrd), [module]) = (&placement.initrd, &modules[..]) {
                let module = module.start..page_end(module).end;
                // Linux uses RAM in whole pages, so an initrd whose last page is not RAM up to its end has to move.
                let mut ram = machine.map.usable();
                ram.remove(&machine.hidden);
                let whole = module.start.is_aligned(PAGE_SIZE) && ram.covers(&module);
                let stays = whole && !overlaps(&placement.kernel_run, &module);
                prop_assert_eq!(initrd.start == module.start, stays);
                let moves = placement.moves(machine.initrds.iter().cloned()).count();
                prop_assert_eq!(moves, if stays { 1 } else { 2 });
            }
        }
    }

    #[test]
    fn no_input_panics(
        regions in prop::collection::vec((any::<u64>(), any::<u64>(), 0u32..4), 0..6),
        hidden in any::<(u64, u64)>(),
        modules in any::<[u64; 4]>(),
        handover_size: u64,
        pref_address: u64,
        init_size: u64,
        relocatable: bool,
    ) {
        let range = |start, end| Hpa(start)..Hpa(end);
        let mut kernel = kernel(512, 0, 0, 4096, relocatable);
        kernel.pref_address = Hpa(pref_address);
        kernel.init_size = init_size;
        let map = MemoryMap::from_regions(regions.into_iter().map(|(base, length, kind)| {
            MemoryRegion::new(Hpa(base), length, MemoryKind::from_raw(kind))
        }));
        let _ = place(&Request {
            map: &map,
            hidden: range(hidden.0, hidden.1),
            keep: [range(hidden.1, hidden.0)].into_iter(),
            information: range(modules[1], modules[2]),
            kernel: &kernel,
            kernel_module: range(modules[0], modules[1]),
            initrds: [range(modules[2], modules[3]), range(modules[3], modules[1])].into_iter(),
            handover_size,
        });
    }
}

/// Returns a machine with 64 MiB of RAM and Vidar at 2 MiB. The kernel wants to be at 16 MiB, and its modules are
/// there.
fn usual() -> Machine {
    let ram = |start, end| MemoryRegion { range: Hpa(start)..Hpa(end), kind: MemoryKind::Usable };
    Machine {
        map: MemoryMap::from_regions([ram(0, 0x9_fc00), ram(MIB, 64 * MIB)]),
        hidden: Hpa(2 * MIB)..Hpa(6 * MIB),
        keep: vec![Hpa(0x8000)..Hpa(0x9000)],
        kernel: kernel(512 << 10, 8 * MIB, 16 * MIB, 2 * MIB, true),
        kernel_module: Hpa(15 * MIB)..Hpa(16 * MIB),
        information: Hpa(0x2_0000)..Hpa(0x2_1000),
        initrds: vec![Hpa(17 * MIB)..Hpa(19 * MIB + 1)],
        handover_size: 0x3000,
    }
}

#[test]
fn placement_in_an_ordinary_machine() {
    let placement = usual().place().unwrap();
    assert_eq!(placement.kernel, Hpa(16 * MIB));
    assert_eq!(placement.handover, Hpa(0x1_0000));
    let initrd = Hpa(62 * MIB - PAGE_SIZE);
    assert_eq!(placement.initrd, Some(initrd..initrd + 2 * MIB + 1));
    let moves: Vec<_> = placement.moves(usual().initrds.into_iter()).collect();
    assert_eq!(moves[0].to, initrd);
    assert_eq!(moves[1].from.start, Hpa(15 * MIB + 3 * 512));
}

#[test]
fn parts_of_an_initrd_are_joined() {
    let (first, empty, second) = (Hpa(30 * MIB), Hpa(31 * MIB), Hpa(32 * MIB));
    let initrds =
        vec![first..first + 5, empty..empty, second..second + MIB + 1, Hpa(40 * MIB)..Hpa(41 * MIB)];
    let machine = Machine { initrds: initrds.clone(), ..usual() };
    let placement = machine.place().unwrap();
    assert_eq!(placement.initrd, Some(first..first + 8 + MIB + 4 + MIB));
    let moves: Vec<_> =
        placement.moves(initrds.into_iter()).map(|step| (step.from.start, step.to, step.zeros)).collect();
    let payload = Hpa(15 * MIB + 3 * 512);
    assert_eq!(
        moves,
        [
            (first, first, 3),
            (second, first + 8, 3),
            (Hpa(40 * MIB), first + 8 + MIB + 4, 0),
            (payload, placement.kernel, 0),
        ],
        "each begins at a multiple of 4"
    );
    // In the opposite order they cannot be moved together.
    let machine = Machine { initrds: vec![second..second + MIB, first..first + 5], ..usual() };
    let placement = machine.place().unwrap();
    assert_eq!(placement.initrd, Some(Hpa(63 * MIB - PAGE_SIZE)..Hpa(64 * MIB - PAGE_SIZE + 5)));
}

#[test]
fn kernel_is_placed_beside_vidar() {
    let machine = Machine { hidden: Hpa(16 * MIB)..Hpa(17 * MIB), initrds: Vec::new(), ..usual() };
    assert_eq!(machine.place().unwrap().kernel, Hpa(18 * MIB));
    let fixed = Machine { kernel: kernel(512, MIB, 16 * MIB, 0, false), ..machine };
    let error = fixed.place().expect_err("Vidar is there");
    assert_eq!(error, PlacementError::FixedKernel { at: Hpa(16 * MIB), needed: MIB + 512 });
}

#[test]
fn an_initrd_that_cannot_move_moves_the_kernel() {
    let ram = MemoryRegion { range: Hpa(MIB)..Hpa(45 * MIB), kind: MemoryKind::Usable };
    let low = MemoryRegion { range: Hpa(0)..Hpa(0x9_f000), kind: MemoryKind::Usable };
    let machine = Machine {
        map: MemoryMap::from_regions([low, ram]),
        kernel_module: Hpa(14 * MIB)..Hpa(15 * MIB),
        initrds: vec![Hpa(15 * MIB)..Hpa(36 * MIB)],
        ..usual()
    };
    let placement = machine.place().unwrap();
    let moves = placement.moves(machine.initrds.iter().cloned()).count();
    assert_eq!((placement.kernel, moves), (Hpa(36 * MIB), 1));
}

#[test]
fn errors_say_how_much_is_missing() {
    let small =
        MemoryMap::from_regions([MemoryRegion { range: Hpa(MIB)..Hpa(20 * MIB), kind: MemoryKind::Usable }]);
    let machine = Machine { map: small, initrds: Vec::new(), ..usual() };
    assert_eq!(
        machine.place().expect_err("too small").to_string(),
        "too little memory for the kernel: it needs 9 MiB in one piece between 16 MiB and 4 GiB, and of the machine's \
         19 MiB the largest free piece there has 4 MiB: give the machine more memory or use a smaller kernel"
    );
    let machine = Machine { initrds: vec![Hpa(17 * MIB)..Hpa(64 * MIB)], ..usual() };
    assert_eq!(
        machine.place().expect_err("the initrd is too large").to_string(),
        "too little memory for the initrd: it needs 47 MiB in one piece below 2048 MiB, and of the machine's 63 MiB \
         the largest free piece there has 39 MiB: give the machine more memory or use a smaller initrd"
    );
}
