//! The run loop on a CPU that follows a script: what each exit comes to.

mod common;

use std::ops::Range;

use common::{Bench, CR4_ALLOWED, Did, PHYSICAL_ADDRESS_BITS, REGION, XCR0_SUPPORTED};
use common::{native_cpuid, pdptes_at, warnings};
use proptest::prelude::*;
use vidar::arch::msr::{self, EFER_LMA, EFER_LME};
use vidar::mem::addr::{Gpa, Hpa, PAGE_SIZE, overlaps};
use vidar::mem::mtrr::IA32_MTRR_DEF_TYPE;
use vidar::mem::mtrr::MemoryType::{Uncacheable, WriteBack, WriteCombining};
use vidar::mem::stage2::REACH;
use vidar::vmm::backend::Vcpu;
use vidar::vmm::control::*;
use vidar::vmm::exit::{ControlWrite, Exit, Violation};
use vidar::vmm::msr::{Write, policy};
use vidar::vmm::outcome::{Exception, Outcome, Stop};
use vidar::vmm::registers::Register::{self, Rax, Rbx, Rcx, Rdi, Rdx, Rsi};
use vidar_abi::{Call, ExitKind, MAGIC, Status, VERSION, Vendor};

const REFUSED: Outcome = Outcome::Inject(Exception::GeneralProtection);
/// Ones where an instruction must not look.
const HIGH: u64 = 0xffff_ffff_0000_0000;
/// An MSR that is simply the CPU's, and one that it lacks.
const TSC: u32 = 0x10;
const ABSENT: u32 = 0x2_0000;
/// The APIC's page, and a device that no table of RAM leads to. Nothing has touched them.
const APIC: Gpa = Gpa(0xfee0_0000);
const FAR: Gpa = Gpa(0xff_1234_5678);

fn touch(address: Gpa) -> Exit {
    Exit::SecondStage(Violation { address, mapped: false })
}

fn denied(address: Gpa) -> Exit {
    Exit::SecondStage(Violation { address, mapped: true })
}

/// The registers of an instruction that takes an index in ECX and a value in EDX:EAX.
fn indexed(index: u32, value: u64) -> [(Register, u64); 3] {
    let (high, low) = (value >> 32, value & 0xffff_ffff);
    [(Rcx, HIGH | u64::from(index)), (Rax, HIGH | low), (Rdx, HIGH | high)]
}

/// An exit of each variant with ECX: the outcome, and what it does to the CPU. EDX:EAX holds 7, CR0 protected mode.
fn every_exit() -> Vec<(Exit, u32, Outcome, Vec<Did>)> {
    use Outcome::{Advance, Init, Inject, Resume};
    let protected = CR0_PE | CR0_ET | CR0_NE;
    let controls = |cr0, cr4| vec![Did::SetControls(Controls { cr0, cr4, ..Controls::default() })];
    vec![
        (Exit::Cpuid, 0, Advance, vec![]),
        (Exit::Rdmsr, TSC, Advance, vec![]),
        (Exit::Rdmsr, ABSENT, REFUSED, vec![]),
        (Exit::Wrmsr, TSC, Advance, vec![Did::Wrmsr(TSC, 7)]),
        (Exit::Wrmsr, ABSENT, REFUSED, vec![Did::Wrmsr(ABSENT, 7)]),
        (Exit::ControlWrite(ControlWrite::Cr0(Rax)), 0, Advance, controls(7 | CR0_ET, 0)),
        (Exit::ControlWrite(ControlWrite::Clts), 0, Advance, controls(protected, 0)),
        (Exit::ControlWrite(ControlWrite::Lmsw(8)), 0, Advance, controls(protected | CR0_TS, 0)),
        (Exit::ControlWrite(ControlWrite::Cr4(Rax)), 0, Advance, controls(protected, 7)),
        (Exit::ControlWrite(ControlWrite::Cr4(Rcx)), CR4_VMXE as u32, REFUSED, vec![]),
        (Exit::Xsetbv, 0, Advance, vec![Did::Xsetbv(0, 7)]),
        (Exit::Xsetbv, 1, REFUSED, vec![]),
        (Exit::Invd, 0, Advance, vec![Did::Wbinvd]),
        (Exit::Hypercall, 0, Advance, vec![]),
        (Exit::Virtualization, 0, Inject(Exception::InvalidOpcode), vec![]),
        (touch(APIC), 0, Resume, vec![]),
        (touch(REGION.start.identity()), 0, Resume, vec![]),
        (denied(APIC), 0, Outcome::Stop(Stop::Unanswered), vec![]),
        (touch(Gpa(REACH)), 0, Outcome::Stop(Stop::OutOfReach), vec![]),
        (Exit::Init, 0, Init, vec![]),
        (Exit::Sipi(0x9f), 0, Resume, vec![]),
        (Exit::Nmi, 0, Resume, vec![]),
        (Exit::Window, 0, Resume, vec![]),
        (Exit::TripleFault, 0, Outcome::Stop(Stop::TripleFault), vec![]),
        (Exit::EntryFailed { code: 33, qualification: 4 }, 0, Outcome::Stop(Stop::EntryFailed), vec![]),
        (Exit::Unknown { code: 9, qualification: 5 }, 0, Outcome::Stop(Stop::Unanswered), vec![]),
    ]
}

