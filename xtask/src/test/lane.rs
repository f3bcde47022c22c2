//! The lanes. A lane is an extension in an emulator that has it, and the same tests run in several lanes.

use crate::machine::abilities::Ability;
use crate::machine::{BOCHS_HZ, Machine};

/// An extension on some CPU model, and thereby an emulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lane {
    /// VT-x, in Bochs.
    #[default]
    Vmx,
    /// VT-x on a model of 2020, in Bochs.
    VmxTigerLake,
    /// VT-x on a model of 2024 with CET, LASS, WAITPKG, PKU and XSAVES, in Bochs from version 3.0 on.
    VmxArrowLake,
    /// AMD-V, in QEMU without KVM.
    Svm,
    /// AMD-V on a model of 2022, in QEMU from version 8.1 on.
    SvmGenoa,
    /// AMD-V with everything else that QEMU emulates, such as 5-level paging (LA57).
    SvmMax,
    /// AMD-V with nrip_save, clean bits and flushes by ASID, as newer CPUs have it, in Bochs. Only the probe runs in
    /// this lane, since Bochs takes four times as long as QEMU.
    SvmNextRip,
    /// AMD-V as KVM gives it to its guests, in a KVM that runs in QEMU.
    SvmKvm,
    /// VT-x as KVM gives it to its guests, in a KVM that runs in Bochs, where everything takes minutes.
    VmxKvm,
}

impl Lane {
    /// The lanes in which all tests run, the slower one first.
    pub const ALL: [Self; 2] = [Self::Vmx, Self::Svm];
    /// The lanes in which only the probe, and Linux in some machines, run.
    pub const MORE: [Self; 6] = [
        Self::VmxArrowLake,
        Self::VmxTigerLake,
        Self::SvmNextRip,
        Self::SvmKvm,
        Self::SvmGenoa,
        Self::SvmMax,
    ];

    /// Returns the lane of which this one is a variant with another CPU model, or this lane. What is expected there is
    /// expected here.
    pub fn usual(self) -> Self {
        match self {
            Self::Vmx | Self::VmxTigerLake | Self::VmxArrowLake => Self::Vmx,
            Self::Svm | Self::SvmGenoa | Self::SvmMax => Self::Svm,
            Self::SvmNextRip | Self::SvmKvm | Self::VmxKvm => self,
        }
    }

    /// Returns the first part of the names of its tests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vmx => "vt-x",
            Self::VmxTigerLake => "vt-x-tiger-lake",
            Self::VmxArrowLake => "vt-x-arrow-lake",
            Self::Svm => "amd-v",
            Self::SvmGenoa => "amd-v-genoa",
            Self::SvmMax => "amd-v-max",
            Self::SvmNextRip => "amd-v-next-rip",
            Self::SvmKvm => "amd-v-kvm",
            Self::VmxKvm => "vt-x-kvm",
        }
    }

    /// Returns the name of the extension in the output of `vidarctl`.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Vmx | Self::VmxTigerLake | Self::VmxArrowLake | Self::VmxKvm => "Intel VT-x",
            Self::Svm | Self::SvmGenoa | Self::SvmMax | Self::SvmNextRip | Self::SvmKvm => "AMD-V",
        }
    }

    /// KVM's module for the extension.
    pub fn kvm_module(self) -> &'static str {
        match self {
            Self::Vmx | Self::VmxTigerLake | Self::VmxArrowLake | Self::VmxKvm => "kvm_intel",
            Self::Svm | Self::SvmGenoa | Self::SvmMax | Self::SvmNextRip | Self::SvmKvm => "kvm_amd",
        }
    }

    /// Returns the machine of this lane.
    pub fn machine(self) -> Machine {
        match self {
            Self::Vmx | Self::VmxTigerLake | Self::VmxArrowLake | Self::SvmNextRip => Machine::Bochs,
            Self::Svm | Self::SvmGenoa | Self::SvmMax => Machine::Qemu,
            Self::SvmKvm => Machine::KvmInQemu,
            Self::VmxKvm => Machine::KvmInBochs,
        }
    }

    /// Returns the CPU model, if it is not the machine's default.
    pub fn cpu(self) -> Option<&'static str> {
        match self {
            Self::Vmx | Self::Svm | Self::SvmKvm | Self::VmxKvm => None,
            Self::VmxTigerLake => Some("tigerlake"),
            Self::VmxArrowLake => Some("arrow_lake"),
            Self::SvmNextRip => Some("ryzen"),
            Self::SvmGenoa => Some("EPYC-Genoa,-hypervisor"),
            Self::SvmMax => Some("max,-hypervisor"),
        }
    }

    /// What has to be added to Linux' command line. The newer CPU models of Bochs name the TSC frequency of a real CPU
    /// in CPUID. In Bochs the TSC counts instructions, so that with this frequency a second of Linux would take
    /// minutes.
    pub fn command_line(self) -> String {
        match self {
            Self::VmxTigerLake | Self::VmxArrowLake | Self::VmxKvm => {
                format!(" tsc_early_khz={}", BOCHS_HZ / 1000)
            }
            _ => String::new(),
        }
    }

    /// Returns the name of the CPU in messages.
    pub fn cpu_name(self) -> String {
        let emulator =
            if matches!(self.machine(), Machine::Bochs | Machine::KvmInBochs) { "Bochs" } else { "QEMU" };
        let model = self.cpu().and_then(|cpu| cpu.split(',').next()).unwrap_or("the usual model");
        format!("the CPU of {emulator}, {model},")
    }

    /// What the emulator must be able to do.
    pub fn needs(self) -> Vec<Ability> {
        match self {
            Self::Vmx | Self::Svm => vec![],
            Self::SvmKvm => vec![Ability::QemuNestedRealMode],
            Self::VmxTigerLake => vec![Ability::BochsCpu("tigerlake")],
            Self::VmxArrowLake => vec![Ability::BochsCpu("arrow_lake")],
            Self::SvmNextRip => vec![Ability::BochsCpu("ryzen")],
            Self::SvmGenoa => vec![Ability::QemuCpu("EPYC-Genoa")],
            Self::SvmMax => vec![Ability::QemuFeature("la57")],
            Self::VmxKvm => {
                vec![Ability::BochsCpu("corei7_skylake_x"), Ability::BochsLinux, Ability::BochsKvm]
            }
        }
    }

    /// Returns the name of a test in this lane.
    pub fn test(self, name: &str) -> String {
        format!("{}/{name}", self.name())
    }

    /// Returns the folder of a test in this lane.
    pub fn folder(self, name: &str) -> String {
        self.test(name).replace('/', "-")
    }
}
