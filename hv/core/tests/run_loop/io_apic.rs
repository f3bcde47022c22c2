//! The guest's accesses to an I/O APIC of which Vidar keeps a pin.

use std::sync::{Arc, Mutex};

use vidar_core::mem::addr::{Gpa, Hpa};
use vidar_core::vmm::doubt::PATIENCE;
use vidar_core::vmm::kept_pin::{IoApic, KeptPin, Registers};
use vidar_core::vmm::outcome::Outcome;
use vidar_core::x86::registers::Register::{Rax, Rcx};

use crate::bench::{Bench, INSTRUCTION};
use crate::{REFUSED, touch};

const PAGE: Hpa = Hpa(0xfec0_0000);
/// The data register.
const DATA: Gpa = Gpa(PAGE.0 + 0x10);

/// The selected register, and all registers.
#[derive(Clone)]
struct Plain(Arc<Mutex<(u32, [u32; 0x40])>>);

impl Registers for Plain {
    fn read(&mut self, offset: usize) -> u32 {
        let (selected, registers) = &*self.0.lock().unwrap();
        if offset == 0 { *selected } else { registers[*selected as usize] }
    }

    fn write(&mut self, offset: usize, value: u32) {
        let (selected, registers) = &mut *self.0.lock().unwrap();
        *(if offset == 0 { selected } else { &mut registers[*selected as usize] }) = value;
    }
}

fn bench() -> (Bench, Plain) {
    let mut registers = [0; 0x40];
    registers[1] = 0x17_0011;
    let plain = Plain(Arc::new(Mutex::new((0, registers))));
    let apic = IoApic::keep(Box::new(plain.clone()), 3, false, 0).expect("the pin is there");
    let mut bench = Bench::new();
    bench.machine.kept_pin = Some(KeptPin::new(PAGE, apic));
    (bench, plain)
}

fn code(bytes: &[u8]) {
    let mut all = [0x90; 16];
    all[..bytes.len()].copy_from_slice(bytes);
    INSTRUCTION.set(all);
}

/// Has the guest write to a register.
fn write(bench: &mut Bench, index: u32, value: u32) {
    for (at, value) in [(PAGE.0, index), (DATA.0, value)] {
        bench.cpu.registers.set(Rax, value.into());
        code(&[&[0xa3][..], &(at as u32).to_le_bytes()].concat()); // mov [at], eax
        assert_eq!(bench.answer(touch(Gpa(at))), (Outcome::Skip(5), vec![]));
    }
}

#[test]
fn the_guest_writes_to_all_pins_but_the_kept_one() {
    let (mut bench, plain) = bench();
    let before = plain.0.lock().unwrap().1[0x16];
    for index in [0x14, 0x16, 0x18] {
        write(&mut bench, index, 0x1_0000 | index);
        bench.cpu.registers.set(Rcx, 0);
        code(&[0x8b, 0x0d, 0x10, 0, 0xc0, 0xfe]); // mov ecx, [fec00010]
        assert_eq!(bench.answer(touch(DATA)), (Outcome::Skip(6), vec![]));
        assert_eq!(bench.get(Rcx), u64::from(0x1_0000 | index));
    }
    let registers = plain.0.lock().unwrap().1;
    assert_eq!([registers[0x14], registers[0x16], registers[0x18]], [0x1_0014, before, 0x1_0018]);
}

#[test]
fn other_accesses_get_a_fault() {
    let (mut bench, _) = bench();
    for (bytes, at) in
        [(&[0x88, 0x05][..], DATA), (&[0x89, 0x05], Gpa(DATA.0 + 1)), (&[0x48, 0x89, 0x05], DATA)]
    {
        code(bytes);
        let answers = (0..PATIENCE).map(|_| bench.answer(touch(at)).0).collect::<Vec<_>>();
        assert_eq!(answers.last(), Some(&REFUSED), "{bytes:x?}");
    }
    let beside = bench.answer(touch(Gpa(PAGE.0 + 0x1000)));
    assert_eq!(beside.0, Outcome::Resume, "another page is the device's there");
}
