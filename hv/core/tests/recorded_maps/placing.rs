//! Places a kernel of Debian's size in the memory of real machines, with its modules and Vidar at all places that are
//! possible.

use std::ops::Range;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;
use vidar_core::firmware::efi_map;
use vidar_core::linux::bzimage::BzImage;
use vidar_core::linux::placement::{Placement, PlacementError, Request, place};
use vidar_core::mem::addr::{Hpa, PAGE_SIZE, overlaps};
use vidar_core::mem::map::MemoryMap;
use vidar_core::mem::ranges::RangeSet;

use crate::recorded::{self, BELOW_4G, DESCRIPTOR, MIB, Machine, encode};
use crate::told::disturbed;

/// Returns the header of Debian's generic kernel 6.1, with a file of the same length.
pub static DEBIAN: LazyLock<BzImage> = LazyLock::new(|| {
    let mut file = vec![0; KERNEL_FILE as usize];
    let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[39]);
    put(0x1f4, &(0x7d_8200u32 / 16).to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS\x0f\x02");
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x3f9_8000u32.to_le_bytes());
    BzImage::parse(&file).unwrap()
});

const KERNEL_FILE: u64 = 0x7d_d800;
/// The sizes of two initrds: Debian's with all its modules, and one of a few bytes.
const INITRD: u64 = 38 * MIB + 77;
const HANDOVER: u64 = 0x5000;

/// The order in which a boot loader chooses addresses.
#[derive(Debug)]
struct Loaded {
    map: MemoryMap<'static>,
    hidden: Range<Hpa>,
    keep: Vec<Range<Hpa>>,
    kernel_module: Range<Hpa>,
    initrd_module: Range<Hpa>,
}

impl Loaded {
    fn place(&self) -> Result<Placement, PlacementError> {
        place(&Request {
            map: &self.map,
            hidden: self.hidden.clone(),
            keep: self.keep.iter().cloned(),
            information: Hpa(0)..Hpa(0),
            kernel: &DEBIAN,
            kernel_module: self.kernel_module.clone(),
            initrds: [self.initrd_module.clone()].into_iter(),
            handover_size: HANDOVER,
        })
    }
}

fn page_end(range: &Range<Hpa>) -> Range<Hpa> {
    range.start..range.end.align_up(PAGE_SIZE).unwrap()
}

/// Takes the lowest free pages from `at` upwards, or the highest below it.
fn take(free: &mut RangeSet, size: u64, (at, up): (Hpa, bool)) -> Option<Range<Hpa>> {
    let start = if up {
        free.lowest_fit(size, PAGE_SIZE, &(at..BELOW_4G.end))
    } else {
        free.highest_fit(size, PAGE_SIZE, &(Hpa(MIB)..at))
    }?;
    free.remove(&page_end(&(start..start + size)));
    Some(start..start + size)
}

/// Places of modules relative to Vidar, to the kernel's place and to the ends of memory. From there, addresses are
/// taken upwards or downwards.
fn places(hidden: &Range<Hpa>) -> [(Hpa, bool); 7] {
    let preferred = DEBIAN.pref_address;
    let run_end = preferred + DEBIAN.init_size;
    [
        (Hpa(MIB), true),
        (preferred, false),
        (preferred, true),
        (run_end, true),
        (hidden.start, false),
        (hidden.end, true),
        (BELOW_4G.end, false),
    ]
}

/// Returns a machine with its modules at two of these places, or `None` if there is no room.
fn load(
    map: &MemoryMap<'static>,
    keep: &[Range<Hpa>],
    hidden: &Range<Hpa>,
    kernel: (Hpa, bool),
    initrd: (Hpa, bool),
) -> Option<Loaded> {
    let mut free = map.usable();
    free.remove(hidden);
    keep.iter().for_each(|range| free.remove(range));
    let kernel_module = take(&mut free, KERNEL_FILE, kernel)?;
    let initrd_module = take(&mut free, INITRD, initrd)?;
    let (map, hidden, keep) = (map.clone(), hidden.clone(), keep.to_vec());
    Some(Loaded { map, hidden, keep, kernel_module, initrd_module })
}

/// Returns all such machines.
fn loads(machine: &Machine) -> Vec<Loaded> {
    let map = machine.map();
    let keep: Vec<_> = efi_map::boot_services(&encode(&machine.descriptors), DESCRIPTOR).collect();
    let mut loads = Vec::new();
    for hidden in machine.places_of_vidar() {
        let places = places(&hidden);
        let pairs = places.iter().flat_map(|kernel| places.iter().map(move |initrd| (*kernel, *initrd)));
        loads.extend(pairs.filter_map(|(kernel, initrd)| load(&map, &keep, &hidden, kernel, initrd)));
    }
    loads
}

/// Returns the memory that the guest may use.
fn ram(loaded: &Loaded) -> RangeSet {
    let mut ram = loaded.map.usable();
    ram.remove(&loaded.hidden);
    ram
}

