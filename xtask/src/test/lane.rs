//! The lanes: the same tests for each extension, in the emulator that has it.

use crate::machine::Machine;

/// An extension, and so an emulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lane {
    /// VT-x, in Bochs.
    #[default]
    Vmx,
    /// AMD-V, in QEMU without KVM.
    Svm,
    /// AMD-V with nrip_save, clean bits and flushes by ASID, as newer CPUs have it, in Bochs. For the probe alone: Bochs
    /// takes four times as long as QEMU.
    SvmNextRip,
    /// AMD-V as KVM gives it to its guests, in a KVM that runs in QEMU.
    SvmKvm,
}

impl Lane {
    /// The lanes of all tests, the slower one first.
    pub const ALL: [Self; 2] = [Self::Vmx, Self::Svm];

    /// What the names of its tests begin with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vmx => "vt-x",
            Self::Svm => "amd-v",
            Self::SvmNextRip => "amd-v-next-rip",
            Self::SvmKvm => "amd-v-kvm",
        }
    }

    /// What `vidarctl` calls the extension.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Vmx => "Intel VT-x",
            Self::Svm | Self::SvmNextRip | Self::SvmKvm => "AMD-V",
        }
    }

    /// The machine that has it.
    pub fn machine(self) -> Machine {
        match self {
            Self::Vmx | Self::SvmNextRip => Machine::Bochs,
            Self::Svm => Machine::Qemu,
            Self::SvmKvm => Machine::KvmInQemu,
        }
    }

    /// Its CPU, if it is not the machine's usual one.
    pub fn cpu(self) -> Option<&'static str> {
        (self == Self::SvmNextRip).then_some("ryzen")
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
