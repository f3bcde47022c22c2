//! Finding the kernel, and telling it from others whose memory is still there.

use vidar_core::kernel::Kernel;
use vidar_core::kernel::view::locate;
use vidar_core::mem::addr::{Gpa, Hpa};
use vidar_core::mem::ranges::RangeSet;

use crate::kernel_image::{ERAS, IMAGE_AT, NAMED, OFFSET, STACK, STACK_AT, TABLES, TEXT, build};
use crate::{cpu, kernel};

/// The entry of the last level of page tables for the first page of the image.
const IMAGE_ENTRY: u64 = 0xc000 + (TEXT >> 12 & 511) * 8;

#[test]
fn a_kernel_of_each_era_is_found() {
    for era in &ERAS {
        let (_, kernel) = kernel(era);
        assert_eq!((kernel.release(), kernel.offset()), (era.release, OFFSET));
        assert_eq!(kernel.has_symbols(), NAMED.iter().any(|named| named.release == era.release));
    }
}

#[test]
fn a_cpu_runs_the_kernel_whose_image_its_tables_map() {
    for era in &ERAS {
        let memory = build(era);
        let mut controls = cpu(era).controls;
        assert!(Kernel::find_running(&memory, &memory.ram(), &controls).is_some(), "{}", era.release);
        controls.cr3 = STACK_AT;
        assert!(Kernel::find_running(&memory, &memory.ram(), &controls).is_none(), "{}", era.release);

        // Tables that map another page where the image would be, as those of a kernel that came after this one.
        let mut memory = build(era);
        memory.set(IMAGE_ENTRY, STACK_AT | 3);
        controls.cr3 = TABLES;
        assert!(Kernel::find_running(&memory, &memory.ram(), &controls).is_none(), "{}", era.release);
    }
}

#[test]
fn of_two_kernels_the_running_one_is_found() {
    // The memory of a kernel that ran before still has its note and its names, lower in memory than those of the
    // running one.
    let [before, now] = [&ERAS[1], &ERAS[3]];
    let (old, new) = (build(before), build(now));
    let mut memory = build(now);
    memory.bytes = [&old.bytes[..], &new.bytes].concat();
    let moved = old.bytes.len() as u64;
    let both = RangeSet::from([Hpa(0)..Hpa(2 * moved)]);
    assert_eq!(Kernel::find(&memory, &both).unwrap().release(), before.release);
    // Without the old kernel's page tables, nothing but the note is there.
    memory.bytes[0x4000..0xd000].fill(0);
    assert_eq!(Kernel::find(&memory, &both).unwrap().release(), before.release);
    assert!(Kernel::find_running(&memory, &both, &cpu(before).controls).is_none());
}

#[test]
fn a_copy_of_a_note_is_no_kernel() {
    let mut memory = build(&ERAS[1]);
    memory.bytes[0x1_2000..0x1_2200].fill(0);
    assert!(Kernel::find(&memory, &memory.ram()).is_none());
}

#[test]
fn nothing_is_found_outside_of_ram() {
    let memory = build(&ERAS[1]);
    let ram = RangeSet::from([Hpa(0)..Hpa(0x1000), Hpa(0x2000)..Hpa(0x1_5000)]);
    assert!(Kernel::find(&memory, &ram).is_none());
}

#[test]
fn kernel_half_is_found_from_the_tables_of_user_mode() {
    let memory = build(&ERAS[1]);
    let mut controls = cpu(&ERAS[1]).controls;
    assert_eq!(locate(&memory, &controls, TEXT + 5), Some(Gpa(IMAGE_AT + 5)));
    controls.cr3 = TABLES | 0x1000 | 0x803;
    assert_eq!(locate(&memory, &controls, STACK + 8), Some(Gpa(STACK_AT + 8)));
    assert!(Kernel::find_running(&memory, &memory.ram(), &controls).is_some());
    // Only bit 12 leads to other tables, and only in 64-bit mode.
    controls.cr3 = TABLES + 0x2000;
    assert_eq!(locate(&memory, &controls, STACK + 8), None);
    (controls.cr3, controls.efer) = (TABLES | 0x1000, 0);
    assert_eq!(locate(&memory, &controls, 0x1000), None);
}
