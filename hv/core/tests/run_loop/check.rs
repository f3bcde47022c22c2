//! The rules for entering the guest, as they are asked after a failure and before each entry.

use vidar_core::svm::vmcb::{Clean, Page};
use vidar_core::vmm::check::{Check, explain};
use zerocopy::FromZeros;

use crate::cpu::FakeCpu;

/// Returns a CPU whose VMCB is empty, which breaks three rules.
fn empty() -> FakeCpu {
    FakeCpu { vmcb: Some(Box::new(Page::new_zeroed())), ..FakeCpu::new() }
}

/// Returns the numbers of the rules that `said` names.
fn named(said: &[String]) -> Vec<&str> {
    let number = |text: &'_ String| text.find("rule ").map(|at| at + 5);
    said.iter().map(|text| text[number(text).unwrap()..].split(' ').next().unwrap()).collect()
}

fn explained(cpu: &FakeCpu, code: u32) -> Vec<String> {
    let mut said = Vec::new();
    explain(cpu, code, &mut |text| said.push(text.to_string()));
    said
}

#[test]
fn a_failure_is_explained_by_all_rules_that_are_broken() {
    let said = explained(&empty(), 33);
    assert_eq!(named(&said), ["A1", "A9a", "A9b", "A11a"]);
    assert!(said[3].ends_with("EVENTINJ 0x80000100"), "{said:?}");
}

#[test]
fn a_failure_that_no_rule_explains_is_said_to_be_one() {
    let said = explained(&FakeCpu::new(), 7);
    assert_eq!(
        said,
        ["the state breaks no rule that Vidar knows; please report this together with the text above"]
    );
    // The rules are not asked about errors that they cannot explain.
    let said = explained(&empty(), 0);
    assert!(
        said.len() == 1 && said[0].starts_with("the CPU has no current VMCS (VMfailInvalid)"),
        "{said:?}"
    );
    let said = explained(&empty(), 26);
    assert!(said.len() == 1 && said[0].starts_with("this error is not about the guest's state"), "{said:?}");
}

#[test]
fn before_entries_each_broken_rule_is_said_once() {
    let mut cpu = empty();
    let mut check = Check::default();
    let mut ask = |cpu: &FakeCpu| {
        let mut said = Vec::new();
        check.ask(cpu, &mut |text| said.push(text.to_string()));
        said
    };
    let said = ask(&cpu);
    assert_eq!(named(&said), ["A1", "A9a", "A9b"]);
    let first = "the check before an entry on CPU 0: rule A1 is broken: EFER.SVME is 1.\n";
    assert!(said[0].starts_with(first), "{said:?}");
    assert_eq!(ask(&cpu), [""; 0]);
    cpu.vmcb.as_mut().unwrap().save_mut(Clean::ALL).cr4 = 1 << 30;
    assert_eq!(named(&ask(&cpu)), ["A4b"]);
    assert_eq!(ask(&FakeCpu::new()), [""; 0]);
}
