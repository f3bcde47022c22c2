//! The answer to each exit, and that its outcome is applied once.

use vidar_abi::ExitKind;
use vidar_core::mem::addr::{Gpa, PAGE_SIZE};
use vidar_core::mem::stage2::REACH;
use vidar_core::policy::control::ControlWrite;
use vidar_core::policy::control::*;
use vidar_core::vmm::exit::{Exit, Immediate};
use vidar_core::vmm::machine::Startup;
use vidar_core::vmm::outcome::{Exception, Outcome, Stop};
use vidar_core::x86::msr::{self, EFER_LMA, EFER_LME, EFER_NXE, EFER_SVME};
use vidar_core::x86::registers::Register::{self, Rax, Rbx, Rcx, Rdx, Rsi};

use crate::bench::{Action, Bench, LANDING, REGION, XCR0_SUPPORTED, native_cpuid};
use crate::{ABSENT, APIC, HIGH, REFUSED, TSC, denied, indexed, touch};

/// Returns an exit of each variant with the value of ECX, the outcome, and what it does to the CPU. EDX:EAX holds 7,
/// and the CPU is in protected mode.
pub fn every_exit() -> Vec<(Exit, u32, Outcome, Vec<Action>)> {
    use Outcome::{Advance, Init, Inject, Resume, Startup};
    let protected = CR0_PE | CR0_ET | CR0_NE;
    let controls = |cr0, cr4| vec![Action::SetControls(Controls { cr0, cr4, ..Controls::default() })];
    vec![
        (Exit::Cpuid, 0, Advance, vec![]),
        (Exit::Rdmsr, TSC, Advance, vec![]),
        (Exit::Rdmsr, ABSENT, REFUSED, vec![]),
        (Exit::Wrmsr, TSC, Advance, vec![Action::Wrmsr(TSC, 7)]),
        (Exit::Wrmsr, ABSENT, REFUSED, vec![Action::Wrmsr(ABSENT, 7)]),
        (Exit::RdmsrImmediate(Immediate { index: TSC, register: Rbx }), 0, Advance, vec![]),
        (Exit::RdmsrImmediate(Immediate { index: ABSENT, register: Rbx }), 0, REFUSED, vec![]),
        (
            Exit::WrmsrImmediate(Immediate { index: TSC, register: Rdx }),
            0,
            Advance,
            vec![Action::Wrmsr(TSC, HIGH)],
        ),
        (Exit::WrmsrImmediate(Immediate { index: msr::VMX_BASIC, register: Rdx }), 0, REFUSED, vec![]),
        (Exit::ControlWrite(ControlWrite::Cr0(Rax)), 0, Advance, controls(7 | CR0_ET, 0)),
        (Exit::ControlWrite(ControlWrite::Clts), 0, Advance, controls(protected, 0)),
        (Exit::ControlWrite(ControlWrite::Lmsw(8)), 0, Advance, controls(protected | CR0_TS, 0)),
        (Exit::ControlWrite(ControlWrite::Cr4(Rax)), 0, Advance, controls(protected, 7)),
        (Exit::ControlWrite(ControlWrite::Cr4(Rcx)), CR4_VMXE as u32, REFUSED, vec![]),
        // CR4.OSXSAVE is 0.
        (Exit::Xsetbv, 0, Inject(Exception::InvalidOpcode), vec![]),
        (Exit::Invd, 0, Advance, vec![Action::Wbinvd]),
        (Exit::Hypercall, 0, Advance, vec![]),
        (Exit::Virtualization, 0, Inject(Exception::InvalidOpcode), vec![]),
        (Exit::Undefined, 0, Inject(Exception::InvalidOpcode), vec![]),
        (Exit::Changed, 0, Resume, vec![]),
        (touch(APIC), 0, Resume, vec![]),
        (touch(REGION.start.identity()), 0, Resume, vec![]),
        (denied(APIC), 0, Resume, vec![Action::Flush]),
        (touch(Gpa(REACH)), 0, REFUSED, vec![]),
        (Exit::Init, 0, Init, vec![]),
        (Exit::Sipi(0x9f), 0, Startup(0x9f), vec![]),
        (Exit::Nmi, 0, Resume, vec![]),
        (Exit::Window, 0, Resume, vec![]),
        (Exit::MachineCheck, 0, Outcome::Stop(Stop::MachineCheck), vec![]),
        (Exit::TripleFault, 0, Outcome::Stop(Stop::TripleFault), vec![]),
        (Exit::TaskSwitch(0xf8), 0, Outcome::Stop(Stop::TaskSwitch), vec![]),
        (Exit::EntryFailed { code: 33, qualification: 4 }, 0, Outcome::Stop(Stop::EntryFailed), vec![]),
        (Exit::Unknown { code: 9, qualification: 5 }, 0, Outcome::Stop(Stop::Unanswered), vec![]),
    ]
}

