//! What the boot option `guard=cpu` refuses.

use vidar_abi::Protection;
use vidar_core::policy::control::*;
use vidar_core::policy::guard::Guard;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::outcome::Outcome;
use vidar_core::x86::msr::{self, EFER_LMA, EFER_LME, EFER_NXE};
use vidar_core::x86::registers::Register;

use crate::bench::{Action, Bench};
use crate::{REFUSED, indexed};

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
        let count = bench.machine.refusals.get(Protection::EferNxe).0;
        if guard == Guard::Off {
            assert_eq!((cleared, count), (set(without), 0));
        } else {
            assert_eq!((cleared, count), ((REFUSED, vec![]), 1));
            assert_eq!(wrmsr(&mut bench, msr::EFER, with.efer | 1).0, Outcome::Advance, "SCE is free");
        }
        // What the CPU itself refuses is no attack.
        assert_eq!(wrmsr(&mut bench, msr::EFER, 1 << 40), (REFUSED, vec![]));
        assert_eq!(bench.machine.refusals.get(Protection::EferNxe).0, count);
        assert_eq!(bench.get(Register::Rcx) as u32, msr::EFER);
    }
}
