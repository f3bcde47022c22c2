//! The CPU: its name, the extension that it has, and no-execute pages.

use vidar_core::boot::refusal::{self, Names, Refusal};
use vidar_core::x86::cpuid::Leaf;

use super::finding::Finding;
use super::machine::{Machine, text};

/// The CPU on which Vidar would start.
pub const BOOT: u32 = 0;

/// The list of the CPUs that Linux runs on, such as "0-3,6".
const ONLINE: &str = "/sys/devices/system/cpu/online";
/// The most CPUs that are examined.
const MOST: u32 = 1024;

/// A virtualization extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    Vmx,
    Svm,
}

impl Extension {
    /// Returns the extension that Vidar would use on this CPU; `None` if there is none, or if the CPU cannot be asked.
    pub fn of(machine: &dyn Machine, cpu: u32) -> Option<Self> {
        let leaf = |leaf| machine.cpuid(cpu, leaf, 0);
        if leaf(1)?.ecx & 1 << 5 != 0 {
            Some(Self::Vmx)
        } else {
            let has = leaf(0x8000_0000)?.eax >= 0x8000_000a && leaf(0x8000_0001)?.ecx & 1 << 2 != 0;
            has.then_some(Self::Svm)
        }
    }

    /// Returns the name of the extension.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vmx => "VT-x",
            Self::Svm => "AMD-V",
        }
    }

    /// Returns the names of the extension in refusals.
    pub const fn names(self) -> Names {
        match self {
            Self::Vmx => refusal::VMX,
            Self::Svm => refusal::SVM,
        }
    }

    /// Returns the name of the extension's flag in `/proc/cpuinfo`.
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Vmx => "vmx",
            Self::Svm => "svm",
        }
    }
}

/// Where there is no extension, the check of the CPU says so, and that decides.
pub fn without_extension() -> Finding {
    Finding::unknown("there is neither VT-x nor AMD-V to look at", "see what is said of the CPU")
}

/// Returns CPUID Fn8000_000A.
pub fn svm_leaf(machine: &dyn Machine, cpu: u32) -> Option<Leaf> {
    machine.cpuid(cpu, 0x8000_000a, 0)
}

/// The finding where CPUID cannot be executed on a CPU.
pub fn out_of_reach(cpu: u32) -> Finding {
    Finding::unknown(
        format!("this program may not run on CPU {cpu}, so what that CPU has is not known"),
        "run it outside of containers and CPU sets",
    )
}

/// Checks that the CPU has an extension.
pub fn check(machine: &dyn Machine) -> Finding {
    if machine.cpuid(BOOT, 0, 0).is_none() {
        return out_of_reach(BOOT);
    }
    let name = name(machine);
    match Extension::of(machine, BOOT) {
        Some(extension) => Finding::ok(format!("{name} has {}", extension.name())),
        None if has_hypervisor(machine) => Finding::problem(
            format!(
                "{name} has neither VT-x nor AMD-V, as the hypervisor shows it that this Linux runs under"
            ),
            "switch on nested virtualization in that hypervisor, or use the machine itself",
        ),
        None => Refusal::NoVirtualization.into(),
    }
}

/// Checks that page tables have the no-execute bit.
pub fn no_execute(machine: &dyn Machine) -> Finding {
    match machine.cpuid(BOOT, 0x8000_0001, 0) {
        None => out_of_reach(BOOT),
        Some(leaf) if leaf.edx & 1 << 20 != 0 => Finding::ok("the CPU has no-execute pages"),
        Some(_) => Refusal::NoExecuteDisable.into(),
    }
}

/// Returns true if the CPU says that it is that of a hypervisor's guest.
pub fn has_hypervisor(machine: &dyn Machine) -> bool {
    machine.cpuid(BOOT, 1, 0).is_some_and(|leaf| leaf.ecx & 1 << 31 != 0)
}