#[test]
pub fn every_exit_has_its_answer() {
    let rows = every_exit();
    for kind in ExitKind::ALL {
        assert!(rows.iter().any(|(exit, ..)| exit.kind() == *kind), "no row for {kind:?}");
    }
    for (exit, index, outcome, did) in rows {
        let mut bench = Bench::with(&indexed(index, 7));
        assert_eq!(bench.answer(exit), (outcome, did), "{exit:?}");
    }
}

#[test]
fn machine_check_is_injected_only_if_the_guest_has_cr4_mce_set() {
    let mut bench = Bench::with(&[]);
    bench.cpu.controls.cr4 = CR4_MCE;
    let injected = Outcome::Inject(Exception::MachineCheck);
    assert_eq!(bench.answer(Exit::MachineCheck), (injected, vec![]));
    bench.cpu.controls.cr4 = !CR4_MCE;
    assert_eq!(bench.answer(Exit::MachineCheck), (Outcome::Stop(Stop::MachineCheck), vec![]));
}

#[test]
fn the_loop_applies_each_outcome_once() {
    for (exit, index, outcome, effects) in every_exit() {
        let mut bench = Bench::with(&indexed(index, 7));
        let next = Exit::Unknown { code: u32::MAX, qualification: 0 };
        let (end, did) = bench.run(&[exit, next]);
        let applied = match outcome {
            Outcome::Advance => vec![Action::Advance, Action::Run],
            Outcome::Resume => vec![Action::Run],
            Outcome::Inject(exception) => vec![Action::Inject(exception), Action::Run],
            Outcome::Init => vec![Action::Init, Action::Run],
            Outcome::Skip(length) => vec![Action::Skip(length), Action::Run],
            Outcome::Startup(vector) => vec![Action::Startup(vector), Action::Run],
            Outcome::Stop(stop) => {
                assert_eq!(end, (stop, exit));
                vec![]
            }
        };
        assert_eq!(did, [vec![Action::Run], effects, applied].concat(), "{exit:?}");
        if !matches!(outcome, Outcome::Stop(_)) {
            assert_eq!(end, (Stop::Unanswered, next), "{exit:?}");
        }
    }
}

#[test]
pub fn every_exit_is_counted_as_its_kind() {
    let (stopping, going): (Vec<_>, Vec<_>) =
        every_exit().into_iter().partition(|(_, _, outcome, _)| matches!(outcome, Outcome::Stop(_)));
    let mut expected = [0; ExitKind::COUNT];
    let mut script = Vec::new();
    for (times, (exit, ..)) in going.iter().enumerate() {
        expected[exit.kind() as usize] += times as u64;
        script.extend(std::iter::repeat_n(*exit, times));
    }
    let mut bench = Bench::with(&indexed(TSC, 7));
    for (exit, ..) in stopping {
        expected[exit.kind() as usize] += 1;
        script.push(exit);
        bench.run(&script);
        script.clear();
    }
    let counted: Vec<_> = ExitKind::ALL.iter().map(|kind| bench.cpu.percpu.counters.get(*kind)).collect();
    assert_eq!(counted, expected);
}

#[test]
fn cpuid_fills_whole_registers() {
    for (cr4, osxsave) in [(0, 0), (CR4_OSXSAVE, 1 << 27)] {
        let mut bench = Bench::with(&[(Rax, HIGH | 1), (Rcx, HIGH | 5)]);
        bench.cpu.controls.cr4 = cr4;
        assert_eq!(bench.answer(Exit::Cpuid), (Outcome::Advance, vec![]));
        // VMX and SMX are hidden.
        let ecx = 0xffff_ffff & !(1 << 5 | 1 << 6 | 1 << 27) | osxsave;
        let native = native_cpuid(1, 5);
        let expected = [native.eax.into(), native.ebx.into(), ecx, native.edx.into(), u64::MAX];
        assert_eq!([Rax, Rbx, Rcx, Rdx, Rsi].map(|register| bench.get(register)), expected);
    }
}

