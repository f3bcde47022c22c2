//! The table of machines with several CPUs, and what their emulators must be able to do.

use crate::machine::Machine;
use crate::machine::abilities::Ability;
use crate::test::lane::Lane;
use crate::test::linux::{self, NEWEST_KERNELS};

/// A machine with several CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Setup {
    /// The lane of the machine.
    pub lane: Lane,
    /// The number of CPUs.
    pub cpus: u32,
    /// True if the firmware is UEFI.
    pub uefi: bool,
    /// The size of memory in MiB.
    pub memory: u32,
    /// Vidar's boot options.
    pub options: &'static str,
    /// True if Linux uses x2APIC mode, for which it needs an IOMMU that remaps interrupts.
    pub x2apic: bool,
    /// The suite of Debian that the kernel comes from; `None` stands for what this machine follows.
    pub suite: Option<&'static str>,
}

/// The usual machine, in the lane of AMD-V.
pub const USUAL: Setup =
    Setup { lane: Lane::Svm, cpus: 2, uefi: false, memory: 512, options: "", x2apic: false, suite: None };

/// The option by which Vidar starts CPUs.
const STARTED_BY_VIDAR: &str = "cpu-startup=emulated";

/// The machines with this system's kernel. On VT-x the local APICs start CPUs, unless Vidar is told to do it. In Bochs,
/// Linux needs that if its clock has the frequency of Bochs' TSC.
const SETUPS: [Setup; 11] = [
    Setup { lane: Lane::Vmx, options: STARTED_BY_VIDAR, ..USUAL },
    Setup { lane: Lane::VmxArrowLake, options: STARTED_BY_VIDAR, ..USUAL },
    Setup { lane: Lane::VmxArrowLake, ..USUAL },
    Setup { lane: Lane::VmxTigerLake, ..USUAL },
    USUAL,
    Setup { cpus: 4, ..USUAL },
    Setup { uefi: true, memory: 6144, ..USUAL },
    Setup { x2apic: true, ..USUAL },
    Setup { x2apic: true, cpus: 4, ..USUAL },
    Setup { lane: Lane::SvmGenoa, ..USUAL },
    Setup { lane: Lane::SvmMax, ..USUAL },
];

/// Returns all setups. If `newest` is true, this includes those with Debian's newest kernels, which start all CPUs at
/// once.
pub fn setups(newest: bool) -> Vec<Setup> {
    let suites = NEWEST_KERNELS.into_iter().filter(|_| newest);
    let newer = suites.flat_map(|suite| {
        let started_by_vidar = Setup { lane: Lane::Vmx, options: STARTED_BY_VIDAR, ..USUAL };
        [started_by_vidar, Setup { cpus: 4, ..USUAL }].map(|setup| Setup { suite: Some(suite), ..setup })
    });
    SETUPS.into_iter().chain(newer).collect()
}

impl Setup {
    /// Returns the name of a test in this machine.
    pub fn name(self, what: &str) -> String {
        let kind = match self {
            Self { uefi: true, .. } => "uefi",
            Self { x2apic: true, .. } => "x2apic",
            _ if self.is_started_by_hardware() => "hardware-startup",
            _ => "smp",
        };
        let suite = self.suite.map_or_else(String::new, |suite| format!("-{suite}"));
        self.lane.test(&format!("{kind}{suite}/{}-cpus/{what}", self.cpus))
    }

    /// Returns true if the machine has a disk, which is not possible in Bochs.
    pub fn has_disk(self) -> bool {
        self.lane.machine() == Machine::Qemu
    }

    /// Returns true if the local APICs start the CPUs on VT-x. Linux then uses the TSC frequency in CPUID, which is 200
    /// times too high for Bochs, so that its start-up IPIs are as many instructions apart as on a real CPU. Such a
    /// machine is too slow for a load.
    pub fn is_started_by_hardware(self) -> bool {
        self.lane.machine() == Machine::Bochs && !self.options.contains(STARTED_BY_VIDAR)
    }

    /// What the emulator must be able to do.
    pub fn needs(self) -> Vec<Ability> {
        let mut needs = linux::needs(self.lane);
        if self.is_started_by_hardware() {
            needs.push(Ability::BochsInit);
        }
        if self.lane.machine() == Machine::Qemu {
            needs.push(Ability::QemuNestedRealMode);
        }
        if self.x2apic {
            needs.push(Ability::QemuFeature("x2apic"));
        }
        needs
    }
}
