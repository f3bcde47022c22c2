//! Property test: any exit in any CPU mode with any registers.

use std::ops::Range;

use proptest::prelude::*;
use vidar_core::mem::addr::{Gpa, Hpa, PageSize, overlaps};
use vidar_core::mem::stage2::REACH;
use vidar_core::policy::control::ControlWrite;
use vidar_core::policy::control::*;
use vidar_core::policy::msr::{Write, policy};
use vidar_core::svm::msrs::mmio_config::configuration_space;
use vidar_core::vmm::exit::{Exit, Immediate, Violation};
use vidar_core::vmm::machine::Startup;
use vidar_core::vmm::outcome::Stop;
use vidar_core::x86::msr::{self, EFER_LMA, EFER_LME};
use vidar_core::x86::registers::Register::{self, Rcx};

use crate::bench::{
    Action, Bench, CR4_ALLOWED, EFER_ALLOWED, INSTRUCTION, LOADED, MSRS, PHYSICAL_ADDRESS_BITS, REGION,
};
use crate::{APIC, denied, touch};

/// Returns control registers for the CPU modes of a guest.
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

/// Returns register contents at which behaviour may change.
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
    let rows: Vec<_> = MSRS.iter().copied().flatten().flat_map(|row| row.indices.iter().cloned()).collect();
    prop::sample::select(rows).prop_flat_map(|row| row)
}

/// Returns the bytes at RIP: anything, or a store.
fn instruction() -> impl Strategy<Value = [u8; 16]> {
    let opcode = prop::sample::select(vec![0x87u8, 0x89, 0xa3, 0xc7, 0x09, 0x21, 0x81, 0x83]);
    let store = (opcode, 0u8..0x40, any::<[u8; 16]>()).prop_map(|(opcode, modrm, mut bytes)| {
        (bytes[0], bytes[1]) = (opcode, modrm);
        bytes
    });
    prop_oneof![any::<[u8; 16]>(), store]
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
        1 => (0..0x1000u64).prop_map(|offset| denied(APIC + offset)),
        3 => Just(Exit::Wrmsr),
        1 => (msr_index(), 0u64..16).prop_map(|(index, number)| {
            Exit::WrmsrImmediate(Immediate { index, register: Register::from_number(number) })
        }),
        1 => (any::<u32>(), any::<u64>()).prop_map(|(code, qualification)| Exit::Unknown { code, qualification }),
        4 => prop::sample::select(others),
    ]
}

