//! Memory types of an ordinary machine, and of random MTRRs against a model that evaluates the registers for one page
//! at a time.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vidar_core::mem::addr::{Hpa, PAGE_SIZE};
use vidar_core::mem::mtrr::MemoryType::{self, Uncacheable, WriteBack, WriteProtected, WriteThrough};
use vidar_core::mem::mtrr::{Combination, IA32_MTRR_DEF_TYPE, IA32_MTRRCAP, Mtrrs};

/// A small address space, so that every page of it can be looked at.
const PHYS_BITS: u32 = 22;
const END: u64 = 1 << PHYS_BITS;

type Registers = BTreeMap<u32, u64>;

fn raw_type() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![0u64, 1, 4, 5, 6, 6, 6])
}

fn registers(contiguous: bool) -> impl Strategy<Value = Registers> {
    let pair = (0..END, any::<u64>(), 12..PHYS_BITS, raw_type(), any::<bool>());
    let fixed = prop::collection::vec(prop::collection::vec(raw_type(), 8), 11);
    (prop::collection::vec(pair, 0..6), fixed, raw_type(), any::<[bool; 3]>()).prop_map(
        move |(pairs, fixed, default, [cap, fixed_on, one_type])| {
            let mut registers = Registers::new();
            registers.insert(IA32_MTRRCAP, pairs.len() as u64 | u64::from(cap) << 8 | 1 << 10);
            registers.insert(IA32_MTRR_DEF_TYPE, default | u64::from(fixed_on) << 10 | 1 << 11);
            for (index, fields) in [0x250, 0x258, 0x259].into_iter().chain(0x268..=0x26f).zip(fixed) {
                let field = |place: usize| fields[if one_type { 0 } else { place }] << (8 * place);
                registers.insert(index, (0..8).map(field).sum());
            }
            for (index, (base, mask, shift, raw_type, used)) in (0x200..).step_by(2).zip(pairs) {
                let mask = if contiguous { u64::MAX << shift } else { mask };
                registers.insert(index, base & !0xfff | raw_type);
                registers.insert(index + 1, mask & (END - 1) & !0xfff | u64::from(used) << 11);
            }
            registers
        },
    )
}

/// Returns the rules of the manual, one page at a time and straight from the registers.
fn model(registers: &Registers, page: u64) -> u64 {
    let cap = registers[&IA32_MTRRCAP];
    let def_type = registers[&IA32_MTRR_DEF_TYPE];
    if cap & 0x100 != 0 && def_type & 0x400 != 0 && page < 0x10_0000 {
        let (index, field) = match page {
            0..0x8_0000 => (0x250, page >> 16),
            0x8_0000..0xc_0000 => (0x258 + (page >> 17 & 1), page >> 14 & 7),
            _ => (0x268 + (page >> 15 & 7), page >> 12 & 7),
        };
        return registers[&(index as u32)] >> (8 * field) & 0xff;
    }
    let mut types: Vec<u64> = (0..cap as u32 & 0xff)
        .map(|pair| (registers[&(0x200 + 2 * pair)], registers[&(0x201 + 2 * pair)]))
        .filter(|(base, mask)| mask & 0x800 != 0 && (page & mask) >> 12 == (base & mask) >> 12)
        .map(|(base, _)| base & 0xff)
        .collect();
    types.sort_unstable();
    types.dedup();
    match types[..] {
        [] => def_type & 0xff,
        [one] => one,
        [4, 6] => 4,
        _ => 0,
    }
}

/// Returns the one type of all pages in the range, if they agree.
fn model_uniform(registers: &Registers, start: u64, end: u64) -> Option<MemoryType> {
    let first = model(registers, start & !0xfff);
    let all = (start & !0xfff..end).step_by(PAGE_SIZE as usize).all(|page| model(registers, page) == first);
    all.then(|| MemoryType::from_raw(first as u8).unwrap())
}

fn read(registers: &Registers) -> Mtrrs {
    Mtrrs::read(PHYS_BITS, |index| registers[&index])
}

