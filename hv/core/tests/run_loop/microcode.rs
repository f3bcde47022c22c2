//! Microcode updates: which pages the CPU reads, and the outcome for the guest.

use vidar_core::mem::addr::{Hpa, PAGE_SIZE};
use vidar_core::mem::layout::WINDOW_RUN;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::outcome::Outcome;
use vidar_core::x86::msr::{BIOS_UPDT_TRIG, PATCH_LOADER};

use crate::bench::{Bench, LOADED, Loaded, PHYSICAL_ADDRESS_BITS, RAM, REGION};
use crate::{REFUSED, indexed};

/// Lets the guest, with paging off, load an update at `address`. Returns the outcome, what the CPU has read, and the
/// decoy.
fn load(msr: u32, address: u64) -> (Outcome, Vec<Loaded>, Hpa) {
    let mut bench = Bench::with(&indexed(msr, address));
    let before = bench.cpu.registers;
    let (outcome, did) = bench.answer(Exit::Wrmsr);
    assert!(did.is_empty() && bench.cpu.registers == before);
    (outcome, LOADED.take(), bench.decoy())
}

/// Returns as many pages from `first` on as a window holds.
fn pages(first: u64) -> Vec<Hpa> {
    (first..).step_by(PAGE_SIZE as usize).take(WINDOW_RUN).map(Hpa).collect()
}

#[test]
fn the_cpu_reads_the_update_from_the_guests_pages() {
    let first = RAM[1].start.0 + 5 * PAGE_SIZE;
    let loaded = |msr, address| match load(msr, address) {
        (Outcome::Advance, loaded, _) => loaded,
        other => panic!("{other:?}"),
    };
    // Intel's address is that of the data, and the header in front of them can be in another page.
    assert_eq!(loaded(BIOS_UPDT_TRIG, first + 48), [(BIOS_UPDT_TRIG, 48, pages(first))]);
    assert_eq!(
        loaded(BIOS_UPDT_TRIG, first + PAGE_SIZE + 16),
        [(BIOS_UPDT_TRIG, PAGE_SIZE + 16, pages(first))]
    );
    assert_eq!(loaded(PATCH_LOADER, first + 16), [(PATCH_LOADER, 16, pages(first))]);
}

#[test]
fn update_may_lie_in_memory_that_was_added() {
    for first in [RAM[2].end.0, 1 << 32, (1 << PHYSICAL_ADDRESS_BITS) - (4 << 20)] {
        let (outcome, loaded, _) = load(PATCH_LOADER, first + 16);
        assert_eq!((outcome, loaded), (Outcome::Advance, vec![(PATCH_LOADER, 16, pages(first))]));
    }
}

#[test]
fn decoy_is_read_in_place_of_vidars_memory() {
    for first in [REGION.start, Hpa(REGION.start.0 - 3 * PAGE_SIZE), Hpa(REGION.end.0 - PAGE_SIZE)] {
        let (_, loaded, decoy) = load(PATCH_LOADER, first.0 + 16);
        let mut expected = pages(first.0);
        expected.iter_mut().filter(|page| REGION.contains(page)).for_each(|page| *page = decoy);
        assert!(expected.contains(&decoy));
        assert_eq!(loaded, [(PATCH_LOADER, 16, expected)], "{first}");
    }
}

#[test]
fn update_beyond_the_address_width_faults() {
    for address in [1 << PHYSICAL_ADDRESS_BITS, 0xffff_ffff_8123_4567] {
        for msr in [BIOS_UPDT_TRIG, PATCH_LOADER] {
            let (outcome, loaded, _) = load(msr, address + 48);
            assert_eq!((outcome, loaded), (REFUSED, vec![]), "{address:#x}");
        }
    }
}

#[test]
fn update_that_the_cpu_refuses_faults() {
    // One page, and what reads as ones.
    for address in [(1 << PHYSICAL_ADDRESS_BITS) - PAGE_SIZE, REGION.start.0] {
        let (outcome, loaded, _) = load(PATCH_LOADER, address);
        assert_eq!((outcome, loaded.len()), (REFUSED, 1));
    }
}