#[test]
fn rdmsr_follows_the_policy() {
    for (index, read) in [
        (TSC, Some(0x1234_5678_9abc_def0)),
        (msr::APIC_BASE, Some(0xfee0_0900)),
        (0x201, Some(0xff_c000_0800)),
        // Locked, with VMX off; the CPU's own has it on.
        (msr::FEATURE_CONTROL, Some(0x10_0001)),
        (ABSENT, None),
        // These are there, so it is the policy that refuses them.
        (msr::SMM_MONITOR_CTL, None),
        (msr::VMX_BASIC, None),
        (msr::VMX_EXIT_CTLS2, None),
        (msr::VM_CR, None),
        (msr::VM_HSAVE_PA, None),
        (msr::SVM_KEY, None),
        (msr::TSC_RATIO, None),
        (msr::SYSCFG, Some(1 << 18)),
    ] {
        let mut bench = Bench::with(&[(Rcx, HIGH | u64::from(index))]);
        let outcome = if read.is_some() { Outcome::Advance } else { REFUSED };
        assert_eq!(bench.answer(Exit::Rdmsr), (outcome, vec![]), "{index:#x}");
        let expected = read.map_or([u64::MAX; 2], |value: u64| [value & 0xffff_ffff, value >> 32]);
        assert_eq!([Rax, Rdx].map(|register| bench.get(register)), expected, "{index:#x}");
        assert_eq!(bench.get(Rcx), HIGH | u64::from(index));
    }
    let mut bench = Bench::with(&indexed(msr::FEATURE_CONTROL, 0));
    bench.cpu.msrs.remove(&msr::FEATURE_CONTROL);
    assert_eq!(bench.answer(Exit::Rdmsr), (REFUSED, vec![]), "a CPU without the MSR does not get one");
}

#[test]
fn msr_instructions_with_an_immediate_follow_the_policy() {
    for (index, read) in
        [(TSC, Some(0x1234_5678_9abc_def0)), (msr::FEATURE_CONTROL, Some(0x10_0001)), (msr::VMX_BASIC, None)]
    {
        let mut bench = Bench::with(&[(Rcx, TSC.into())]);
        let outcome = if read.is_some() { Outcome::Advance } else { REFUSED };
        let exit = Exit::RdmsrImmediate(Immediate { index, register: Rsi });
        assert_eq!(bench.answer(exit), (outcome, vec![]), "{index:#x}");
        let expected = [u64::MAX, u64::MAX, TSC.into(), read.unwrap_or(u64::MAX)];
        assert_eq!([Rax, Rdx, Rcx, Rsi].map(|register| bench.get(register)), expected, "{index:#x}");
    }
    for (index, tried) in [(msr::MMIO_CFG_BASE, true), (msr::FEATURE_CONTROL, false)] {
        let mut bench = Bench::with(&[(Rsi, 0x0007_0406_0007_0406), (Rcx, TSC.into())]);
        let exit = Exit::WrmsrImmediate(Immediate { index, register: Rsi });
        let expected = if tried {
            (Outcome::Advance, vec![Action::Wrmsr(index, 0x0007_0406_0007_0406)])
        } else {
            (REFUSED, vec![])
        };
        assert_eq!(bench.answer(exit), expected, "{index:#x}");
    }
}

