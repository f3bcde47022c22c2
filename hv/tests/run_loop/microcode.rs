//! Updates of the microcode: which pages the CPU is shown, and what the guest gets.

use vidar::arch::msr::{BIOS_UPDT_TRIG, PATCH_LOADER};
use vidar::mem::addr::{Hpa, PAGE_SIZE};
use vidar::vmm::exit::Exit;
use vidar::vmm::outcome::Outcome;

use crate::bench::{Bench, LOADED, Loaded, RAM, REGION};
use crate::{REFUSED, indexed};

/// Has the guest, which has paging off, load an update at `address`: what it gets, and what the CPU was shown.
fn load(msr: u32, address: u64) -> (Outcome, Vec<Loaded>) {
    let mut bench = Bench::with(&indexed(msr, address));
    let before = bench.cpu.registers;
    let (outcome, did) = bench.answer(Exit::Wrmsr);
    assert!(did.is_empty() && bench.cpu.registers == before);
    (outcome, LOADED.take())
}

/// The pages from `first` to the end of the RAM that it is in.
fn pages(first: u64, end: Hpa) -> Vec<Hpa> {
    (first..end.0).step_by(PAGE_SIZE as usize).map(Hpa).collect()
}

#[test]
fn the_cpu_reads_the_update_from_the_guests_pages() {
    let end = RAM[1].end;
    let first = end.0 - 3 * PAGE_SIZE;
    let loaded = |msr, address| match load(msr, address) {
        (Outcome::Advance, loaded) => loaded,
        other => panic!("{other:?}"),
    };
    // Intel's address is that of the data, and the header in front of them can be in another page.
    assert_eq!(loaded(BIOS_UPDT_TRIG, first + 48), [(0, BIOS_UPDT_TRIG, 48, pages(first, end))]);
    assert_eq!(
        loaded(BIOS_UPDT_TRIG, first + PAGE_SIZE + 16),
        [(0, BIOS_UPDT_TRIG, PAGE_SIZE + 16, pages(first, end))]
    );
    assert_eq!(loaded(PATCH_LOADER, first + 16), [(0, PATCH_LOADER, 16, pages(first, end))]);
}

#[test]
fn a_window_bounds_what_is_shown() {
    let (outcome, loaded) = load(PATCH_LOADER, RAM[1].start.0);
    assert_eq!(outcome, Outcome::Advance);
    assert_eq!(loaded[0].3, pages(RAM[1].start.0, RAM[1].start + (2 << 20)));
}

#[test]
fn an_update_must_be_in_ram() {
    // Vidar's memory, a device, beyond all memory.
    for address in [REGION.start.0, REGION.end.0 - PAGE_SIZE, 0xfee0_0000, 0xffff_ffff_8123_4567] {
        for msr in [BIOS_UPDT_TRIG, PATCH_LOADER] {
            assert_eq!(load(msr, address + 48), (REFUSED, vec![]), "{address:#x}");
        }
    }
}

#[test]
fn what_the_cpu_refuses_faults() {
    let (outcome, loaded) = load(PATCH_LOADER, RAM[1].end.0 - PAGE_SIZE);
    assert_eq!((outcome, loaded.len()), (REFUSED, 1));
}
