//! The extension: what it can do, and if it is the same on all CPUs. The decisions are those of Vidar.

use vidar_core::boot::refusal::{Difference, Refusal};
use vidar_core::svm;
use vidar_core::vmx::capabilities::{Capabilities, RawCapabilities};

use super::cpu::{self, BOOT, Extension, out_of_reach, svm_leaf, without_extension};
use super::finding::Finding;
use super::lock::locked_off;
use super::machine::{Machine, Unreadable, msr_advice};

/// What `vmx flags` of `/proc/cpuinfo` calls the capabilities of VT-x that CPUs lack most often, and Vidar's names.
const LISTED: [(&str, &str); 3] =
    [("preemption_timer", "preemption timer"), ("ept", "EPT"), ("unrestricted_guest", "unrestricted guest")];

/// Checks that the boot CPU's extension can do what Vidar needs.
pub fn capabilities(machine: &dyn Machine) -> Finding {
    let Some(extension) = Extension::of(machine, BOOT) else { return without_extension() };
    let missing = |what| Refusal::Missing { extension: extension.names(), what };
    match extension {
        Extension::Svm => match svm_leaf(machine, BOOT).map(svm::capabilities::Capabilities::choose) {
            None => out_of_reach(BOOT),
            Some(Ok(_)) => Finding::ok("AMD-V has nested paging, and all else that Vidar needs"),
            Some(Err(what)) => missing(what).into(),
        },
        Extension::Vmx => match vmx(machine, BOOT) {
            Ok(Ok(_)) => Finding::ok("VT-x has EPT, unrestricted guest, and all else that Vidar needs"),
            Ok(Err(what)) => missing(what).into(),
            Err(why) => match by_linux(machine) {
                Some(Ok(())) => Finding::ok(
                    "VT-x has EPT, unrestricted guest and the VMX-preemption timer, as /proc/cpuinfo says",
                ),
                Some(Err(what)) => missing(what).into(),
                None => Finding::unknown(
                    "it is not known what VT-x can do, since its MSRs cannot be read",
                    msr_advice(why),
                ),
            },
        },
    }
}

/// Checks that the extension of all CPUs is that of the boot CPU.
pub fn alike(machine: &dyn Machine) -> Finding {
    let Some(extension) = Extension::of(machine, BOOT) else { return without_extension() };
    let cpus = cpu::online(machine);
    let mut unread = None;
    for &other in cpus.iter().filter(|cpu| **cpu != BOOT) {
        let Some(leaf) = machine.cpuid(other, 1, 0) else { return out_of_reach(other) };
        let apic_id = leaf.ebx >> 24;
        if Extension::of(machine, other) != Some(extension) {
            return Finding::problem(
                format!(
                    "CPU {other} (APIC ID {apic_id}) does not have the {} of the boot CPU",
                    extension.name()
                ),
                "make all CPUs alike by a setting or an update of the firmware",
            );
        }
        if locked_off(machine, other, extension) == Ok(true) {
            return Refusal::LockedOff(extension.names()).into();
        }
        match difference(machine, extension, other) {
            Ok(None) => {}
            Ok(Some(difference)) => {
                let what = extension.names();
                return Refusal::Unlike { cpu: other, apic_id, what, difference }.into();
            }
            Err(why) => unread = Some(why),
        }
    }
    let many = |count: usize| if count == 1 { "the only CPU".into() } else { format!("all {count} CPUs") };
    match unread {
        None if cpus.len() == 1 => Finding::ok("there is one CPU"),
        None => Finding::ok(format!("{} have the same {}", many(cpus.len()), extension.name())),
        Some(why) => {
            let flags = cpu::listed(machine, "vmx flags");
            if flags.len() == cpus.len() && flags.iter().all(|other| Some(other) == flags.first()) {
                Finding::ok(format!("{} have the same VT-x, as /proc/cpuinfo says", many(cpus.len())))
            } else {
                Finding::unknown(
                    "it is not known whether all CPUs have the same VT-x, since its MSRs cannot be read",
                    msr_advice(why),
                )
            }
        }
    }
}

/// Returns the first property in which the extension of a CPU differs from that of the boot CPU. A CPU that lacks
/// something differs in nothing else.
fn difference(
    machine: &dyn Machine,
    extension: Extension,
    other: u32,
) -> Result<Option<Difference>, Unreadable> {
    Ok(match extension {
        Extension::Vmx => match (vmx(machine, BOOT)?, vmx(machine, other)?) {
            (Ok(boot), Ok(other)) => Difference::find(boot.fields(), other.fields()),
            (Ok(_), Err(what)) => what.first().map(|name| Difference { name, boot: 1, other: 0 }),
            (Err(_), _) => None,
        },
        Extension::Svm => {
            let chosen = |cpu| svm_leaf(machine, cpu).map(svm::capabilities::Capabilities::choose);
            match (chosen(BOOT), chosen(other)) {
                (Some(Ok(boot)), Some(Ok(other))) => Difference::find(boot.fields(), other.fields()),
                (Some(Ok(_)), Some(Err(what))) => {
                    what.first().map(|name| Difference { name, boot: 1, other: 0 })
                }
                _ => None,
            }
        }
    })
}