/// Checks that an exit has had only permitted effects on the CPU.
fn check_effects(exit: &Exit, did: &[Action], before: &Controls, decoy: Hpa) -> Result<(), TestCaseError> {
    let moves = did
        .iter()
        .filter(|did| matches!(did, Action::Advance | Action::Inject(_) | Action::Init | Action::Startup(_)))
        .count();
    prop_assert!(moves <= 1, "{:?}", did);
    for (.., pages) in LOADED.take() {
        prop_assert!(pages.iter().all(|page| *page == decoy || !REGION.contains(page)), "{:?}", pages);
    }
    for did in did {
        match *did {
            Action::Wrmsr(index, value) => {
                let allowed = match (policy(MSRS, index).1, index) {
                    (Write::Refuse | Write::Keep, _) => false,
                    (_, msr::EFER | msr::PAT | msr::GS_BASE | msr::BIOS_UPDT_TRIG | msr::PATCH_LOADER) => {
                        false
                    }
                    (Write::Without(bits), _) => value & bits == 0,
                    (_, msr::MISC_ENABLE) => value & (1 << 12 | 1 << 34) == 0,
                    (_, msr::MMIO_CFG_BASE) => {
                        configuration_space(value).is_none_or(|space| !overlaps(&space, &REGION))
                    }
                    // The address is checked below.
                    (_, msr::APIC_BASE) | (Write::Native, _) => true,
                    (_, 0x200..=0x26f | 0x2ff) => true, // MTRRs
                    // A new handler has to be judged here.
                    (Write::Handled(_) | Write::HandledIfWatched(_), _) => false,
                };
                prop_assert!(allowed, "{:#x} = {:#x}", index, value);
                let page = Hpa(value & 0xf_ffff_ffff_f000);
                prop_assert!(index != msr::APIC_BASE || !REGION.contains(&page), "{:#x}", value);
            }
            Action::SetControls(Controls { cr0, cr3, cr4, efer, cs_l }) => {
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
            Action::SetPdptes(entries) => prop_assert!(valid_pdptes(&entries, PHYSICAL_ADDRESS_BITS)),
            _ => {}
        }
    }
    Ok(())
}

/// What the guest may reach: the machine as it is, and one page that is nothing else in place of Vidar's memory and of
/// what no tables are left for.
fn check_memory(bench: &Bench) -> Result<(), TestCaseError> {
    let decoy = bench.decoy();
    for page in bench.pages() {
        let bytes = page.hpa..page.hpa + page.size.bytes();
        if page.hpa == decoy {
            prop_assert_eq!(page.size, PageSize::Size4K);
        } else {
            prop_assert!(page.hpa == page.gpa.identity() && !overlaps(&bytes, &REGION), "{:?}", page);
        }
    }
    prop_assert!(bench.frames(|frames| frames.get(decoy).iter().all(|word| *word == u64::MAX)));
    Ok(())
}

/// Returns true if the guest may stop for `stop` at `exit`: ARCHITECTURE.md lists these ways.
fn may_stop(stop: Stop, exit: Exit) -> bool {
    match exit {
        Exit::TripleFault => stop == Stop::TripleFault,
        Exit::TaskSwitch(_) => stop == Stop::TaskSwitch,
        Exit::MachineCheck => stop == Stop::MachineCheck,
        Exit::EntryFailed { .. } => stop == Stop::EntryFailed,
        Exit::Unknown { .. } => stop == Stop::Unanswered,
        Exit::Hypercall => stop == Stop::Requested,
        _ => false,
    }
}

/// Returns true if the guest makes progress after an exit: it does not exit at once for the same reason again, unless
/// the CPU decides otherwise the next time.
fn makes_progress(bench: &Bench, exit: &Exit, did: &[Action]) -> bool {
    let moved = did.iter().any(|did| {
        matches!(
            did,
            Action::Advance | Action::Skip(_) | Action::Inject(_) | Action::Init | Action::Startup(_)
        )
    });
    match exit {
        Exit::SecondStage(Violation { mapped: true, .. }) => moved || did.contains(&Action::Flush),
        Exit::SecondStage(Violation { address, .. }) => {
            moved || address.0 < REACH && bench.translate(*address).is_some()
        }
        // An event is delivered with the entry, and what is in memory now is executed.
        Exit::Nmi | Exit::Window | Exit::Changed => true,
        _ => moved,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_exit_is_answered_or_stops_the_guest_as_listed(
        modes in prop::collection::vec(controls(), 12),
        steps in prop::collection::vec((exit(), prop::collection::vec(value(), 16), prop::option::of(msr_index()), prop::bool::weighted(0.1), instruction()), 12),
        limit in 5usize..40,
        others: bool,
        startup in prop::sample::select(vec![Startup::Hardware(()), Startup::Alone, Startup::Emulated { room: Some(0x9e) }]),
    ) {
        let mut bench = if others { Bench::with_others(&[1, 5], startup) } else { Bench::with_others(&[], startup) };
        bench.frames(|frames| frames.limit(limit.max(frames.used())));
        for ((exit, values, index, faults, bytes), before) in steps.into_iter().zip(modes) {
            Register::ALL.iter().zip(values).for_each(|(register, value)| bench.cpu.registers.set(*register, value));
            if let Some(index) = index {
                bench.cpu.registers.set(Rcx, index.into());
            }
            INSTRUCTION.set(bytes);
            bench.cpu.controls = before;
            bench.cpu.faults = faults;
            let ((stop, last), did) = bench.run(&[exit, Exit::TripleFault]);
            check_effects(&exit, &did, &before, bench.decoy())?;
            check_memory(&bench)?;
            if bench.cpu.script.is_empty() {
                prop_assert_eq!((stop, last), (Stop::TripleFault, Exit::TripleFault));
                prop_assert!(makes_progress(&bench, &exit, &did), "{:?} comes again after {:?}", exit, did);
            } else {
                prop_assert_eq!(last, exit);
                prop_assert!(may_stop(stop, exit), "{:?} at {:?}", stop, exit);
                prop_assert_eq!(did, [Action::Run]);
            }
        }
    }
}
