//! The guest's memory: MTRRs, devices, the decoy, and what happens when the frames run out.

use vidar_core::mem::addr::{Gpa, PAGE_SIZE};
use vidar_core::mem::mtrr::IA32_MTRR_DEF_TYPE;
use vidar_core::mem::mtrr::MemoryType::{Uncacheable, WriteBack, WriteCombining};
use vidar_core::mem::stage2::REACH;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::outcome::Outcome;

use crate::bench::{Action, Bench, HOST_ROOT, REGION, warnings};
use crate::{APIC, FAR, REFUSED, indexed, touch};

#[test]
fn memory_types_follow_a_write_to_an_mtrr() {
    let mut bench = Bench::with(&indexed(0x202, 0x40_0001));
    let [below, inside, above] = [0x3f_f000, 0x40_0000, 0x60_0000].map(Gpa);
    let types = |bench: &Bench| {
        [below, inside, above].map(|gpa| bench.translate(gpa).map(|(_, memory_type)| memory_type))
    };
    bench.answer(touch(APIC));
    // 4 MiB to 6 MiB WC. The pair is not in use yet.
    let before = bench.pages();
    assert_eq!(bench.answer(Exit::Wrmsr), (Outcome::Advance, vec![Action::Wrmsr(0x202, 0x40_0001)]));
    assert_eq!(bench.pages(), before);
    for (index, value, expected) in [
        (0x203, 0xff_ffe0_0800, [Some(WriteBack), Some(WriteCombining), Some(WriteBack)]),
        (IA32_MTRR_DEF_TYPE, 0xc00, [Some(Uncacheable), Some(WriteCombining), Some(Uncacheable)]),
        (IA32_MTRR_DEF_TYPE, 0, [Some(Uncacheable); 3]),
    ] {
        indexed(index, value).iter().for_each(|(register, value)| bench.cpu.registers.set(*register, *value));
        let did = vec![Action::Wrmsr(index, value), Action::Flush];
        assert_eq!(bench.answer(Exit::Wrmsr), (Outcome::Advance, did));
        assert_eq!(types(&bench), expected, "{index:#x} = {value:#x}");
        assert_eq!(bench.translate(APIC), None, "what is no RAM is mapped again when it is touched");
    }
}

#[test]
fn writing_back_what_an_mtrr_holds_changes_no_page() {
    for (index, value) in [(0x200, 0xc000_0000), (IA32_MTRR_DEF_TYPE, 0xc06), (0x259, 0)] {
        let mut bench = Bench::with(&indexed(index, value));
        bench.answer(touch(APIC));
        let before = bench.pages();
        assert_eq!(bench.answer(Exit::Wrmsr), (Outcome::Advance, vec![Action::Wrmsr(index, value)]));
        assert_eq!(bench.pages(), before);
    }
}

#[test]
fn an_mtrr_that_faults_changes_no_memory_type() {
    for (index, value) in [(0x210, 6), (IA32_MTRR_DEF_TYPE, 0)] {
        let mut bench = Bench::with(&indexed(index, value));
        bench.answer(touch(APIC));
        bench.cpu.faults = true;
        let before = bench.pages();
        assert_eq!(bench.answer(Exit::Wrmsr), (REFUSED, vec![Action::Wrmsr(index, value)]));
        assert_eq!(bench.pages(), before);
    }
}

#[test]
fn with_few_frames_an_mtrr_leaves_ram_to_be_mapped_on_touch() {
    let mut bench = Bench::with(&indexed(0x268, 0));
    bench.frames(|frames| frames.limit(7));
    assert_eq!(bench.answer(Exit::Wrmsr).0, Outcome::Advance);
    let address = Gpa(0x180_0000);
    assert_eq!(bench.translate(address), None);
    assert_eq!(bench.answer(touch(address)), (Outcome::Resume, vec![]));
    assert_eq!(bench.translate(address), Some((address.identity(), WriteBack)));
}

