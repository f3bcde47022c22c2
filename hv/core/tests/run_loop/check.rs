//! The rules for entering the guest, as they are asked after a failure.

use vidar_core::svm::vmcb::Page;
use vidar_core::vmm::check::explain;
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
