//! What the boot option `guard=cpu` refuses.

use std::sync::atomic::Ordering;

use vidar_abi::Protection;
use vidar_core::policy::control::*;
use vidar_core::policy::guard::{Guard, Pins};
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::outcome::Outcome;
use vidar_core::vmm::refusals::Refusals;
use vidar_core::vmx::msrs::GUARDED as VMX_GUARDED;
use vidar_core::x86::msr::{self, EFER_LMA, EFER_LME, EFER_NXE};
use vidar_core::x86::registers::Register;

use crate::bench::{Action, Bench, CODE, MSRS};

use crate::{REFUSED, indexed};

/// What the guard of a bench has refused.
fn refusals(bench: &Bench) -> &Refusals {
    bench.machine.host.guard.as_ref().expect("a guard")
}

/// A bench whose CPU is in long mode.
fn long_mode(guard: Guard) -> Bench {
    let mut bench = Bench::new();
    bench.machine.guard = guard;
    let cr0 = CR0_PG | CR0_PE | CR0_ET | CR0_NE;
    bench.cpu.controls = Controls { cr0, cr3: 0x1000, cr4: CR4_PAE, efer: EFER_LME | EFER_LMA, cs_l: true };
    bench
}

fn wrmsr(bench: &mut Bench, index: u32, value: u64) -> (Outcome, Vec<Action>) {
    indexed(index, value).into_iter().for_each(|(register, value)| bench.cpu.registers.set(register, value));
    bench.answer(Exit::Wrmsr)
}

#[test]
fn efer_nxe_stays_with_the_guard_alone() {
    for guard in [Guard::Off, Guard::Cpu] {
        let mut bench = long_mode(guard);
        let without = bench.cpu.controls;
        let with = Controls { efer: without.efer | EFER_NXE, ..without };
        let set = |controls| (Outcome::Advance, vec![Action::SetControls(controls)]);
        assert_eq!(wrmsr(&mut bench, msr::EFER, without.efer), set(without), "not set yet");
        assert_eq!(wrmsr(&mut bench, msr::EFER, with.efer), set(with));
        let cleared = wrmsr(&mut bench, msr::EFER, without.efer);
        let count = refusals(&bench).get(Protection::EferNxe).0;
        if guard == Guard::Off {
            assert_eq!((cleared, count), (set(without), 0));
        } else {
            assert_eq!((cleared, count), ((REFUSED, vec![]), 1));
            assert_eq!(wrmsr(&mut bench, msr::EFER, with.efer | 1).0, Outcome::Advance, "SCE is free");
        }
        // What the CPU itself refuses is no attack.
        assert_eq!(wrmsr(&mut bench, msr::EFER, 1 << 40), (REFUSED, vec![]));
        assert_eq!(refusals(&bench).get(Protection::EferNxe).0, count);
        assert_eq!(bench.get(Register::Rcx) as u32, msr::EFER);
    }
}

#[test]
fn control_registers_keep_their_protections() {
    const BITS: u64 = CR4_SMEP | CR4_SMAP | CR4_UMIP;
    for (guard, cr4, value, protection) in [
        (Guard::Cpu, true, CR4_PAE | CR4_SMAP | CR4_UMIP, Protection::Cr4Smep),
        (Guard::Cpu, true, CR4_PAE | CR4_SMEP | CR4_UMIP, Protection::Cr4Smap),
        (Guard::Cpu, true, CR4_PAE | CR4_SMEP | CR4_SMAP, Protection::Cr4Umip),
        (Guard::Cpu, false, CR0_PG | CR0_PE | CR0_ET | CR0_NE, Protection::Cr0Wp),
        (Guard::Off, true, CR4_PAE, Protection::Cr4Smep),
        (Guard::Off, false, CR0_PG | CR0_PE | CR0_ET | CR0_NE, Protection::Cr0Wp),
    ] {
        let mut bench = long_mode(guard);
        bench.cpu.controls.cr0 |= CR0_WP;
        let write = |bench: &mut Bench, cr4: bool, value| {
            bench.cpu.registers.set(Register::Rbx, value);
            let write = if cr4 { ControlWrite::Cr4 } else { ControlWrite::Cr0 };
            bench.answer(Exit::ControlWrite(write(Register::Rbx)))
        };
        assert_eq!(write(&mut bench, true, CR4_PAE | BITS).0, Outcome::Advance);
        let before = bench.cpu.controls;
        let answer = write(&mut bench, cr4, value);
        let (count, rip) = refusals(&bench).get(protection);
        if guard == Guard::Off {
            assert_eq!((answer.0, count), (Outcome::Advance, 0));
            assert_eq!(bench.cpu.percpu.pinned.load(Ordering::Relaxed), 0);
        } else {
            assert_eq!((answer, count, rip), ((REFUSED, vec![]), 1, CODE));
            assert_eq!(bench.cpu.controls, before);
            assert_ne!(bench.cpu.percpu.pinned.load(Ordering::Relaxed) & 1 << protection as u32, 0);
            // The CPU itself refuses this value, so it is no attack.
            assert_eq!(write(&mut bench, true, 1 << 63), (REFUSED, vec![]));
            assert_eq!(refusals(&bench).get(protection).0, 1);
        }
    }
}

#[test]
fn system_calls_keep_their_targets() {
    for index in [msr::LSTAR, msr::STAR, msr::SYSENTER_EIP, msr::SYSENTER_CS] {
        let mut bench = long_mode(Guard::Cpu);
        bench.machine.msrs = [&[VMX_GUARDED], MSRS].concat().leak();
        bench.cpu.msrs.insert(index, 0);
        let set =
            |value| (Outcome::Advance, vec![Action::Wrmsr(index, value), Action::KeepMsr(index, value)]);
        // 0 is kept where it switches SYSENTER off.
        if index != msr::SYSENTER_CS {
            assert_eq!(wrmsr(&mut bench, index, 0), set(0));
        }
        assert_eq!(wrmsr(&mut bench, index, 8), set(8));
        assert_eq!(wrmsr(&mut bench, index, 8), set(8));
        for value in [0, 16] {
            assert_eq!(wrmsr(&mut bench, index, value), (REFUSED, vec![]));
        }
        let counts = Protection::ALL.iter().map(|protection| refusals(&bench).get(*protection).0);
        assert_eq!(counts.sum::<u64>(), 2);
        // A CPU that keeps 32 bits of the value takes what was written and what it has kept, as Linux does on AMD's
        // CPUs.
        let mut bench = long_mode(Guard::Cpu);
        bench.machine.msrs = [&[VMX_GUARDED], MSRS].concat().leak();
        bench.cpu.msrs.insert(index, 0);
        bench.cpu.kept_bits = u64::from(u32::MAX);
        for (value, outcome) in [
            (0x7f00_0000_0008, Outcome::Advance),
            (8, Outcome::Advance),
            (0x7f00_0000_0008, Outcome::Advance),
            (9, REFUSED),
        ] {
            assert_eq!(wrmsr(&mut bench, index, value).0, outcome, "{value:#x}");
        }
        // A value that the CPU refuses pins nothing, and is no attack.
        let mut bench = long_mode(Guard::Cpu);
        bench.machine.msrs = [&[VMX_GUARDED], MSRS].concat().leak();
        (bench.cpu.faults, bench.cpu.controls.efer) = (true, EFER_LMA | EFER_LME);
        assert_eq!(wrmsr(&mut bench, index, 8).0, REFUSED);
        assert_eq!(bench.cpu.pins, Pins::default());
    }
}