#[test]
fn a_device_is_mapped_when_it_is_touched() {
    let mut bench = Bench::new();
    for (address, memory_type) in [(APIC + 0x300, Uncacheable), (FAR, WriteBack)] {
        assert_eq!(bench.translate(address), None);
        assert_eq!(bench.answer(touch(address)), (Outcome::Resume, vec![]));
        assert_eq!(bench.translate(address), Some((address.identity(), memory_type)));
    }
}

#[test]
fn touch_of_vidars_memory_maps_the_decoy_and_is_reported_once() {
    let mut bench = Bench::new();
    warnings();
    let last = REGION.end.0 - 1;
    let mut shown = Vec::new();
    for (address, reports) in
        [(REGION.start.0 + 0x1234, 1), (last, 0), (REGION.start.0, 0)].map(|(at, n)| (Gpa(at), n))
    {
        assert_eq!(bench.translate(address), None);
        assert_eq!(bench.answer(touch(address)), (Outcome::Resume, vec![]));
        let warnings = warnings();
        assert_eq!(warnings.len(), reports, "{warnings:?}");
        assert!(warnings.iter().all(|warning| warning.contains(&address.to_string())), "{warnings:?}");
        let (hpa, memory_type) = bench.translate(address).expect("the decoy");
        assert_eq!(memory_type, WriteBack);
        shown.push(hpa.align_down(PAGE_SIZE));
    }
    assert!(shown.iter().all(|page| *page == shown[0]), "{shown:?}");
    assert!(bench.frames(|frames| frames.get(shown[0]).iter().all(|word| *word == u64::MAX)));
    assert_ne!(shown[0], bench.machine.memory.lock().root());
    let [below, above] = [REGION.start.0 - 1, REGION.end.0].map(Gpa);
    for beside in [below, above] {
        assert_eq!(bench.translate(beside), Some((beside.identity(), WriteBack)));
    }
}

#[test]
fn tables_are_rebuilt_when_frames_run_out() {
    let mut bench = Bench::new();
    let ram = Gpa(0x180_0000);
    bench.frames(|frames| frames.limit(frames.used()));
    assert!(bench.translate(ram).is_some());
    assert_eq!(bench.answer(touch(FAR)), (Outcome::Resume, vec![Action::Flush]));
    assert_eq!(bench.translate(FAR), Some((FAR.identity(), WriteBack)));
    assert_eq!(bench.translate(ram), None);
    assert_eq!(bench.answer(touch(ram)), (Outcome::Resume, vec![]), "there are frames again");
    assert_eq!(bench.translate(ram), Some((ram.identity(), WriteBack)));
    assert_eq!(bench.translate(FAR), Some((FAR.identity(), WriteBack)));
}

#[test]
fn decoy_is_mapped_if_no_frame_is_left_for_one_page() {
    let mut bench = Bench::new();
    let decoy = bench.decoy();
    // The root, the decoy and the tables that lead to it are all there is.
    bench.frames(|frames| frames.limit(5));
    for address in [FAR, Gpa(0x10_0000), REGION.start.identity(), Gpa(REACH - 1)] {
        assert_eq!(bench.answer(touch(address)).0, Outcome::Resume, "{address}");
        let page = decoy + address.0 % PAGE_SIZE;
        assert_eq!(bench.translate(address), Some((page, WriteBack)), "{address}");
    }
}

#[test]
fn addresses_beyond_the_second_stage_fault() {
    let mut bench = Bench::new();
    for address in [REACH, 1 << 51, u64::MAX] {
        assert_eq!(bench.answer(touch(Gpa(address))), (REFUSED, vec![]), "{address:#x}");
    }
}

#[test]
fn touch_with_vidars_own_cr3_is_reported_as_such() {
    for (cr3, named) in [(HOST_ROOT.0, true), (HOST_ROOT.0 | 0x18, true), (0x1000, false)] {
        let mut bench = Bench::new();
        warnings();
        bench.cpu.controls.cr3 = cr3;
        assert_eq!(bench.answer(touch(REGION.start.identity())), (Outcome::Resume, vec![]));
        assert_eq!(warnings().iter().any(|line| line.contains("CR3 is Vidar's own")), named, "{cr3:#x}");
    }
}
