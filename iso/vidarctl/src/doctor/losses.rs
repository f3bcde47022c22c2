//! What Linux loses under Vidar, where this machine uses it now. Vidar's page on limits has all of it.

use super::cpu::{BOOT, Extension, has_flag};
use super::finding::Finding;
use super::machine::{Machine, text};

/// Modules of hypervisors that Linux can be the host of, with their names. Vidar keeps the extension that they need.
const HOSTS: [(&str, &str); 4] =
    [("kvm_intel", "KVM"), ("kvm_amd", "KVM"), ("vboxdrv", "VirtualBox"), ("vmmon", "VMware")];

/// Looks for virtual machines, which do not run under Vidar.
pub fn virtual_machines(machine: &dyn Machine) -> Finding {
    let users = HOSTS.into_iter().filter_map(|(module, name)| {
        let count = text(machine, &format!("/sys/module/{module}/refcnt")).ok()?;
        Some((name, count.parse::<u64>().ok()?))
    });
    match users.max_by_key(|(_, count)| *count) {
        Some((name, 1..)) => Finding::warning(
            format!("virtual machines of {name} run now, and none will under Vidar"),
            "boot the bare entry where you need them: under Vidar Linux has neither VT-x nor AMD-V",
        ),
        _ => Finding::ok("no virtual machine runs now; under Vidar none can"),
    }
}

/// Looks for suspend to RAM and for hibernation.
pub fn sleep(machine: &dyn Machine) -> Finding {
    let states = text(machine, "/sys/power/mem_sleep").unwrap_or_default();
    let hibernates =
        text(machine, "/sys/power/resume").is_ok_and(|device| device != "0:0" && !device.is_empty());
    if states.contains("[deep]") {
        Finding::warning(
            "this machine suspends to RAM, which is not offered under Vidar",
            "let it suspend to idle, as it does under Vidar by itself",
        )
    } else if hibernates {
        Finding::warning(
            "this machine can hibernate",
            "resume by the entry with which it was put to sleep: an image of the bare machine is refused under Vidar, and \
             the other way round",
        )
    } else {
        Finding::ok("this machine does not suspend to RAM by default")
    }
}

/// Looks for memory encryption and confidential guests.
pub fn encryption(machine: &dyn Machine) -> Finding {
    let is_on = |module: &str, name: &str| {
        let value = text(machine, &format!("/sys/module/{module}/parameters/{name}"));
        value.is_ok_and(|value| matches!(value.as_str(), "Y" | "1"))
    };
    let guests = [("kvm_amd", "sev", "SEV"), ("kvm_intel", "tdx", "TDX")];
    let command_line = text(machine, "/proc/cmdline").unwrap_or_default();
    if command_line.split_whitespace().any(|word| word == "mem_encrypt=on") && has_flag(machine, "sme") {
        Finding::warning(
            "this Linux encrypts its memory (mem_encrypt=on), and under Vidar it cannot",
            "boot the bare entry where you need it, or use the encryption of all memory in the firmware's setup (\"TSME\")",
        )
    } else if let Some((.., name)) =
        guests.into_iter().find(|(module, parameter, _)| is_on(module, parameter))
    {
        Finding::warning(
            format!("this Linux can run {name} guests, and under Vidar it cannot"),
            "boot the bare entry where you need them",
        )
    } else {
        Finding::ok("neither memory encryption by Linux nor confidential guests are in use")
    }
}

/// Looks for what programs can notice of the CPU: events of `perf`, and new instructions.
pub fn features(machine: &dyn Machine) -> Finding {
    let precise = Extension::of(machine, BOOT) == Some(Extension::Vmx) && has_flag(machine, "pebs");
    let hidden = ["fred", "apx", "user_msr", "invlpgb"].into_iter().filter(|flag| has_flag(machine, flag));
    let hidden: Vec<_> = hidden.collect();
    match (precise, hidden.is_empty()) {
        (false, true) => Finding::ok("Linux uses no feature of the CPU that Vidar is known to hide"),
        (true, true) => Finding::warning(
            "`perf` has precise events (PEBS), and none under Vidar",
            "measure with the bare entry",
        ),
        (precise, false) => Finding::warning(
            format!(
                "Vidar hides {}{} of this CPU",
                hidden.join(", "),
                if precise { " and pebs" } else { "" }
            ),
            "boot the bare entry where you need them",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Fake};
    use super::super::finding::State;
    use super::*;

    #[test]
    fn running_machines_are_seen() {
        let with = |module: &str, count: &str| {
            virtual_machines(&Fake::default().with(&format!("/sys/module/{module}/refcnt"), count))
        };
        assert_eq!(virtual_machines(&Fake::default()).state, State::Ok);
        assert_eq!(with("kvm_amd", "0\n").state, State::Ok);
        assert_eq!(with("kvm_intel", "4\n").state, State::Warning);
        assert!(with("vboxdrv", "1\n").text.contains("VirtualBox"));
        assert_eq!(with("kvm_amd", "many").state, State::Ok);
    }

    #[test]
    fn suspend_to_ram_and_hibernation_are_seen() {
        let with = |path: &str, text: &str| sleep(&Fake::default().with(path, text)).state;
        assert_eq!(sleep(&Fake::default()).state, State::Ok);
        assert_eq!(with("/sys/power/mem_sleep", "[s2idle] deep\n"), State::Ok);
        assert_eq!(with("/sys/power/mem_sleep", "s2idle [deep]\n"), State::Warning);
        assert_eq!(with("/sys/power/resume", "0:0\n"), State::Ok);
        assert_eq!(with("/sys/power/resume", "259:3\n"), State::Warning);
    }

    #[test]
    fn encryption_is_seen() {
        let sme = fake::amd().with("/proc/cpuinfo", "flags : svm sme\n");
        assert_eq!(encryption(&sme).state, State::Ok);
        assert_eq!(encryption(&sme.with("/proc/cmdline", "ro mem_encrypt=on\n")).state, State::Warning);
        let with =
            |value: &str| encryption(&fake::amd().with("/sys/module/kvm_amd/parameters/sev", value)).state;
        assert_eq!((with("Y\n"), with("N\n")), (State::Warning, State::Ok));
    }

    #[test]
    fn hidden_features_are_seen() {
        let with = |machine: Fake, flags: &str| {
            features(&machine.with("/proc/cpuinfo", format!("flags : {flags}\n")))
        };
        assert_eq!(with(fake::intel(), "fpu vmx").state, State::Ok);
        assert_eq!(with(fake::intel(), "vmx pebs").state, State::Warning);
        assert_eq!(with(fake::amd(), "svm pebs").state, State::Ok);
        assert_eq!(with(fake::intel(), "vmx pebs fred").text, "Vidar hides fred and pebs of this CPU");
    }
}