#[test]
fn every_exit_has_its_answer() {
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
fn the_loop_applies_each_outcome_once() {
    for (exit, index, outcome, effects) in every_exit() {
        let mut bench = Bench::with(&indexed(index, 7));
        let next = Exit::Unknown { code: u32::MAX, qualification: 0 };
        let (end, did) = bench.run(&[exit, next]);
        let applied = match outcome {
            Outcome::Advance => vec![Did::Advance, Did::Run],
            Outcome::Resume => vec![Did::Run],
            Outcome::Inject(exception) => vec![Did::Inject(exception), Did::Run],
            Outcome::Init => vec![Did::Init, Did::Run],
            Outcome::Stop(stop) => {
                assert_eq!(end, (stop, exit));
                vec![]
            }
        };
        assert_eq!(did, [vec![Did::Run], effects, applied].concat(), "{exit:?}");
        if !matches!(outcome, Outcome::Stop(_)) {
            assert_eq!(end, (Stop::Unanswered, next), "{exit:?}");
        }
    }
}

#[test]
fn every_exit_is_counted_as_its_kind() {
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
    let counted: Vec<_> = ExitKind::ALL.iter().map(|kind| bench.cpu.counters().get(*kind)).collect();
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
fn rdmsr_by_policy() {
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
fn wrmsr_by_policy() {
    let base = REGION.start.0;
    for (index, value, outcome, tried) in [
        (TSC, 0x1_0000_0002, Outcome::Advance, true),
        (ABSENT, 2, REFUSED, true),
        (msr::PAT, 6, Outcome::Advance, true),
        (msr::FEATURE_CONTROL, 5, REFUSED, false),
        (msr::BIOS_UPDT_TRIG, 0xffff_ffff_8123_4567, Outcome::Advance, false),
        (msr::MISC_ENABLE, 1, Outcome::Advance, true),
        (msr::MISC_ENABLE, 1 << 34 | 1, REFUSED, false),
        (msr::PEBS_ENABLE, 0, Outcome::Advance, true),
        (msr::PEBS_ENABLE, 1, REFUSED, false),
        (msr::SMM_MONITOR_CTL, 1, REFUSED, false),
        (msr::VMX_BASIC, 0, REFUSED, false),
        (msr::VM_CR, 0, REFUSED, false),
        (msr::VM_HSAVE_PA, base, REFUSED, false),
        // The APIC on the first page and on the last of the region; beside it, and far away.
        (msr::APIC_BASE, base | 0x900, REFUSED, false),
        (msr::APIC_BASE, (REGION.end.0 - PAGE_SIZE) | 0xd00, REFUSED, false),
        (msr::APIC_BASE, (base - PAGE_SIZE) | 0x900, Outcome::Advance, true),
        (msr::APIC_BASE, REGION.end.0 | 0x900, Outcome::Advance, true),
        (msr::APIC_BASE, 0xff_fee0_0900, Outcome::Advance, true),
    ] {
        let mut bench = Bench::with(&indexed(index, value));
        let before = (bench.cpu.registers, bench.pages());
        let did = if tried { vec![Did::Wrmsr(index, value)] } else { vec![] };
        assert_eq!(bench.answer(Exit::Wrmsr), (outcome, did), "{index:#x} = {value:#x}");
        assert_eq!((bench.cpu.registers, bench.pages()), before);
    }
}

#[test]
fn memory_types_follow_a_write_to_an_mtrr() {
    let mut bench = Bench::with(&indexed(0x202, 0x40_0001));
    let [below, inside, above] = [0x3f_f000, 0x40_0000, 0x60_0000].map(Gpa);
    let types = |bench: &Bench| {
        [below, inside, above].map(|gpa| bench.translate(gpa).map(|(_, memory_type)| memory_type))
    };
    bench.answer(touch(APIC));
    // 4 MiB to 6 MiB WC. The pair is not in use yet.
    assert_eq!(bench.answer(Exit::Wrmsr), (Outcome::Advance, vec![Did::Wrmsr(0x202, 0x40_0001), Did::Flush]));
    assert_eq!(types(&bench), [Some(WriteBack); 3]);
    assert_eq!(bench.translate(APIC), None, "what is no RAM is mapped again when it is touched");
    for (index, value, expected) in [
        (0x203, 0xff_ffe0_0800, [Some(WriteBack), Some(WriteCombining), Some(WriteBack)]),
        (IA32_MTRR_DEF_TYPE, 0xc00, [Some(Uncacheable), Some(WriteCombining), Some(Uncacheable)]),
        (IA32_MTRR_DEF_TYPE, 0, [Some(Uncacheable); 3]),
    ] {
        indexed(index, value).iter().for_each(|(register, value)| bench.cpu.registers.set(*register, *value));
        let did = vec![Did::Wrmsr(index, value), Did::Flush];
        assert_eq!(bench.answer(Exit::Wrmsr), (Outcome::Advance, did));
        assert_eq!(types(&bench), expected, "{index:#x} = {value:#x}");
    }
}

#[test]
fn writing_back_what_an_mtrr_holds_does_nothing() {
    for (index, value) in [(0x200, 0xc000_0000), (IA32_MTRR_DEF_TYPE, 0xc06), (0x259, 0)] {
        let mut bench = Bench::with(&indexed(index, value));
        bench.answer(touch(APIC));
        let before = bench.pages();
        assert_eq!(bench.answer(Exit::Wrmsr), (Outcome::Advance, vec![]));
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
        assert_eq!(bench.answer(Exit::Wrmsr), (REFUSED, vec![Did::Wrmsr(index, value)]));
        assert_eq!(bench.pages(), before);
    }
}

#[test]
fn with_few_frames_an_mtrr_leaves_ram_to_be_mapped_on_touch() {
    let mut bench = Bench::with(&indexed(0x268, 0));
    bench.frames(|frames| frames.limit(4));
    assert_eq!(bench.answer(Exit::Wrmsr).0, Outcome::Advance);
    let address = Gpa(0x180_0000);
    assert_eq!(bench.translate(address), None);
    assert_eq!(bench.answer(touch(address)), (Outcome::Resume, vec![]));
    assert_eq!(bench.translate(address), Some((address.identity(), WriteBack)));
}

#[test]
fn xsetbv_as_the_cpu_takes_it() {
    let all = u64::from(XCR0_SUPPORTED);
    for (register, value, good) in [
        (0, 1, true),
        (0, all, true),
        (0, 5, false),
        (0, all | 1 << 9, false),
        (0, 1 << 32 | 1, false),
        (1, 1, false),
    ] {
        let mut bench = Bench::with(&indexed(register, value));
        let expected =
            if good { (Outcome::Advance, vec![Did::Xsetbv(register, value)]) } else { (REFUSED, vec![]) };
        assert_eq!(bench.answer(Exit::Xsetbv), expected, "{register}: {value:#x}");
    }
    let mut bench = Bench::with(&indexed(0, 7));
    bench.cpu.faults = true;
    assert_eq!(bench.answer(Exit::Xsetbv), (REFUSED, vec![Did::Xsetbv(0, 7)]), "the CPU has the last word");
    let mut bench = Bench::with(&indexed(0, 7));
    bench.cpu.cpl = 3;
    assert_eq!(bench.answer(Exit::Xsetbv), (REFUSED, vec![]), "only at privilege level 0");
}

#[test]
fn hypercalls_tell_of_the_machine() {
    let call = |bench: &mut Bench, call: u64, rbx, rcx| {
        [(Rax, call), (Rbx, rbx), (Rcx, rcx)]
            .iter()
            .for_each(|(r, value)| bench.cpu.registers.set(*r, *value));
        let (_, did) = bench.run(&[Exit::Hypercall, Exit::TripleFault]);
        assert_eq!(did, [Did::Run, Did::Advance, Did::Run]);
        [Rax, Rbx, Rcx, Rdx, Rsi, Rdi].map(|register| bench.get(register))
    };
    let mut bench = Bench::with(&[]);
    let ok = Status::Ok as u64;
    let got = call(&mut bench, Call::Version as u64, 0, 0);
    assert_eq!(got[..3], [ok, MAGIC, VERSION.to_raw().into()]);
    let got = call(&mut bench, Call::Status as u64, 0, 0);
    // So far two hypercalls, this one among them, and a triple fault.
    assert_eq!(got, [ok, REGION.start.0, REGION.end.0 - REGION.start.0, Vendor::Vmx as u64, 1, 3]);
    let got = call(&mut bench, Call::Exits as u64, 0, ExitKind::Hypercall as u64);
    assert_eq!(got[..2], [ok, 3]);
    let got = call(&mut bench, Call::Exits as u64, 1, 0);
    assert_eq!(got[..3], [Status::BadArgument as u64, 1, 0], "there is one CPU");
    let got = call(&mut bench, Call::Log as u64, 77, 0);
    assert_eq!(
        (&got[..4], bench.get(Register::R8)),
        (&[ok, 77, 2, 0][..], u64::from_le_bytes(*b"ok\0\0\0\0\0\0"))
    );
    let got = call(&mut bench, 1 << 32, 8, 9);
    assert_eq!(got[..3], [Status::UnknownCall as u64, 8, 9], "all of RAX is the number");
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
fn vidars_memory_is_shown_as_a_decoy_and_reported_once() {
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
    assert!(bench.frames(|frames| frames.get(shown[0]).iter().all(|word| *word == 0)));
    assert_ne!(shown[0], bench.machine.memory.lock().root());
    let [below, above] = [REGION.start.0 - 1, REGION.end.0].map(Gpa);
    for beside in [below, above] {
        assert_eq!(bench.translate(beside), Some((beside.identity(), WriteBack)));
    }
}

#[test]
fn without_frames_the_tables_are_remade() {
    let mut bench = Bench::new();
    let ram = Gpa(0x180_0000);
    bench.frames(|frames| frames.limit(frames.used()));
    assert!(bench.translate(ram).is_some());
    assert_eq!(bench.answer(touch(FAR)), (Outcome::Resume, vec![Did::Flush]));
    assert_eq!(bench.translate(FAR), Some((FAR.identity(), WriteBack)));
    assert_eq!(bench.translate(ram), None);
    assert_eq!(bench.answer(touch(ram)), (Outcome::Resume, vec![]), "there are frames again");
    assert_eq!(bench.translate(ram), Some((ram.identity(), WriteBack)));
    assert_eq!(bench.translate(FAR), Some((FAR.identity(), WriteBack)));
}

#[test]
fn without_frames_for_one_page_the_guest_stops() {
    let mut bench = Bench::new();
    // The root and the decoy are all there is.
    bench.frames(|frames| frames.limit(2));
    let (end, did) = bench.run(&[touch(FAR)]);
    assert_eq!(end, (Stop::OutOfFrames, touch(FAR)));
    assert_eq!(did, [Did::Run]);
}

fn pae(cr3: u64) -> Bench {
    let mut bench = Bench::new();
    bench.cpu.controls = Controls { cr0: CR0_PE | CR0_ET, cr3, cr4: CR4_PAE, efer: 0, cs_l: false };
    bench.cpu.registers.set(Rbx, CR0_PG | CR0_PE);
    bench
}

const PAGING_ON: Exit = Exit::ControlWrite(ControlWrite::Cr0(Rbx));

#[test]
fn pae_paging_loads_its_entries_first() {
    // In CR3 bits 4:0 are none of the address.
    for cr3 in [0x10_0040, 0x10_005f, 0x1ff_ffc0] {
        let mut bench = pae(cr3);
        let controls = Controls { cr0: CR0_PG | CR0_PE | CR0_ET, ..bench.cpu.controls };
        let entries = pdptes_at(Gpa(cr3 & !0x1f));
        let did = vec![Did::SetPdptes(entries), Did::SetControls(controls)];
        assert_eq!(bench.answer(PAGING_ON), (Outcome::Advance, did), "{cr3:#x}");
        // A change of CR4.PGE loads them again, and one of OSFXSR does not.
        bench.cpu.registers.set(Rbx, CR4_PAE | 1 << 7);
        let controls = Controls { cr4: CR4_PAE | 1 << 7, ..controls };
        let did = vec![Did::SetPdptes(entries), Did::SetControls(controls)];
        let cr4 = Exit::ControlWrite(ControlWrite::Cr4(Rbx));
        assert_eq!(bench.answer(cr4), (Outcome::Advance, did));
        bench.cpu.registers.set(Rbx, CR4_PAE | 1 << 7 | 1 << 9);
        let controls = Controls { cr4: CR4_PAE | 1 << 7 | 1 << 9, ..controls };
        assert_eq!(bench.answer(cr4), (Outcome::Advance, vec![Did::SetControls(controls)]));
    }
}

#[test]
fn bad_pae_entries_fault_and_change_nothing() {
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
fn pae_entries_outside_ram_are_not_present() {
    // A hole, Vidar's own memory, the end of RAM inside a page, and a device; `read_ram` fails if it is asked.
    for cr3 in [0x9_f000, REGION.start.0 + 0x20, REGION.end.0 - 0x20, 0x200_0000, APIC.0 + 0x20] {
        let mut bench = pae(cr3);
        let controls = Controls { cr0: CR0_PG | CR0_PE | CR0_ET, ..bench.cpu.controls };
        let did = vec![Did::SetPdptes([0; 4]), Did::SetControls(controls)];
        assert_eq!(bench.answer(PAGING_ON), (Outcome::Advance, did), "{cr3:#x}");
    }
}

#[test]
fn long_mode_is_switched_with_paging() {
    let mut bench = pae(0x1000);
    bench.cpu.controls.efer = EFER_LME;
    let off = bench.cpu.controls;
    let on = Controls { cr0: CR0_PG | CR0_PE | CR0_ET, efer: EFER_LME | EFER_LMA, ..off };
    assert_eq!(bench.answer(PAGING_ON), (Outcome::Advance, vec![Did::SetControls(on)]));
    bench.cpu.registers.set(Rbx, CR0_PE);
    assert_eq!(bench.answer(PAGING_ON), (Outcome::Advance, vec![Did::SetControls(off)]));
    bench.cpu.controls = Controls { cs_l: true, ..on };
    assert_eq!(bench.answer(PAGING_ON), (REFUSED, vec![]), "not from 64-bit code");
    bench.cpu.registers.set(Rbx, 0);
    let cr4 = Exit::ControlWrite(ControlWrite::Cr4(Rbx));
    assert_eq!(bench.answer(cr4), (REFUSED, vec![]), "not without PAE");
}

/// CPU modes that a guest can be in.
fn controls() -> impl Strategy<Value = Controls> {
    let modes = [
        (CR0_ET, 0, 0, false),
        (CR0_PE | CR0_ET, CR4_PAE, EFER_LME, false),
        (CR0_PG | CR0_PE | CR0_ET, 0, 0, false),
        (CR0_PG | CR0_PE | CR0_ET, CR4_PAE, 0, false),
        (CR0_PG | CR0_PE | CR0_ET | CR0_WP, CR4_PAE, EFER_LME | EFER_LMA, false),
        (CR0_PG | CR0_PE | CR0_ET | CR0_WP, CR4_PAE | CR4_PCIDE, EFER_LME | EFER_LMA, true),
    ];
    (prop::sample::select(modes.to_vec()), value()).prop_map(|((cr0, cr4, efer, cs_l), cr3)| Controls {
        cr0,
        cr3,
        cr4,
        efer,
        cs_l,
    })
}

/// Contents of a register that something may hinge on.
fn value() -> impl Strategy<Value = u64> {
    let near = |range: Range<u64>| (range, -2i64..3).prop_map(|(at, off)| at.wrapping_add_signed(off));
    let special = [1, 7, 0xd, 0x19, 0x4000_0000, 0x8000_0001, CR0_PG | CR0_PE, CR4_PAE, CR4_PAE | CR4_LA57];
    prop_oneof![
        any::<u64>(),
        any::<u32>().prop_map(u64::from),
        (0u64..16),
        near(0..1),
        near(REGION.start.0..REGION.end.0),
        near(REGION.start.0..REGION.start.0 + 1),
        near(REGION.end.0..REGION.end.0 + 1),
        (0..0x200_0000u64),
        (any::<u64>(), 0..64u32).prop_map(|(value, shift)| value & 1 << shift),
        prop::sample::select(special.to_vec()),
        (msr_index(), any::<u32>()).prop_map(|(index, high)| u64::from(high) << 32 | u64::from(index)),
    ]
}

fn msr_index() -> impl Strategy<Value = u32> {
    let rows: Vec<_> = vidar::vmm::msr::TABLE.iter().flat_map(|row| row.indices.clone()).collect();
    prop::sample::select(rows)
}

fn exit() -> impl Strategy<Value = Exit> {
    let write = prop_oneof![
        (0u64..16).prop_map(|number| ControlWrite::Cr0(Register::from_number(number))),
        (0u64..16).prop_map(|number| ControlWrite::Cr4(Register::from_number(number))),
        Just(ControlWrite::Clts),
        any::<u16>().prop_map(ControlWrite::Lmsw),
    ];
    let others = every_exit().into_iter().map(|(exit, ..)| exit).collect::<Vec<_>>();
    prop_oneof![
        3 => write.prop_map(Exit::ControlWrite),
        3 => value().prop_map(|address| touch(Gpa(address))),
        1 => value().prop_map(|address| denied(Gpa(address))),
        3 => Just(Exit::Wrmsr),
        1 => (any::<u32>(), any::<u64>()).prop_map(|(code, qualification)| Exit::Unknown { code, qualification }),
        4 => prop::sample::select(others),
    ]
}

/// What may be done to the CPU, whatever the exit was.
fn check_effects(did: &[Did], before: &Controls) -> Result<(), TestCaseError> {
    let moves = did.iter().filter(|did| matches!(did, Did::Advance | Did::Inject(_) | Did::Init)).count();
    prop_assert!(moves <= 1, "{:?}", did);
    for did in did {
        match *did {
            Did::Wrmsr(index, value) => {
                let allowed = match policy(index).1 {
                    Write::Refuse | Write::Ignore => false,
                    Write::Without(bits) => value & bits == 0,
                    Write::Native | Write::Mtrr | Write::ApicBase => true,
                };
                prop_assert!(allowed, "{:#x} = {:#x}", index, value);
                let page = Hpa(value & 0xf_ffff_ffff_f000);
                prop_assert!(index != msr::APIC_BASE || !REGION.contains(&page), "{:#x}", value);
            }
            Did::SetControls(Controls { cr0, cr3, cr4, efer, cs_l }) => {
                let has = |bit| cr0 & bit != 0;
                prop_assert_eq!((cr3, cs_l), (before.cr3, before.cs_l));
                prop_assert!(cr0 >> 32 == 0 && has(CR0_ET) && (has(CR0_PE) || !has(CR0_PG)), "{:#x}", cr0);
                prop_assert!(cr4 & !CR4_ALLOWED == 0, "{:#x}", cr4);
                let lma = if has(CR0_PG) && efer & EFER_LME != 0 { EFER_LMA } else { 0 };
                prop_assert_eq!(efer, before.efer & !EFER_LMA | lma);
                prop_assert!(lma == 0 || cr4 & CR4_PAE != 0);
            }
            Did::SetPdptes(entries) => prop_assert!(valid_pdptes(&entries, PHYSICAL_ADDRESS_BITS)),
            _ => {}
        }
    }
    Ok(())
}

/// What the guest may reach: the machine as it is, and in place of Vidar's memory one page that is nothing else.
fn check_memory(bench: &Bench, decoy: Hpa) -> Result<(), TestCaseError> {
    for page in bench.pages() {
        let bytes = page.hpa..page.hpa + page.size.bytes();
        if REGION.contains(&page.gpa.identity()) {
            prop_assert_eq!((bytes.start, bytes.end.0 - bytes.start.0), (decoy, PAGE_SIZE));
        } else {
            prop_assert!(page.hpa == page.gpa.identity() && !overlaps(&bytes, &REGION), "{:?}", page);
        }
    }
    prop_assert!(bench.frames(|frames| frames.get(decoy).iter().all(|word| *word == 0)));
    Ok(())
}

/// Whether the guest may stop for `stop` at `exit`.
fn may_stop(stop: Stop, exit: Exit) -> bool {
    match exit {
        Exit::SecondStage(violation) if violation.mapped => stop == Stop::Unanswered,
        Exit::SecondStage(violation) => stop == Stop::OutOfReach && violation.address.0 >= REACH,
        Exit::TripleFault => stop == Stop::TripleFault,
        Exit::EntryFailed { .. } => stop == Stop::EntryFailed,
        Exit::Unknown { .. } => stop == Stop::Unanswered,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_guest_does(
        modes in prop::collection::vec(controls(), 12),
        steps in prop::collection::vec((exit(), prop::collection::vec(value(), 16), prop::option::of(msr_index()), prop::bool::weighted(0.1)), 12),
        limit in 7usize..40,
    ) {
        let mut bench = Bench::new();
        bench.answer(touch(REGION.start.identity()));
        let (decoy, _) = bench.translate(REGION.start.identity()).expect("the decoy");
        bench.frames(|frames| frames.limit(limit.max(frames.used())));
        for ((exit, values, index, faults), before) in steps.into_iter().zip(modes) {
            Register::ALL.iter().zip(values).for_each(|(register, value)| bench.cpu.registers.set(*register, value));
            if let Some(index) = index {
                bench.cpu.registers.set(Rcx, index.into());
            }
            bench.cpu.controls = before;
            bench.cpu.faults = faults;
            let ((stop, last), did) = bench.run(&[exit, Exit::TripleFault]);
            check_effects(&did, &before)?;
            check_memory(&bench, decoy)?;
            if bench.cpu.script.is_empty() {
                prop_assert_eq!((stop, last), (Stop::TripleFault, Exit::TripleFault));
            } else {
                prop_assert_eq!(last, exit);
                prop_assert!(may_stop(stop, exit), "{:?} at {:?}", stop, exit);
                prop_assert_eq!(did, [Did::Run]);
                continue;
            }
            if let Exit::SecondStage(Violation { address, .. }) = exit && address.0 < REACH {
                prop_assert!(bench.translate(address).is_some(), "{} is touched for ever", address);
            }
        }
    }
}
