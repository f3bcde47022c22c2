//! Checks which rooms of the hypervisor use which others.

use super::source::{Source, Violation};
use super::uses::{Scope, Uses};

/// A room, and the rooms of its crate that it may use beside itself.
type Rooms = &'static [(&'static str, &'static [&'static str])];

/// The rooms of `hv/core/src`: everything that only decides.
const CORE: Rooms = &[
    ("boot", &["loader", "firmware", "linux", "console", "vmm", "policy", "mem", "x86"]),
    ("loader", &["firmware", "linux", "console", "mem"]),
    ("firmware", &["mem"]),
    ("linux", &["mem"]),
    ("kernel", &["vmm", "policy", "mem", "x86"]),
    ("vmx", &["debugger", "vmm", "policy", "mem", "x86"]),
    ("svm", &["debugger", "vmm", "policy", "mem", "x86"]),
    ("debugger", &["report", "kernel", "vmm", "policy", "mem", "x86"]),
    ("kept_log", &["loader"]),
    ("report", &["kernel", "vmm", "trace", "policy", "console", "mem", "x86"]),
    ("vmm", &["trace", "iommu", "policy", "mem", "x86"]),
    ("iommu", &["mem"]),
    ("trace", &[]),
    ("policy", &["mem", "x86"]),
    ("mem", &["x86"]),
    ("x86", &[]),
    ("console", &[]),
];

/// The rooms of `hv/src`: the bare-metal shell. Each of them may use the core.
const SHELL: Rooms = &[
    ("boot", &["cpus", "debugger", "extension", "iommu", "firmware", "host", "debug", "arch"]),
    ("cpus", &["debugger", "extension", "firmware", "host", "debug", "arch"]),
    ("debugger", &["host", "debug", "arch"]),
    ("extension", &["vmx", "svm", "host", "debug", "arch"]),
    ("vmx", &["host", "debug", "arch"]),
    ("svm", &["host", "debug", "arch"]),
    ("iommu", &["firmware", "host", "debug", "arch"]),
    ("firmware", &["host", "debug", "arch"]),
    ("host", &["debug", "arch"]),
    ("debug", &["arch"]),
    ("arch", &[]),
];

/// The crates, by the place of their sources, and their rooms.
const CRATES: [(&str, Rooms); 2] = [("hv/core/src/", CORE), ("hv/src/", SHELL)];

/// Checks what `file`, given by its place in the checkout, uses of its crate. The files in the root of a crate name the
/// rooms.
pub fn check(file: &str, source: &Source) -> Vec<Violation> {
    let place =
        CRATES.iter().find_map(|(root, rooms)| Some((file.strip_prefix(root)?.split_once('/')?.0, *rooms)));
    let Some((room, rooms)) = place else {
        return Vec::new();
    };
    let Some((_, allowed)) = rooms.iter().find(|(name, _)| *name == room) else {
        return vec![(1, format!("tidy does not know what {room} may use: add it to the table of rooms"))];
    };
    let mut broken = Vec::new();
    for path in Uses::new(source, Scope::All).all_paths() {
        let ["crate", target, ..] = path.parts.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
            continue;
        };
        let known = rooms.iter().any(|(name, _)| *name == target);
        if known && target != room && !allowed.contains(&target) {
            broken.push((path.line, format!("{room} may not use {target}")));
        }
    }
    broken.dedup();
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_core(place: &str, text: &str) -> Vec<Violation> {
        check(&format!("hv/core/src/{place}"), &Source::new(text))
    }

    fn in_shell(place: &str, text: &str) -> Vec<Violation> {
        check(&format!("hv/src/{place}"), &Source::new(text))
    }

    #[test]
    fn allowed_uses_are_not_reported() {
        for (place, text) in [
            ("boot/options.rs", "use crate::loader::info::Text;\nuse crate::{linux, mem::addr::Hpa};"),
            ("vmx/exit.rs", "use crate::vmm::Exit;\nuse crate::vmx::fields;"),
            ("vmm/run.rs", "use crate::policy::msr;\n// crate::vmx is not for us\nlet a = \"crate::vmx\";"),
            ("linux/placement.rs", "use crate::mem::map::Map;\npub(crate) fn a() {}"),
            ("lib.rs", "use crate::vmx;"),
        ] {
            assert_eq!(in_core(place, text), [], "{place}");
        }
        for (place, text) in [
            ("boot/order.rs", "use crate::cpus::end;\nuse crate::{host, extension::amd};"),
            ("extension/amd.rs", "use crate::svm::Svm;\nuse vidar_core::vmx;"),
            ("main.rs", "use vidar::vmx;"),
        ] {
            assert_eq!(in_shell(place, text), [], "{place}");
        }
        assert_eq!(check("xtask/src/main.rs", &Source::new("use crate::boot;")), []);
    }

    #[test]
    fn forbidden_uses_are_reported() {
        let may_not = |line, from: &str, to: &str| vec![(line, format!("{from} may not use {to}"))];
        assert_eq!(in_core("vmm/run.rs", "\nuse crate::vmx::Vmcs;"), may_not(2, "vmm", "vmx"));
        assert_eq!(in_core("vmx/mod.rs", "use crate::svm;"), may_not(1, "vmx", "svm"));
        assert_eq!(in_core("x86/msr.rs", "use crate::mem::addr::Hpa;"), may_not(1, "x86", "mem"));
        assert_eq!(in_core("mem/map.rs", "fn a() { crate::vmm::b(); }"), may_not(1, "mem", "vmm"));
        assert_eq!(in_shell("arch/msr.rs", "use crate::debug::log;"), may_not(1, "arch", "debug"));
        assert_eq!(
            in_shell("debug/log.rs", "macro_rules! a { () => { $crate::boot::b() } }"),
            may_not(1, "debug", "boot")
        );
    }

    #[test]
    fn each_path_of_a_group_is_checked() {
        let text = "use crate::{\n    arch::cpu,\n    host::{image, tables::{self, Frames}},\n    boot,\n};";
        assert_eq!(
            in_shell("debug/log.rs", text),
            [(3, "debug may not use host".to_string()), (4, "debug may not use boot".to_string())]
        );
        assert_eq!(in_shell("debug/log.rs", "use crate::arch::{self, msr};"), []);
        assert_eq!(in_shell("debug/log.rs", "use crate::host::{self, image};").len(), 1);
    }

    #[test]
    fn a_new_room_must_be_given_its_place() {
        assert_eq!(in_core("pci/mod.rs", "").len(), 1);
        assert_eq!(in_shell("pci/mod.rs", "").len(), 1);
    }
}