/// Checks that a placement keeps its promises.
fn check(loaded: &Loaded, placement: &Placement) {
    let run = placement.kernel_run.clone();
    let handover = placement.handover..placement.handover + HANDOVER;
    let initrd = placement.initrd.clone().unwrap();
    assert_eq!(run, placement.kernel..placement.kernel + DEBIAN.init_size);
    assert!(run.start >= DEBIAN.pref_address && run.start.is_aligned(DEBIAN.alignment));
    assert!(initrd.start.is_aligned(PAGE_SIZE) && initrd.end.0 <= 0x8000_0000);
    assert_eq!(initrd.end.0 - initrd.start.0, INITRD);
    assert!(handover.start.is_aligned(PAGE_SIZE));

    let finals = [run.clone(), page_end(&initrd), handover.clone()];
    let ram = ram(loaded);
    for (place, range) in finals.iter().enumerate() {
        assert!(ram.covers(range) && range.end <= BELOW_4G.end, "{range:?} is no RAM");
        assert!(finals[..place].iter().all(|other| !overlaps(range, other)), "{finals:?}");
    }

    // All writes with what each of them reads. The block's is first, since it may come at any time.
    let source = loaded.kernel_module.start;
    let payload = source + DEBIAN.payload.start as u64..source + DEBIAN.payload.end as u64;
    let mut steps = vec![(None, handover)];
    let written = |size: u64, to: Hpa| to..to + size;
    let moves: Vec<_> = placement.moves([loaded.initrd_module.clone()].into_iter()).collect();
    steps.extend(moves.iter().map(|step| {
        (Some(step.from.clone()), written(step.from.end.0 - step.from.start.0 + step.zeros, step.to))
    }));
    for (at, (from, to)) in steps.iter().enumerate() {
        let taken = loaded.keep.iter().chain([&loaded.hidden]);
        assert!(taken.clone().all(|kept| !overlaps(kept, to)), "{to:?} is in use");
        if let Some(from) = from {
            assert!(steps[..at].iter().all(|(_, before)| !overlaps(before, from)), "{from:?} is gone");
        }
        assert!(steps[..at].iter().all(|(_, before)| !overlaps(before, to)), "{to:?} is written twice");
    }
    // Each module is in its place: it was moved there, or was there already.
    let moved = |from: &Range<Hpa>, to: Hpa| {
        let stays = from.start == to && steps.iter().all(|(_, written)| !overlaps(written, from));
        let step = moves.iter().any(|step| step.from == *from && step.to == to);
        assert!(stays || step, "{from:?} does not arrive at {to}");
    };
    moved(&payload, run.start);
    moved(&loaded.initrd_module, initrd.start);
}

/// Returns true if the kernel fits nowhere.
fn has_no_kernel_place(loaded: &Loaded) -> bool {
    let mut free = ram(loaded);
    loaded.keep.iter().for_each(|range| free.remove(range));
    let starts = (DEBIAN.pref_address.0..BELOW_4G.end.0).step_by(DEBIAN.alignment as usize).map(Hpa);
    starts.into_iter().all(|start| !free.covers(&(start..start + DEBIAN.init_size)))
}

#[test]
fn kernels_of_debian_are_placed_in_every_machine() {
    for machine in recorded::all() {
        let loads = loads(&machine);
        // The map of this machine has less memory below 4 GiB than Debian needs.
        assert_eq!(loads.is_empty(), machine.name == "amd-1t-hole", "{}", machine.name);
        for loaded in &loads {
            let placement = loaded.place().unwrap_or_else(|error| panic!("{}: {error}", machine.name));
            check(loaded, &placement);
            // In all of them, firmware has left that place free.
            let wanted = DEBIAN.pref_address..DEBIAN.pref_address + DEBIAN.init_size;
            let free = !overlaps(&loaded.hidden, &wanted);
            assert_eq!(placement.kernel_run == wanted, free, "{}: {loaded:?}", machine.name);
        }
    }
}

proptest! {
    #[test]
    fn disturbed_machines_get_a_placement_or_a_refusal(
        regions in disturbed(),
        [vidar, kernel, initrd]: [Index; 3],
        kept in prop::option::of(any::<Index>()),
    ) {
        let map = MemoryMap::from_regions(regions);
        let usable = map.usable();
        let starts = [Hpa(2 * MIB), DEBIAN.pref_address, Hpa(48 * MIB), Hpa(1 << 30), Hpa(0x7000_0000)];
        let hidden = take(&mut usable.clone(), 2 * MIB, (*vidar.get(&starts), true));
        prop_assume!(hidden.is_some());
        let hidden = hidden.unwrap();
        let places = places(&hidden);
        let keep = kept.map(|index| index.get(&usable[..]).start.align_down(PAGE_SIZE)).map(|at| at..at + MIB);
        let keep: Vec<_> = keep.into_iter().filter(|range| !overlaps(range, &hidden)).collect();
        let loaded = load(&map, &keep, &hidden, *kernel.get(&places), *initrd.get(&places));
        prop_assume!(loaded.is_some());
        let loaded = loaded.unwrap();
        match loaded.place() {
            Ok(placement) => check(&loaded, &placement),
            Err(PlacementError::Kernel { .. }) => prop_assert!(has_no_kernel_place(&loaded)),
            Err(error) => prop_assert!(error.to_string().starts_with("too little memory ")),
        }
    }
}
