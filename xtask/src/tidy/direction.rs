//! Checks which rooms of the hypervisor use which others: `boot → guest, vmx|svm → vmm → mem → arch`.

use super::source::{Broken, Source};
use super::uses::{Scope, Uses};

/// Each room of `hv/src`, with the other rooms that it may use.
const ROOMS: &[(&str, &[&str])] = &[
    ("boot", &["guest", "vmx", "svm", "vmm", "mem", "arch", "debug"]),
    ("guest", &["mem", "arch", "debug"]),
    ("vmx", &["vmm", "mem", "arch", "debug"]),
    ("svm", &["vmm", "mem", "arch", "debug"]),
    ("vmm", &["mem", "arch", "debug"]),
    ("mem", &["arch", "debug"]),
    ("arch", &["debug"]),
    ("debug", &["arch"]),
];

/// The address types, which every room may use.
const FOR_ALL: [&str; 2] = ["mem", "addr"];

/// Checks what a file uses of its crate. `place` is the file's path in `hv/src`; files at the root declare the rooms and
/// are not checked.
pub fn check(place: &str, source: &Source) -> Vec<Broken> {
    let Some((room, _)) = place.split_once('/') else {
        return Vec::new();
    };
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![(1, format!("tidy does not know what {room} may use: add it to the table of rooms"))];
    };
    let mut broken = Vec::new();
    for path in Uses::new(source, Scope::All).all_paths() {
        let ["crate", target, rest @ ..] = &path.parts.iter().map(String::as_str).collect::<Vec<_>>()[..]
        else {
            continue;
        };
        let known = ROOMS.iter().any(|(name, _)| name == target);
        let shared = [target].into_iter().chain(rest).take(2).eq(&FOR_ALL);
        if known && *target != room && !shared && !allowed.contains(target) {
            broken.push((path.line, format!("{room} may not use {target}")));
        }
    }
    broken.dedup();
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(place: &str, text: &str) -> Vec<Broken> {
        check(place, &Source::new(text))
    }

    #[test]
    fn allowed_uses_are_not_reported() {
        for (place, text) in [
            ("boot/mod.rs", "use crate::vmx::Vmx;\nuse crate::{guest, svm::Svm};"),
            ("vmx/exit.rs", "use crate::vmm::Exit;\nuse crate::vmx::fields;"),
            ("vmm/cpuid.rs", "use crate::arch::cpu;\n// crate::vmx is not for us\nlet a = \"crate::vmx\";"),
            ("guest/placement.rs", "use crate::mem::map::Map;"),
            ("arch/msr.rs", "use crate::mem::addr::Hpa;\nuse crate::debug::log;"),
            ("debug/serial.rs", "use crate::mem::addr::{Gpa, Hpa};\npub(crate) fn a() {}"),
            ("main.rs", "use vidar::vmx;"),
        ] {
            assert_eq!(broken(place, text), [], "{place}");
        }
    }

    #[test]
    fn forbidden_uses_are_reported() {
        let may_not = |line, from: &str, to: &str| vec![(line, format!("{from} may not use {to}"))];
        assert_eq!(broken("vmm/run.rs", "\nuse crate::vmx::Vmcs;"), may_not(2, "vmm", "vmx"));
        assert_eq!(broken("vmx/mod.rs", "use crate::svm;"), may_not(1, "vmx", "svm"));
        assert_eq!(broken("arch/gdt.rs", "use crate::mem::frame::Frames;"), may_not(1, "arch", "mem"));
        assert_eq!(broken("mem/heap.rs", "fn a() { crate::vmm::b(); }"), may_not(1, "mem", "vmm"));
        assert_eq!(
            broken("debug/log.rs", "macro_rules! a { () => { $crate::boot::b() } }"),
            may_not(1, "debug", "boot")
        );
    }

    #[test]
    fn each_path_of_a_group_is_checked() {
        let text = "use crate::{\n    arch::cpu,\n    mem::{addr::Hpa, frame::{self, Frames}},\n    vmm,\n};";
        assert_eq!(
            broken("arch/idt.rs", text),
            [(3, "arch may not use mem".to_string()), (4, "arch may not use vmm".to_string())]
        );
        assert_eq!(broken("debug/log.rs", "use crate::mem::{addr::Hpa, addr};"), []);
        assert_eq!(broken("debug/log.rs", "use crate::mem::{self, addr};").len(), 1);
    }

    #[test]
    fn an_unknown_room_is_reported() {
        assert_eq!(broken("pci/mod.rs", "").len(), 1);
    }
}
