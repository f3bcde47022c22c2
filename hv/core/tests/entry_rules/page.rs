//! The page on the rules has each of them as the tables have it.

use std::fmt::Write;

use vidar_core::vmm::rules::{Section, Subject};
use vidar_core::{svm, vmx};

const PAGE: &str = include_str!("../../../doc/entry-rules.md");

/// Adds the rules of `sections` to the text, with a heading for each section.
fn write<S: Subject>(text: &mut String, sections: &[Section<S>]) {
    let mut last = "";
    for section in sections {
        let Section { manual, number, title, .. } = section;
        if *title != last {
            write!(text, "\n### {manual}, {number} \"{title}\"\n\n| rule | says |\n|---|---|\n").unwrap();
        }
        last = title;
        for (id, says) in section.rules() {
            writeln!(text, "| {id} | {says} |").unwrap();
        }
    }
}

#[test]
fn the_page_has_every_rule() {
    let mut text = String::new();
    write(&mut text, &vmx::rules::OWN);
    text += "\n## Rules of controls that Vidar never sets\n";
    write(&mut text, &vmx::rules::OTHERS);
    text += "\n## Rules of VMRUN\n";
    write(&mut text, &svm::rules::SECTIONS);
    assert!(PAGE.contains(&text), "{} should have:\n{text}", "hv/doc/entry-rules.md");
}
