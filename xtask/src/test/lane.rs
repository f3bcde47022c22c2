//! The lanes: the same tests for each extension, in the emulator that has it.

use crate::machine::abilities::Ability;
use crate::machine::{BOCHS_HZ, Machine};

/// An extension, and so an emulator.
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
    /// AMD-V with all else that QEMU emulates, 5-level paging (LA57) among it.
    SvmMax,
    /// AMD-V with nrip_save, clean bits and flushes by ASID, as newer CPUs have it, in Bochs. For the probe alone: Bochs
    /// takes four times as long as QEMU.
    SvmNextRip,
    /// AMD-V as KVM gives it to its guests, in a KVM that runs in QEMU.
    SvmKvm,
    /// VT-x as KVM gives it to its guests, in a KVM that runs in Bochs, where everything takes minutes.
    VmxKvm,
}

impl Lane {
    /// The lanes of all tests, the slower one first.
    pub const ALL: [Self; 2] = [Self::Vmx, Self::Svm];
    /// The lanes of the probe alone, and of Linux in some machines.
    pub const MORE: [Self; 6] = [
        Self::VmxArrowLake,
        Self::VmxTigerLake,
        Self::SvmNextRip,
        Self::SvmKvm,
        Self::SvmGenoa,
        Self::SvmMax,
    ];

    /// The lane of which it is another model of CPU: what holds there holds here.
    pub fn usual(self) -> Self {
        match self {
            Self::Vmx | Self::VmxTigerLake | Self::VmxArrowLake => Self::Vmx,
            Self::Svm | Self::SvmGenoa | Self::SvmMax => Self::Svm,
            Self::SvmNextRip | Self::SvmKvm | Self::VmxKvm => self,
        }
    }

    /// What the names of its tests begin with.
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

    /// What `vidarctl` calls the extension.
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

    /// The machine that has it.
    pub fn machine(self) -> Machine {
        match self {
            Self::Vmx | Self::VmxTigerLake | Self::VmxArrowLake | Self::SvmNextRip => Machine::Bochs,
            Self::Svm | Self::SvmGenoa | Self::SvmMax => Machine::Qemu,
            Self::SvmKvm => Machine::KvmInQemu,
            Self::VmxKvm => Machine::KvmInBochs,
        }
    }

    /// Its CPU, if it is not the machine's usual one.
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

    /// What Linux has to be told there. The CPUID of newer models in Bochs names the frequency that their TSC has in a computer;
    /// here it is that of the instructions, and Linux' seconds would take minutes.
    pub fn command_line(self) -> String {
        match self {
            Self::VmxTigerLake | Self::VmxArrowLake | Self::VmxKvm => {
                format!(" tsc_early_khz={}", BOCHS_HZ / 1000)
            }
            _ => String::new(),
        }
    }

    /// What a message calls its CPU.
    pub fn cpu_name(self) -> String {
        let emulator =
            if matches!(self.machine(), Machine::Bochs | Machine::KvmInBochs) { "Bochs" } else { "QEMU" };
        let model = self.cpu().and_then(|cpu| cpu.split(',').next()).unwrap_or("the usual model");
        format!("the CPU of {emulator}, {model},")
    }

    /// What its emulator must be able to do.
    pub fn needs(self) -> Vec<Ability> {
        match self {
            Self::Vmx | Self::Svm => vec![],
            Self::SvmKvm => vec![Ability::QemuNestedRealMode],
            Self::VmxTigerLake => vec![Ability::BochsCpu("tigerlake")],
            Self::VmxArrowLake => vec![Ability::BochsCpu("arrow_lake")],
            Self::SvmNextRip => vec![Ability::BochsCpu("ryzen")],
            Self::SvmGenoa => vec![Ability::QemuCpu("EPYC-Genoa")],
            Self::SvmMax => vec![Ability::QemuFeature("la57")],
            Self::VmxKvm => vec![Ability::BochsCpu("corei7_skylake_x"), Ability::BochsLinux],
        }
    }

    /// The name of a test in this lane.
    pub fn test(self, name: &str) -> String {
        format!("{}/{name}", self.name())
    }

    /// The folder of a test in this lane.
    pub fn folder(self, name: &str) -> String {
        self.test(name).replace('/', "-")
    }
}
