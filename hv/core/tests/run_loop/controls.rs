//! Writes to control registers that switch PAE paging and long mode.

use vidar_core::mem::addr::Gpa;
use vidar_core::policy::control::ControlWrite;
use vidar_core::policy::control::*;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::outcome::Outcome;
use vidar_core::x86::msr::{EFER_LMA, EFER_LME};
use vidar_core::x86::registers::Register::Rbx;

use crate::bench::{Action, Bench, REGION, pdptes_at};
use crate::{APIC, REFUSED};

fn pae(cr3: u64) -> Bench {
    let mut bench = Bench::new();
    bench.cpu.controls = Controls { cr0: CR0_PE | CR0_ET, cr3, cr4: CR4_PAE, efer: 0, cs_l: false };
    bench.cpu.registers.set(Rbx, CR0_PG | CR0_PE);
    bench
}

const PAGING_ON: Exit = Exit::ControlWrite(ControlWrite::Cr0(Rbx));

#[test]
fn enabling_pae_paging_loads_the_pdptes_first() {
    // Bits 4:0 of CR3 are not part of the address.
    for cr3 in [0x10_0040, 0x10_005f, 0x1ff_ffc0] {
        let mut bench = pae(cr3);
        let controls = Controls { cr0: CR0_PG | CR0_PE | CR0_ET, ..bench.cpu.controls };
        let entries = pdptes_at(Gpa(cr3 & !0x1f));
        let did = vec![Action::SetPdptes(entries), Action::SetControls(controls)];
        assert_eq!(bench.answer(PAGING_ON), (Outcome::Advance, did), "{cr3:#x}");
        // A change of CR4.PGE loads them again, and one of OSFXSR does not.
        bench.cpu.registers.set(Rbx, CR4_PAE | 1 << 7);
        let controls = Controls { cr4: CR4_PAE | 1 << 7, ..controls };
        let did = vec![Action::SetPdptes(entries), Action::SetControls(controls)];
        let cr4 = Exit::ControlWrite(ControlWrite::Cr4(Rbx));
        assert_eq!(bench.answer(cr4), (Outcome::Advance, did));
        bench.cpu.registers.set(Rbx, CR4_PAE | 1 << 7 | 1 << 9);
        let controls = Controls { cr4: CR4_PAE | 1 << 7 | 1 << 9, ..controls };
        assert_eq!(bench.answer(cr4), (Outcome::Advance, vec![Action::SetControls(controls)]));
    }
}

#[test]
fn invalid_pdptes_fault_and_change_nothing() {
    let mut bench = pae(0x10_0060);
    let before = bench.cpu.controls;
    assert_eq!(bench.answer(PAGING_ON), (REFUSED, vec![]));
    assert_eq!(bench.cpu.controls, before);
    // The same with an address that the CPU does not have.
    let mut bench = pae(0x10_0040);
    bench.machine.physical_address_bits = 12;
    assert_eq!(bench.answer(PAGING_ON), (REFUSED, vec![]));
}

#[test]
fn pdptes_outside_ram_read_as_ones() {
    // A hole, Vidar's own memory, the end of RAM inside a page, and a device: ones, of which some are reserved bits.
    for cr3 in [0x9_f000, REGION.start.0 + 0x20, REGION.end.0 - 0x20, 0x200_0000, APIC.0 + 0x20] {
        let mut bench = pae(cr3);
        assert_eq!(bench.answer(PAGING_ON), (REFUSED, vec![]), "{cr3:#x}");
    }
}

#[test]
fn long_mode_follows_paging() {
    let mut bench = pae(0x1000);
    bench.cpu.controls.efer = EFER_LME;
    let off = bench.cpu.controls;
    let on = Controls { cr0: CR0_PG | CR0_PE | CR0_ET, efer: EFER_LME | EFER_LMA, ..off };
    assert_eq!(bench.answer(PAGING_ON), (Outcome::Advance, vec![Action::SetControls(on)]));
    bench.cpu.registers.set(Rbx, CR0_PE);
    assert_eq!(bench.answer(PAGING_ON), (Outcome::Advance, vec![Action::SetControls(off)]));
    bench.cpu.registers.set(Rbx, CR0_PG | CR0_PE);
    bench.cpu.task_is_16_bit = true;
    assert_eq!(bench.answer(PAGING_ON), (REFUSED, vec![]), "not with a 16-bit task");
    bench.cpu.registers.set(Rbx, CR0_PE);
    bench.cpu.controls = Controls { cs_l: true, ..on };
    assert_eq!(bench.answer(PAGING_ON), (REFUSED, vec![]), "not from 64-bit code");
    bench.cpu.registers.set(Rbx, 0);
    let cr4 = Exit::ControlWrite(ControlWrite::Cr4(Rbx));
    assert_eq!(bench.answer(cr4), (REFUSED, vec![]), "not without PAE");
}
