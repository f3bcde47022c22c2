//! The rules of VMRUN, asked about VMCBs that Vidar's own code has set up.

use std::collections::BTreeSet;

use proptest::prelude::*;
use vidar_core::mem::addr::Hpa;
use vidar_core::svm::rules::cases::{CASES, LEGAL, long_mode};
use vidar_core::svm::rules::state::{Facts, State};
use vidar_core::svm::rules::{SECTIONS, broken};
use vidar_core::svm::vmcb::{Clean, Control, Page, Save};
use vidar_core::svm::{event, guest_state, setup};
use vidar_core::vmm::cpu_state::CpuState;
use vidar_core::vmm::outcome::Exception;
use vidar_core::x86::cpuid::Leaf;
use zerocopy::FromZeros;

const FACTS: Facts = Facts { address_bits: 40, cr4: 0x7ff, efer: 0x1d01 };

fn save(page: &mut Page) -> &mut Save {
    page.save_mut(Clean::ALL)
}

fn control(page: &mut Page) -> &mut Control {
    page.control_mut(Clean::ALL)
}

/// Returns the first VMCB of a CPU, as Vidar sets it up for a guest in the state after INIT.
fn valid() -> Page {
    let mut page = Page::new_zeroed();
    save(&mut page).g_pat = 0x0007_0406_0007_0406;
    setup::controls(&mut page, Hpa(0x5000), Hpa(0x7000), true);
    guest_state::load(&mut page, &CpuState::after_init(0));
    page
}

fn found(page: &Page, facts: &Facts) -> Vec<&'static str> {
    let mut ids = Vec::new();
    broken(&State::new(page, facts), &mut |broken| ids.push(broken.id));
    ids
}

#[test]
fn a_vmcb_that_vidar_sets_up_breaks_no_rule() {
    let mut page = valid();
    assert_eq!(found(&page, &FACTS), [""; 0]);
    setup::startup(&mut page, 0x9a);
    assert_eq!(found(&page, &FACTS), [""; 0]);
    for event in [event::NMI, event::SINGLE_STEP, event::inject(Exception::GeneralProtection, true)] {
        control(&mut page).eventinj = event;
        assert_eq!(found(&page, &FACTS), [""; 0], "{event:#x}");
    }
    long_mode(&mut page);
    assert_eq!(found(&page, &FACTS), [""; 0]);
}

#[test]
fn each_case_breaks_its_rule_alone_and_legal_cases_none() {
    for (id, change) in CASES {
        let mut page = valid();
        change(&mut page, 1 << FACTS.address_bits);
        assert_eq!(found(&page, &FACTS), [*id]);
    }
    for (what, change) in LEGAL {
        let mut page = valid();
        change(&mut page, 1 << FACTS.address_bits);
        assert_eq!(found(&page, &FACTS), [""; 0], "{what}");
    }
}

#[test]
fn every_rule_has_a_number_of_its_own_a_sentence_and_a_case() {
    let rules: Vec<_> = SECTIONS.iter().flat_map(|section| section.rules()).collect();
    let unique: BTreeSet<_> = rules.iter().map(|(id, _)| *id).collect();
    assert_eq!(unique.len(), rules.len(), "a number stands for two rules");
    assert_eq!(unique, CASES.iter().map(|(id, _)| *id).collect());
    for (id, says) in rules {
        assert!(says.ends_with('.') && says.starts_with(char::is_uppercase), "{id}");
    }
}

#[test]
fn a_report_names_the_rule_its_section_and_the_values() {
    let mut page = valid();
    save(&mut page).cr4 = 1 << 30;
    let mut texts = Vec::new();
    broken(&State::new(&page, &FACTS), &mut |broken| texts.push(broken.to_string()));
    let expected = "rule A4b is broken: CR4 has only bits that exist.\n  \
                    AMD APM Vol. 2, 15.5.1 \"Basic Operation\"\n  CR4 0x40000000";
    assert_eq!(texts, [expected]);
}

#[test]
fn after_a_failure_the_rules_are_asked_about_the_event_that_the_exit_has_cleared() {
    let page = valid();
    let mut ids = Vec::new();
    let state = State::new(&page, &FACTS).with_event(0x8000_0320);
    broken(&state, &mut |broken| ids.push(broken.id));
    assert_eq!(ids, ["A11b"]);
}

#[test]
fn the_bits_of_cr4_and_efer_that_exist_are_those_of_features() {
    let cpuid = |leaf, _| match leaf {
        0 => Leaf { eax: 0xd, ..Leaf::default() },
        7 => Leaf { ebx: 1 << 7, ..Leaf::default() },
        0x8000_0000 => Leaf { eax: 0x8000_0008, ..Leaf::default() },
        0x8000_0001 => Leaf { edx: 1 << 11 | 1 << 20 | 1 << 29, ..Leaf::default() },
        0x8000_0008 => Leaf { ebx: 1 << 20, ..Leaf::default() },
        _ => Leaf::default(),
    };
    assert_eq!(Facts::new(40, cpuid), Facts { address_bits: 40, cr4: 0x10_07ff, efer: 0x1d01 });
}

proptest! {
    #[test]
    fn asking_never_panics(bits in any::<u32>(), values in any::<[u64; 12]>(), attributes in any::<u16>()) {
        let mut page = valid();
        let [cr0, cr3, cr4, efer, dr6, dr7, g_pat, iopm, msrpm, event, root, allowed] = values;
        let save = save(&mut page);
        (save.cr0, save.cr3, save.cr4, save.efer, save.g_pat) = (cr0, cr3, cr4, efer, g_pat);
        (save.dr6, save.dr7, save.cs.attributes) = (dr6, dr7, attributes);
        let control = control(&mut page);
        (control.iopm_base_pa, control.msrpm_base_pa, control.n_cr3) = (iopm, msrpm, root);
        control.eventinj = event;
        let facts = Facts { address_bits: bits, cr4: allowed, efer: allowed };
        broken(&State::new(&page, &facts), &mut |broken| assert!(!broken.to_string().is_empty()));
    }
}