/// Returns the name of the CPU.
fn name(machine: &dyn Machine) -> String {
    let leaf = |leaf| machine.cpuid(BOOT, leaf, 0).unwrap_or_default();
    let bytes = |Leaf { eax, ebx, ecx, edx }: Leaf| [eax, ebx, ecx, edx].map(u32::to_le_bytes).concat();
    let name = match leaf(0x8000_0000).eax {
        0x8000_0004.. => [0x8000_0002, 0x8000_0003, 0x8000_0004].map(|number| bytes(leaf(number))).concat(),
        _ => Vec::new(),
    };
    let name = String::from_utf8_lossy(&name);
    match name.trim_matches(['\0', ' ']) {
        "" => "this CPU".into(),
        name => name.split(['\0', ' ']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "),
    }
}

/// Returns the numbers of the CPUs that Linux runs on.
pub fn online(machine: &dyn Machine) -> Vec<u32> {
    let list = text(machine, ONLINE).unwrap_or_default();
    let cpus = list.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u32>().ok()?..=last.trim().parse::<u32>().ok()?.min(MOST))
    });
    let mut cpus: Vec<_> = cpus.flatten().take(MOST as usize).collect();
    if cpus.is_empty() {
        cpus.push(BOOT);
    }
    cpus
}

/// Returns the values of the lines of `/proc/cpuinfo` that have this label, one for each CPU.
pub fn listed(machine: &dyn Machine, label: &str) -> Vec<String> {
    let list = text(machine, "/proc/cpuinfo").unwrap_or_default();
    let lines = list.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(name, _)| name.trim() == label).map(|(_, value)| value.trim().to_owned()).collect()
}

/// Returns true if `/proc/cpuinfo` lists this flag of the CPU.
pub fn has_flag(machine: &dyn Machine, flag: &str) -> bool {
    listed(machine, "flags").first().is_some_and(|flags| flags.split(' ').any(|other| other == flag))
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Fake};
    use super::super::finding::State;
    use super::*;

    #[test]
    fn the_extension_and_the_name_are_told() {
        assert_eq!(check(&fake::intel()).text, "Fine CPU of Intel has VT-x");
        assert_eq!(check(&fake::amd()).text, "Fine CPU of AMD has AMD-V");
        assert_eq!(Extension::of(&fake::amd(), 9), None);
    }

    #[test]
    fn a_cpu_without_an_extension_is_a_problem() {
        let mut none = fake::amd();
        none.change(0x8000_0001, |leaf| leaf.ecx = 0);
        assert_eq!(check(&none), Finding::from(Refusal::NoVirtualization));
        none.change(1, |leaf| leaf.ecx |= 1 << 31);
        assert_eq!(check(&none).state, State::Problem);
        assert!(check(&none).advice.is_some_and(|advice| advice.contains("nested virtualization")));
        // The leaf of AMD-V is missing.
        let mut short = fake::amd();
        short.change(0x8000_0000, |leaf| leaf.eax = 0x8000_0004);
        assert_eq!(check(&short).state, State::Problem);
        assert_eq!(check(&Fake::default()).state, State::Unknown);
    }

    #[test]
    fn no_execute_pages_are_needed() {
        let mut machine = fake::intel();
        assert_eq!(no_execute(&machine).state, State::Ok);
        machine.change(0x8000_0001, |leaf| leaf.edx &= !(1 << 20));
        assert_eq!(no_execute(&machine), Finding::from(Refusal::NoExecuteDisable));
        assert_eq!(no_execute(&Fake::default()).state, State::Unknown);
    }

    #[test]
    fn lists_of_cpus_are_read() {
        let online = |list: &str| online(&Fake::default().with(ONLINE, list));
        assert_eq!(online("0\n"), [0]);
        assert_eq!(online("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(online(""), [0]);
        assert_eq!(online("x,3-1,7"), [7]);
        assert_eq!(online("0-4294967295").len(), MOST as usize);
    }
}
