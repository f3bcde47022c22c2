//! Memory types against a model that asks the registers for one page at a time.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vidar::mem::addr::{Hpa, PAGE_SIZE};
use vidar::mem::mtrr::{IA32_MTRR_DEF_TYPE, IA32_MTRRCAP, MemoryType, MtrrCap, Mtrrs, is_mtrr, valid_write};

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
            for (index, fields) in (0x250..=0x26f).filter(|&index| is_mtrr(index)).zip(fixed) {
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

/// The rules of the manual, one page at a time and straight from the registers.
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

/// The one type of all pages in the range, if they agree.
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
    fn every_page_has_its_type(registers in registers(false)) {
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
        let cap = MtrrCap::from_raw(values[0], phys_bits);
        for index in 0..0x300 {
            let valid = valid_write(index, values[1], &cap);
            prop_assert!(!valid || is_mtrr(index));
        }
    }

    #[test]
    fn what_the_registers_hold_may_be_written(registers in registers(false)) {
        let cap = MtrrCap::from_raw(registers[&IA32_MTRRCAP] | 0x100, PHYS_BITS);
        for (&index, &value) in registers.iter().filter(|(index, _)| is_mtrr(**index)) {
            prop_assert!(valid_write(index, value, &cap), "{:#x} = {:#x}", index, value);
        }
    }
}
