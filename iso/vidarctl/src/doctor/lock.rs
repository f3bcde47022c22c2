//! Firmware's lock: if it has switched the extension off. Where the MSRs say so, the decision is that of Vidar.

use vidar_core::boot::refusal::Refusal;
use vidar_core::svm;
use vidar_core::vmx::feature_control;
use vidar_core::x86::msr::{FEATURE_CONTROL, VM_CR};

use super::cpu::{self, BOOT, Extension, svm_leaf, without_extension};
use super::finding::Finding;
use super::machine::{Machine, Unreadable, has, msr_advice, text};

/// The devices of drivers. A node in /dev may exist without one.
const DEVICES: &str = "/sys/devices/virtual/misc";
/// A Linux of which it is known that it lists AMD-V only where firmware has not switched it off.
const TAKES_SVM_AWAY: (u32, u32) = (6, 8);

/// Checks that firmware has not switched the extension of the boot CPU off.
pub fn check(machine: &dyn Machine) -> Finding {
    let Some(extension) = Extension::of(machine, BOOT) else { return without_extension() };
    let name = extension.name();
    match locked_off(machine, BOOT, extension) {
        Ok(false) => Finding::ok(format!("firmware leaves {name} on")),
        Ok(true) => Refusal::LockedOff(extension.names()).into(),
        // KVM registers its device once it has found the extension to be usable.
        Err(_) if has(machine, DEVICES, "kvm") => {
            Finding::ok(format!("firmware leaves {name} on, since KVM can use it"))
        }
        Err(why) => by_linux(machine, extension).unwrap_or_else(|| {
            Finding::unknown(
                format!("only an MSR tells if firmware has switched {name} off, and it cannot be read"),
                msr_advice(why),
            )
        }),
    }
}

/// Returns true if firmware has switched the extension of a CPU off.
pub fn locked_off(machine: &dyn Machine, cpu: u32, extension: Extension) -> Result<bool, Unreadable> {
    let value = |index| match machine.msr(cpu, index) {
        Ok(value) => Ok(Some(value)),
        Err(Unreadable::Fails) => Ok(None),
        Err(why) => Err(why),
    };
    Ok(match extension {
        Extension::Vmx => {
            let decision =
                feature_control::decide(value(FEATURE_CONTROL)?, feature_control::Features::default());
            decision == feature_control::Decision::LockedOff
        }
        Extension::Svm => {
            let features = svm_leaf(machine, cpu).unwrap_or_default();
            svm::capabilities::decide(value(VM_CR)?.unwrap_or(0), features)
                == svm::capabilities::Decision::LockedOff
        }
    })
}

/// Looks for the lock in `/proc/cpuinfo`. Returns `None` if nothing follows from it.
fn by_linux(machine: &dyn Machine, extension: Extension) -> Option<Finding> {
    if cpu::listed(machine, "flags").is_empty() {
        return None;
    }
    match (extension, cpu::has_flag(machine, extension.flag())) {
        // Linux takes the flag away if the MSR is locked with VT-x off. It does so since it has the line `vmx flags`.
        // Linux, arch/x86/kernel/cpu/feat_ctl.c, init_ia32_feat_ctl().
        (Extension::Vmx, false) => Some(Refusal::LockedOff(extension.names()).into()),
        (Extension::Vmx, true) => (!cpu::listed(machine, "vmx flags").is_empty())
            .then(|| Finding::ok("firmware leaves VT-x on, as /proc/cpuinfo says")),
        // Linux takes the flag away where firmware has switched AMD-V off, be it locked or not. Linux,
        // arch/x86/kernel/cpu/amd.c, init_amd().
        (Extension::Svm, false) => Some(Finding::unknown(
            "Linux finds AMD-V switched off, and only an MSR tells if firmware has locked it, too",
            "enable it in the firmware's setup (\"SVM Mode\" or \"Secure Virtual Machine\"), or run `modprobe msr` and \
             then `vidarctl doctor`, both as root",
        )),
        (Extension::Svm, true) => (release(machine)? >= TAKES_SVM_AWAY)
            .then(|| Finding::ok("firmware leaves AMD-V on, as /proc/cpuinfo says")),
    }
}

/// Returns the first two numbers of the release of Linux.
fn release(machine: &dyn Machine) -> Option<(u32, u32)> {
    let release = text(machine, "/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::super::finding::State;
    use super::*;

    #[test]
    fn firmware_that_switches_the_extension_off_is_a_problem() {
        for machine in [
            fake::intel().with_msr(FEATURE_CONTROL, 0b001),
            fake::intel().with_msr(FEATURE_CONTROL, 0b011),
            fake::amd().with_msr(VM_CR, 0b1_1000),
        ] {
            let finding = check(&machine);
            assert_eq!(finding.state, State::Problem);
            assert!(finding.advice.is_some_and(|advice| advice.contains("firmware's setup")));
        }
        for machine in [
            fake::intel(),
            fake::amd(),
            // Firmware has locked neither.
            fake::intel().with_msr(FEATURE_CONTROL, 0),
            fake::amd().with_msr(VM_CR, 0b1_0000),
        ] {
            assert_eq!(check(&machine).state, State::Ok);
        }
    }

    #[test]
    fn without_msrs_linux_is_asked_for_vt_x() {
        let intel = fake::intel().without_msrs();
        let with = |cpuinfo| check(&intel.clone().with("/proc/cpuinfo", cpuinfo)).state;
        assert_eq!(with("flags : fpu vmx\nvmx flags : ept\n"), State::Ok);
        assert_eq!(with("flags : fpu vmx\n"), State::Unknown);
        assert_eq!(with("flags : fpu\n"), State::Problem);
        assert_eq!(with(""), State::Unknown);
    }

    #[test]
    fn without_msrs_linux_is_asked_for_amd_v() {
        let amd = fake::amd().without_msrs();
        assert!(check(&amd).advice.is_some_and(|advice| advice.contains("modprobe msr")));
        assert_eq!(check(&amd.clone().with("/sys/devices/virtual/misc/kvm/dev", "10:232")).state, State::Ok);
        let of = |release: &str| check(&amd.clone().with("/proc/sys/kernel/osrelease", release)).state;
        assert_eq!(of("6.1.0-56-amd64\n"), State::Unknown);
        assert_eq!(of("6.8\n"), State::Ok);
        assert_eq!(of("7.2-rc1"), State::Ok);
        assert_eq!(of("x"), State::Unknown);
        let off = check(&amd.clone().with("/proc/cpuinfo", "flags : fpu\n"));
        assert_eq!(off.state, State::Unknown);
        assert!(off.advice.is_some_and(|advice| advice.contains("firmware's setup")));
    }
}
