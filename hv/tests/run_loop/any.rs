//! Any exits in any mode with any registers.

use std::ops::Range;

use crate::bench::{Bench, CR4_ALLOWED, Did, EFER_ALLOWED, LOADED, MSRS, PHYSICAL_ADDRESS_BITS, REGION};
use crate::{denied, touch};
use proptest::prelude::*;
use vidar::arch::msr::{self, EFER_LMA, EFER_LME};
use vidar::mem::addr::{Gpa, Hpa, PAGE_SIZE, overlaps};
use vidar::mem::stage2::REACH;
use vidar::vmm::control::*;
use vidar::vmm::exit::{ControlWrite, Exit, Immediate, Violation};
use vidar::vmm::msr::{Write, policy};
use vidar::vmm::outcome::Stop;
use vidar::vmm::registers::Register::{self, Rcx};

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
    let rows: Vec<_> = MSRS.iter().copied().flatten().map(|row| row.indices.clone()).collect();
    prop::sample::select(rows).prop_flat_map(|row| row)
}

fn exit() -> impl Strategy<Value = Exit> {
    let write = prop_oneof![
        (0u64..16).prop_map(|number| ControlWrite::Cr0(Register::from_number(number))),
        (0u64..16).prop_map(|number| ControlWrite::Cr4(Register::from_number(number))),
        Just(ControlWrite::Clts),
        any::<u16>().prop_map(ControlWrite::Lmsw),
    ];
    let others = crate::answers::every_exit().into_iter().map(|(exit, ..)| exit).collect::<Vec<_>>();
    prop_oneof![
        3 => write.prop_map(Exit::ControlWrite),
        3 => value().prop_map(|address| touch(Gpa(address))),
        1 => value().prop_map(|address| denied(Gpa(address))),
        3 => Just(Exit::Wrmsr),
        1 => (msr_index(), 0u64..16).prop_map(|(index, number)| {
            Exit::WrmsrImmediate(Immediate { index, register: Register::from_number(number) })
        }),
        1 => (any::<u32>(), any::<u64>()).prop_map(|(code, qualification)| Exit::Unknown { code, qualification }),
        4 => prop::sample::select(others),
    ]
}

/// What may be done to the CPU, whatever the exit was.
fn check_effects(exit: &Exit, did: &[Did], before: &Controls) -> Result<(), TestCaseError> {
    let moves = did
        .iter()
        .filter(|did| matches!(did, Did::Advance | Did::Inject(_) | Did::Init { .. } | Did::Startup(_)))
        .count();
    prop_assert!(moves <= 1, "{:?}", did);
    for (.., pages) in LOADED.take() {
        prop_assert!(!pages.iter().any(|page| REGION.contains(page)), "{:?}", pages);
    }
    for did in did {
        match *did {
            Did::Wrmsr(index, value) => {
                let allowed = match policy(MSRS, index).1 {
                    Write::Refuse
                    | Write::Ignore
                    | Write::Microcode(_)
                    | Write::Efer
                    | Write::EferIfWatched
                    | Write::Icr => false,
                    Write::MiscEnable => value & (1 << 12 | 1 << 34) == 0,
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
                if matches!(exit, Exit::Wrmsr | Exit::WrmsrImmediate(_)) {
                    prop_assert_eq!((cr0, cr4), (before.cr0, before.cr4));
                    prop_assert!(
                        efer & !(EFER_ALLOWED | EFER_LMA) == 0 && efer & EFER_LMA == lma,
                        "{:#x}",
                        efer
                    );
                } else {
                    prop_assert_eq!(efer, before.efer & !EFER_LMA | lma);
                }
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
        Exit::TaskSwitch(_) => stop == Stop::TaskSwitch,
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
            check_effects(&exit, &did, &before)?;
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
