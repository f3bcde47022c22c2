//! The guest's accesses to the registers of a remapping unit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use vidar_core::iommu::guard::DmaGuard;
use vidar_core::iommu::register::{ECAP, GCMD, GSTS, IRTA, TRANSLATION};
use vidar_core::iommu::unit::{Hardware, Unit};
use vidar_core::mem::addr::{Gpa, Hpa};
use vidar_core::vmm::doubt::PATIENCE;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::outcome::Outcome;
use vidar_core::x86::msr::APIC_BASE;
use vidar_core::x86::registers::Register::{Rax, Rcx};

use crate::bench::{Action, Bench, INSTRUCTION};
use crate::{REFUSED, indexed, touch};

const REGISTERS: Gpa = Gpa(0xfed9_0000);

/// A unit without a queue that does not obey, since nothing is asked of it but registers.
#[derive(Clone, Default)]
struct Plain(Arc<Mutex<BTreeMap<usize, u32>>>);

impl Hardware for Plain {
    fn read(&mut self, offset: usize) -> u32 {
        self.0.lock().unwrap().get(&offset).copied().unwrap_or(0)
    }

    fn write(&mut self, offset: usize, value: u32) {
        self.0.lock().unwrap().insert(offset, value);
    }

    fn queue(&self) -> Hpa {
        Hpa(0)
    }

    fn put(&mut self, _: usize, _: [u64; 2]) {}

    fn progress_at(&self) -> Hpa {
        Hpa(0)
    }

    fn progress(&mut self) -> u32 {
        0
    }
}

fn bench() -> (Bench, Plain) {
    let plain = Plain::default();
    plain.clone().write(8, 0x2206_0206);
    plain.clone().write(ECAP, 0xf0_0f50);
    let unit = Unit::find(Box::new(plain.clone()), REGISTERS.identity()).expect("it answers");
    let mut bench = Bench::new();
    bench.machine.host.dma = Box::leak(Box::new(DmaGuard::by(vec![unit])));
    (bench, plain)
}

fn code(bytes: &[u8]) {
    let mut all = [0x90; 16];
    all[..bytes.len()].copy_from_slice(bytes);
    INSTRUCTION.set(all);
}

#[test]
fn registers_are_loaded_and_stored() {
    let (mut bench, plain) = bench();
    let at = |offset: usize| touch(REGISTERS + offset as u64);
    bench.cpu.registers.set(Rcx, u64::MAX);
    code(&[0x8b, 0x0d, 8, 0, 0xd9, 0xfe]); // mov ecx, [fed90008]
    assert_eq!(bench.answer(at(8)), (Outcome::Skip(6), vec![]));
    assert_eq!(bench.get(Rcx), 0x2206_0006, "no width of address");
    bench.cpu.registers.set(Rax, 0xffff_ffff_8000_0000);
    code(&[0xa3, 0x18, 0, 0xd9, 0xfe]); // mov [fed90018], eax
    assert_eq!(bench.answer(at(GCMD)), (Outcome::Skip(5), vec![]));
    assert_eq!(plain.clone().read(GCMD), TRANSLATION);
    code(&[0x81, 0x0d, 0xb8, 0, 0xd9, 0xfe, 0, 0x10, 0, 0]); // or dword ptr [fed900b8], 1000h
    plain.clone().write(IRTA, 0xf);
    assert_eq!(bench.answer(at(IRTA)), (Outcome::Skip(10), vec![Action::SetFlags(0x8d5, 0x4)]));
    assert_eq!(plain.clone().read(IRTA), 0x100f);
}

#[test]
fn the_local_apic_cannot_be_moved_onto_the_registers() {
    let (mut bench, _) = bench();
    for (base, expected) in [(0xfed9_0800, REFUSED), (0xfed9_1800, Outcome::Advance)] {
        indexed(APIC_BASE, base).iter().for_each(|(to, value)| bench.cpu.registers.set(*to, *value));
        assert_eq!(bench.answer(Exit::Wrmsr).0, expected, "{base:#x}");
    }
}

#[test]
fn other_accesses_get_a_general_protection_exception() {
    let (mut bench, _) = bench();
    code(&[0xa1, 0x1c, 0, 0xd9, 0xfe]); // mov eax, [fed9001c]
    assert_eq!(bench.answer(touch(REGISTERS + GSTS as u64 + 2)).0, REFUSED, "not aligned");
    code(&[0x0f, 0xb6, 0x05, 0x1c, 0, 0xd9, 0xfe]); // movzx eax, byte ptr [fed9001c]
    for _ in 1..PATIENCE {
        assert_eq!(bench.answer(touch(REGISTERS)), (Outcome::Resume, vec![Action::Flush]));
    }
    assert_eq!(bench.answer(touch(REGISTERS)).0, REFUSED);
    assert_eq!(
        bench.answer(touch(REGISTERS + 0x1000)).0,
        Outcome::Resume,
        "the next page is another device's"
    );
}