/// Returns what Vidar would choose of a CPU's VT-x, or the names of what is missing.
fn vmx(machine: &dyn Machine, cpu: u32) -> Result<Result<Capabilities, Vec<&'static str>>, Unreadable> {
    // An MSR that the CPU lacks reads as 0, which allows nothing.
    let read = |index| match machine.msr(cpu, index) {
        Err(Unreadable::Fails) => Ok(0),
        other => other,
    };
    let raw = RawCapabilities {
        basic: read(0x480)?,
        misc: read(0x485)?,
        cr0_fixed: [read(0x486)?, read(0x487)?],
        cr4_fixed: [read(0x488)?, read(0x489)?],
        secondary: read(0x48b)?,
        ept_vpid: read(0x48c)?,
        pin: read(0x48d)?,
        primary: read(0x48e)?,
        exit: read(0x48f)?,
        entry: read(0x490)?,
    };
    let native = |leaf, subleaf| machine.cpuid(cpu, leaf, subleaf).unwrap_or_default();
    Ok(Capabilities::choose(&raw).map(|chosen| chosen.with_cpuid(native)))
}

/// Returns what `/proc/cpuinfo` says of VT-x: the names of what is missing. `None` if it says nothing.
fn by_linux(machine: &dyn Machine) -> Option<Result<(), Vec<&'static str>>> {
    let flags = cpu::listed(machine, "vmx flags");
    let flags: Vec<_> = flags.first()?.split(' ').collect();
    let missing = LISTED.into_iter().filter(|(flag, _)| !flags.contains(flag)).map(|(_, name)| name);
    let missing: Vec<_> = missing.collect();
    Some(if missing.is_empty() { Ok(()) } else { Err(missing) })
}

#[cfg(test)]
mod tests {
    use vidar_core::x86::msr::FEATURE_CONTROL;

    use super::super::fake::{self, Fake};
    use super::super::finding::State;
    use super::*;

    fn states(machine: &Fake) -> [State; 2] {
        [capabilities(machine).state, alike(machine).state]
    }

    #[test]
    fn machines_that_vidar_runs_on_are_fine() {
        for machine in [fake::intel(), fake::amd(), fake::intel().with_cpus(4), fake::amd().with_cpus(4)] {
            assert_eq!(states(&machine), [State::Ok; 2]);
        }
        assert_eq!(alike(&fake::amd().with_cpus(4)).text, "all 4 CPUs have the same AMD-V");
    }

    #[test]
    fn what_the_extension_lacks_is_named_as_vidar_names_it() {
        let mut amd = fake::amd();
        amd.change(0x8000_000a, |leaf| leaf.edx = 0);
        assert_eq!(capabilities(&amd).text, "this CPU's AMD-V lacks nested paging");
        let intel = fake::intel().with_msr(0x48d, 0x28 << 32 | 0x16);
        assert_eq!(capabilities(&intel).text, "this CPU's VT-x lacks preemption timer");
        assert_eq!(capabilities(&intel).state, State::Problem);
    }

    #[test]
    fn without_an_extension_nothing_is_known() {
        let mut none = fake::amd();
        none.change(0x8000_0001, |leaf| leaf.ecx = 0);
        assert_eq!(states(&none), [State::Unknown; 2]);
    }

    #[test]
    fn without_msrs_linux_is_asked() {
        let intel = fake::intel().without_msrs();
        assert_eq!(states(&intel), [State::Ok; 2]);
        assert_eq!(states(&intel.clone().with("/proc/cpuinfo", "")), [State::Unknown, State::Ok]);
        let old = intel.with("/proc/cpuinfo", "flags : vmx\nvmx flags : ept\n");
        assert_eq!(capabilities(&old).text, "this CPU's VT-x lacks preemption timer, unrestricted guest");
    }

    #[test]
    fn cpus_that_differ_are_named() {
        let mut amd = fake::amd().with_cpus(3);
        amd.change_on(2, 0x8000_000a, |leaf| leaf.edx &= !(1 << 3));
        amd.change_on(2, 1, |leaf| leaf.ebx = 4 << 24);
        assert_eq!(
            alike(&amd).text,
            "CPU 2 (APIC ID 4) differs from the boot CPU in its AMD-V (next RIP save is 0x0, and 0x1 on the boot CPU)"
        );
        let intel = fake::intel().with_cpus(2).with_msr_on(1, 0x480, 1 << 55 | 0x13);
        assert!(alike(&intel).text.contains("the VMCS revision is 0x13"), "{}", alike(&intel).text);
        let lacks = fake::intel().with_cpus(2).with_msr_on(1, 0x48d, 0x16);
        assert_eq!(alike(&lacks).state, State::Problem);
        let mut none = fake::amd().with_cpus(2);
        none.change_on(1, 0x8000_0001, |leaf| leaf.ecx = 0);
        assert_eq!(alike(&none).state, State::Problem);
        let off = fake::intel().with_cpus(2).with_msr_on(1, FEATURE_CONTROL, 1);
        assert_eq!(alike(&off).text, "VT-x is switched off by the firmware");
        // The second CPU is out of reach.
        let far = fake::amd().with("/sys/devices/system/cpu/online", "0-1");
        assert_eq!(alike(&far).state, State::Unknown);
        let flags = "vmx flags : ept\nvmx flags : ept vpid\n";
        let hybrid = fake::intel().with_cpus(2).without_msrs().with("/proc/cpuinfo", flags);
        assert_eq!(alike(&hybrid).state, State::Unknown);
        let same = hybrid.with("/proc/cpuinfo", "vmx flags : ept\nvmx flags : ept\n");
        assert_eq!(alike(&same).state, State::Ok);
    }
}