#[test]
fn wrmsr_follows_the_policy() {
    let base = REGION.start.0;
    for (index, value, outcome, tried) in [
        (TSC, 0x1_0000_0002, Outcome::Advance, true),
        (ABSENT, 2, REFUSED, true),
        (msr::PAT, 6, REFUSED, false), // after an exit, the CPU holds Vidar's own value
        (msr::FEATURE_CONTROL, 5, REFUSED, false),
        (msr::PEBS_ENABLE, 0, Outcome::Advance, true),
        (msr::PEBS_ENABLE, 1, REFUSED, false),
        (msr::SMM_MONITOR_CTL, 1, REFUSED, false),
        (msr::VMX_BASIC, 0, REFUSED, false),
        (msr::VM_CR, 0, REFUSED, false),
        (msr::VM_HSAVE_PA, base, REFUSED, false),
        (msr::TSC_RATIO, 1 << 32, REFUSED, false),
        // What says where memory is stays, where the CPU has it.
        (msr::SYSCFG, 1 << 23, Outcome::Advance, false),
        (msr::TOP_MEM, base, Outcome::Advance, false),
        (msr::TOP_MEM2, base, REFUSED, false),
        (msr::SMM_MASK, base | 3, REFUSED, false),
        // The configuration space of all buses across the region, that of one bus beside it, and none.
        (msr::MMIO_CFG_BASE, 8 << 2 | 1, REFUSED, false),
        (msr::MMIO_CFG_BASE, base | 1, REFUSED, false),
        (msr::MMIO_CFG_BASE, REGION.end.0 | 1, Outcome::Advance, true),
        (msr::MMIO_CFG_BASE, base, Outcome::Advance, true),
        // The APIC on the first page and on the last of the region; beside it, and far away.
        (msr::APIC_BASE, base | 0x900, REFUSED, false),
        (msr::APIC_BASE, (REGION.end.0 - PAGE_SIZE) | 0xd00, REFUSED, false),
        (msr::APIC_BASE, (base - PAGE_SIZE) | 0x900, Outcome::Advance, true),
        (msr::APIC_BASE, REGION.end.0 | 0x900, Outcome::Advance, true),
        (msr::APIC_BASE, 0xff_fee0_0900, REFUSED, false),
        (msr::APIC_BASE, 0x1_0000_0900, REFUSED, false),
        (msr::APIC_BASE, 0xffff_f900, Outcome::Advance, true),
    ] {
        let mut bench = Bench::with(&indexed(index, value));
        let before = (bench.cpu.registers, bench.pages());
        let did = if tried { vec![Action::Wrmsr(index, value)] } else { vec![] };
        assert_eq!(bench.answer(Exit::Wrmsr), (outcome, did), "{index:#x} = {value:#x}");
        assert_eq!((bench.cpu.registers, bench.pages()), before);
    }
}

/// A device over them would answer the CPU that a start-up IPI names them to.
#[test]
fn no_device_is_laid_over_the_pages_that_lead_to_vidar() {
    for (startup, outcome) in [(Startup::Landing, REFUSED), (Startup::Hardware(()), Outcome::Advance)] {
        for (index, value) in [(msr::APIC_BASE, 0x9_e900), (msr::MMIO_CFG_BASE, 1)] {
            let mut bench = Bench::with(&indexed(index, value));
            bench.machine.startup = startup;
            bench.machine.replaced = (startup == Startup::Landing).then_some(LANDING);
            assert_eq!(bench.answer(Exit::Wrmsr).0, outcome, "{index:#x} with {startup:?}");
        }
    }
}

#[test]
fn no_execute_leaves_the_guest_while_it_is_disabled() {
    const XD_DISABLE: u64 = 1 << 34;
    let nx = |bench: &mut Bench| {
        bench.cpu.registers.set(Rax, 0x8000_0001);
        bench.answer(Exit::Cpuid);
        bench.get(Rdx) >> 20 & 1
    };
    let write = |bench: &mut Bench, index, value| {
        indexed(index, value)
            .into_iter()
            .for_each(|(register, value)| bench.cpu.registers.set(register, value));
        bench.answer(Exit::Wrmsr)
    };
    let mut bench = Bench::with(&[]);
    bench.cpu.cpuid_edx = 1 << 20;
    assert_eq!(nx(&mut bench), 1);
    for (disable, allowed) in [(XD_DISABLE, false), (0, true)] {
        let did = vec![Action::Wrmsr(msr::MISC_ENABLE, 1), Action::WatchEfer(disable != 0)];
        assert_eq!(
            write(&mut bench, msr::MISC_ENABLE, disable | 1),
            (Outcome::Advance, did),
            "never in the CPU"
        );
        assert_eq!(bench.answer(Exit::Rdmsr), (Outcome::Advance, vec![]));
        assert_eq!(bench.cpu.registers.edx_eax(), disable | 1, "it reads back");
        assert_eq!(nx(&mut bench), u64::from(allowed));
        let (outcome, _) = write(&mut bench, msr::EFER, EFER_NXE);
        assert_eq!(outcome, if allowed { Outcome::Advance } else { REFUSED });
        assert_eq!(write(&mut bench, msr::EFER, 1).0, Outcome::Advance, "other bits may be set");
    }
    bench.cpu.faults = true;
    assert_eq!(write(&mut bench, msr::MISC_ENABLE, XD_DISABLE).0, REFUSED, "a CPU without the MSR");
}