proptest! {
    #[test]
    fn type_of_each_page_follows_the_manual(registers in registers(false)) {
        let mtrrs = read(&registers);
        for page in (0..END).step_by(PAGE_SIZE as usize) {
            prop_assert_eq!(mtrrs.type_at(Hpa(page + 0xabc)) as u64, model(&registers, page), "at {:#x}", page);
        }
    }

    #[test]
    fn uniformity_is_exact_for_contiguous_masks(
        registers in registers(true),
        bounds in prop::collection::vec((0..END, 1..END), 20),
        aligned in prop::collection::vec((0..END, 12..PHYS_BITS), 20),
    ) {
        let mtrrs = read(&registers);
        let aligned = aligned.into_iter().map(|(at, shift)| (at >> shift << shift, 1 << shift));
        for (start, length) in bounds.into_iter().chain(aligned) {
            let end = (start + length).min(END);
            let uniform = mtrrs.uniform_type(Hpa(start)..Hpa(end));
            prop_assert_eq!(uniform, model_uniform(&registers, start, end), "{:#x} to {:#x}", start, end);
        }
    }

    #[test]
    fn combined_types_are_uniform_where_the_mtrrs_are(
        registers in registers(false),
        bounds in prop::collection::vec((0..END, 1..END), 20),
    ) {
        let own = read(&registers);
        let combined = own.clone().combined(Some(Combination { write_back_to: 0 }));
        for (start, length) in bounds {
            let range = Hpa(start)..Hpa((start + length).min(END));
            let expected = own.uniform_type(range.clone()).map(|_| WriteBack);
            prop_assert_eq!(combined.uniform_type(range), expected);
            prop_assert_eq!(combined.type_at(Hpa(start)), WriteBack);
        }
    }

    #[test]
    fn uniformity_is_never_claimed_wrongly(
        registers in registers(false),
        bounds in prop::collection::vec((0..END, 1..END), 20),
    ) {
        let mtrrs = read(&registers);
        for (start, length) in bounds {
            let end = (start + length).min(END);
            let uniform = mtrrs.uniform_type(Hpa(start)..Hpa(end));
            prop_assert!(uniform.is_none() || uniform == model_uniform(&registers, start, end));
        }
    }

    #[test]
    fn no_register_content_panics(
        phys_bits in 0u32..=80,
        values in prop::collection::vec(any::<u64>(), 128),
        start: u64,
        end: u64,
    ) {
        let mtrrs = Mtrrs::read(phys_bits, |index| values[index as usize % values.len()]);
        mtrrs.type_at(Hpa(start));
        mtrrs.uniform_type(Hpa(start)..Hpa(end));
    }
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Returns a machine with 4 GiB of RAM, its upper 1 GiB remapped above a hole for devices.
fn pc(index: u32) -> u64 {
    match index {
        IA32_MTRRCAP => 0x508,
        IA32_MTRR_DEF_TYPE => 0xc00,
        0x250 | 0x258 => 0x0606_0606_0606_0606,
        0x268 => 0x0505_0505_0505_0505,
        0x200 => 6,                      // 0 to 4 GiB WB
        0x201 => 0xff_0000_0000 | 0x800, // ...
        0x202 => 3 * GIB,                // less 3 GiB to 4 GiB UC
        0x203 => 0xff_c000_0000 | 0x800, // ...
        0x204 => (4 * GIB) | 6,          // 4 GiB to 5 GiB WB
        0x205 => 0xff_c000_0000 | 0x800, // ...
        0x206 => 0xd000_0000 | 1,        // not in use
        0x207 => 0xff_f000_0000,         // ...
        0x208 => (2 * GIB) | 4,          // 2 GiB to 2 GiB + 1 MiB WT
        0x209 => 0xff_fff0_0000 | 0x800, // ...
        _ => 0,
    }
}

fn uniform(mtrrs: &Mtrrs, start: u64, end: u64) -> Option<MemoryType> {
    mtrrs.uniform_type(Hpa(start)..Hpa(end))
}

#[test]
fn types_of_an_ordinary_machine() {
    let mtrrs = Mtrrs::read(40, pc);
    for (address, memory_type) in [
        (0, WriteBack),
        (0x9_ffff, WriteBack),
        (0xa_0000, Uncacheable),
        (0xc_0000, WriteProtected),
        (0xc_7fff, WriteProtected),
        (0xc_8000, Uncacheable),
        (0xf_ffff, Uncacheable),
        (MIB, WriteBack),
        (2 * GIB, WriteThrough),
        (2 * GIB + MIB, WriteBack),
        (3 * GIB, Uncacheable),
        (4 * GIB, WriteBack),
        (5 * GIB, Uncacheable),
        (u64::MAX, Uncacheable),
    ] {
        assert_eq!(mtrrs.type_at(Hpa(address)), memory_type, "at {address:#x}");
    }
}

#[test]
fn uniformity_in_an_ordinary_machine() {
    let mtrrs = Mtrrs::read(40, pc);
    assert_eq!(uniform(&mtrrs, GIB, 2 * GIB), Some(WriteBack));
    assert_eq!(uniform(&mtrrs, 0, GIB), None);
    assert_eq!(uniform(&mtrrs, 0, 0xa_0000), Some(WriteBack));
    assert_eq!(uniform(&mtrrs, 0xf_8000, MIB + 1), None);
    assert_eq!(uniform(&mtrrs, 2 * GIB - 1, 2 * GIB + 1), None);
    assert_eq!(uniform(&mtrrs, 2 * GIB, 2 * GIB + MIB), Some(WriteThrough));
    assert_eq!(uniform(&mtrrs, 5 * GIB, u64::MAX), Some(Uncacheable));
    assert_eq!(uniform(&mtrrs, GIB, GIB), None);
}

/// AMD: memory above 4 GiB has no range of its own, but a register that says where it ends.
#[test]
fn top_of_memory_divides_types() {
    let top = 16 * GIB + 512 * MIB;
    let registers = |default: u64| move |index| if index == IA32_MTRR_DEF_TYPE { 0x800 | default } else { 0 };
    let combined = |default, syscfg| {
        Mtrrs::read(48, registers(default)).combined(Some(Combination::from_raw(syscfg, top)))
    };
    let on = combined(0, 0b11 << 21);
    assert_eq!(uniform(&on, 15 * GIB, 16 * GIB), Some(WriteBack));
    assert_eq!(uniform(&on, 16 * GIB, 17 * GIB), None);
    assert_eq!(uniform(&on, 16 * GIB, top), Some(WriteBack));
    assert_eq!(uniform(&on, top, 17 * GIB), Some(WriteBack));
    assert_eq!(uniform(&on, 3 * GIB, 5 * GIB), None);
    assert_eq!(uniform(&on, 0, 1 << 40), None);
    for other in [combined(0, 0b01 << 21), combined(0, 0b10 << 21), combined(6, 0b11 << 21)] {
        assert_eq!(uniform(&other, 16 * GIB, 17 * GIB), Some(WriteBack));
    }
}

#[test]
fn neighbouring_ranges_of_one_type_are_uniform() {
    let mtrrs = Mtrrs::read(40, |index| match index {
        IA32_MTRRCAP => 2,
        IA32_MTRR_DEF_TYPE => 0x800,
        0x200 => 6,
        0x202 => GIB | 6,
        0x201 | 0x203 => 0xff_c000_0000 | 0x800,
        _ => 0,
    });
    assert_eq!(uniform(&mtrrs, 0, 2 * GIB), Some(WriteBack));
    assert_eq!(uniform(&mtrrs, 0, 2 * GIB + 1), None);
}

#[test]
fn disabled_mtrrs_make_all_memory_uncacheable() {
    let off = |index| if index == IA32_MTRR_DEF_TYPE { 0x406 } else { pc(index) };
    assert_eq!(uniform(&Mtrrs::read(40, off), 0, u64::MAX), Some(Uncacheable));
    assert_eq!(uniform(&Mtrrs::write_back(), 0, u64::MAX), Some(WriteBack));
}