#[test]
fn pebs_is_not_advertised() {
    let mut bench = Bench::with(&indexed(msr::MISC_ENABLE, 0));
    bench.cpu.cpuid_edx = 1 << 21;
    bench.answer(Exit::Rdmsr);
    assert_eq!(bench.cpu.registers.edx_eax(), 1 << 12, "unavailable");
    // What Skylake has: LBR format 5, PEBS with records of format 3, SMM freeze, full width.
    bench.cpu.msrs.insert(msr::PERF_CAPABILITIES, 0x33c5);
    bench.cpu.registers.set(Rcx, msr::PERF_CAPABILITIES.into());
    bench.answer(Exit::Rdmsr);
    assert_eq!(bench.cpu.registers.edx_eax(), 0x3005);
}

#[test]
fn guest_writes_and_reads_its_own_efer() {
    let paging = Controls { cr0: CR0_PE | CR0_PG | CR0_ET, cr4: CR4_PAE, ..Controls::default() };
    let long = Controls { efer: EFER_LME | EFER_LMA, cs_l: true, ..paging };
    let off = Controls { cr0: CR0_PE | CR0_ET, ..Controls::default() };
    for (before, value, efer) in [
        (long, EFER_LME | EFER_NXE, Some(EFER_LME | EFER_LMA | EFER_NXE)),
        (long, EFER_LMA | EFER_NXE, None),
        (long, EFER_LME | EFER_SVME, None),
        (long, EFER_LME | 1 << 63, None),
        (paging, EFER_LME, None),
        (off, EFER_LME | EFER_LMA, Some(EFER_LME)),
    ] {
        let mut bench = Bench::with(&indexed(msr::EFER, value));
        bench.cpu.controls = before;
        let expected = efer.map_or((REFUSED, vec![]), |efer| {
            (Outcome::Advance, vec![Action::SetControls(Controls { efer, ..before })])
        });
        assert_eq!(bench.answer(Exit::Wrmsr), expected, "{value:#x}");
        assert_eq!(bench.answer(Exit::Rdmsr), (Outcome::Advance, vec![]));
        assert_eq!(bench.cpu.registers.edx_eax(), efer.unwrap_or(before.efer), "{value:#x} reads back");
    }
}

#[test]
fn xsetbv_faults_as_on_the_cpu() {
    let all = u64::from(XCR0_SUPPORTED);
    for (register, value, good) in [
        (0, 1, true),
        (0, all, true),
        (0, 5, false),
        (0, all | 1 << 9, false),
        (0, 1 << 32 | 1, false),
        (1, 1, false),
    ] {
        let mut bench = with_xsave(&indexed(register, value));
        let expected =
            if good { (Outcome::Advance, vec![Action::Xsetbv(register, value)]) } else { (REFUSED, vec![]) };
        assert_eq!(bench.answer(Exit::Xsetbv), expected, "{register}: {value:#x}");
    }
    let mut bench = with_xsave(&indexed(0, 7));
    bench.cpu.faults = true;
    assert_eq!(
        bench.answer(Exit::Xsetbv),
        (REFUSED, vec![Action::Xsetbv(0, 7)]),
        "the CPU refuses the value"
    );
    let mut bench = with_xsave(&indexed(0, 7));
    bench.cpu.cpl = 3;
    assert_eq!(bench.answer(Exit::Xsetbv), (REFUSED, vec![]), "only at privilege level 0");
    bench.cpu.controls.cr4 = 0;
    let undefined = (Outcome::Inject(Exception::InvalidOpcode), vec![]);
    assert_eq!(bench.answer(Exit::Xsetbv), undefined, "without CR4.OSXSAVE there is no such instruction");
}

/// Returns a bench whose guest has set CR4.OSXSAVE.
fn with_xsave(registers: &[(Register, u64)]) -> Bench {
    let mut bench = Bench::with(registers);
    bench.cpu.controls.cr4 = CR4_OSXSAVE;
    bench
}
