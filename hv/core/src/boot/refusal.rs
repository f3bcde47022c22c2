//! Why Vidar does not start: one sentence for each reason, naming what is wrong and what to do.

use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

use crate::linux::bzimage::BzImageError;
use crate::linux::placement::PlacementError;

/// What people call an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    name: &'static str,
    /// In the setup of firmware.
    setting: &'static str,
}

/// VT-x.
pub const VMX: Names =
    Names { name: "VT-x", setting: "\"Intel Virtualization Technology\", \"VT-x\" or \"VMX\"" };

/// AMD-V.
pub const SVM: Names = Names { name: "AMD-V", setting: "\"SVM Mode\" or \"Secure Virtual Machine\"" };

/// What of an extension is not the same on two CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// What it is called.
    pub name: &'static str,
    /// What the boot CPU has.
    pub boot: u64,
    /// What the other one has.
    pub other: u64,
}

impl Difference {
    /// The first difference of two CPUs, by the names and values of all that matters of their extension.
    pub fn find<const N: usize>(
        boot: [(&'static str, u64); N],
        other: [(&'static str, u64); N],
    ) -> Option<Self> {
        let pairs = boot.into_iter().zip(other);
        pairs
            .map(|((name, boot), (_, other))| Self { name, boot, other })
            .find(|difference| difference.boot != difference.other)
    }
}

/// A reason not to start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The loader is another one.
    #[error(
        "it was not started by a Multiboot2 loader (the magic number is {0:#x}): in grub.cfg write `multiboot2` and \
         `module2`"
    )]
    NotMultiboot2(u32),
    /// The boot information is not what it should be.
    #[error("the boot loader's information is damaged: use GRUB 2.02 or later")]
    BootInformation,
    /// There is no memory map in it.
    #[error("the boot loader gave no memory map: use GRUB 2.02 or later")]
    NoMemoryMap,
    /// There is no module.
    #[error(
        "no kernel was given: add a line `module2 /path/to/vmlinuz` behind the `multiboot2` line in grub.cfg"
    )]
    NoKernel,
    /// The CPU has no no-execute pages, or firmware hides them.
    #[error(
        "this CPU's no-execute pages are switched off: enable them in the firmware's setup (\"Execute Disable\", \"XD\" or \
         \"NX\"), or boot the bare menu entry"
    )]
    NoExecuteDisable,
    /// The CPU has no virtualization extension.
    #[error(
        "this CPU has neither VT-x nor AMD-V: use a machine whose CPU has one of them, or boot the bare menu entry"
    )]
    NoVirtualization,
    /// Firmware has switched the extension off.
    #[error(
        "{} is switched off by the firmware: enable it in the firmware's setup ({}), switch the machine off and on, \
         and boot again", .0.name, .0.setting
    )]
    LockedOff(Names),
    /// The extension lacks something.
    #[error(
        "this CPU's {} lacks {}: use a machine with a newer CPU, or boot the bare menu entry",
        .extension.name, .what.join(", ")
    )]
    Missing {
        /// The extension.
        extension: Names,
        /// What it lacks.
        what: Vec<&'static str>,
    },
    /// Another CPU has another extension.
    #[error(
        "CPU {cpu} (APIC ID {apic_id}) has another {} than the boot CPU ({} is {:#x}, and {:#x} on the boot CPU): have the \
         firmware make all CPUs alike (a setting, or an update of it), or boot the bare menu entry",
        .what.name, .difference.name, .difference.other, .difference.boot
    )]
    Unlike {
        /// Its number.
        cpu: u32,
        /// ID of its local APIC.
        apic_id: u32,
        /// The extension.
        what: Names,
        /// In what it is another.
        difference: Difference,
    },
    /// The extension does not do as it said.
    #[error(
        "this CPU's {} does not work as its capability registers say ({how}): report this, with the CPU's name",
        .extension.name
    )]
    Extension {
        /// The extension.
        extension: Names,
        /// What went wrong.
        how: String,
    },
    /// Too few frames for the tables of so much memory.
    #[error(
        "the machine has more memory than Vidar's tables can hold: boot the bare menu entry, and report this"
    )]
    TooMuchMemory,
    /// The kernel file is bad.
    #[error(transparent)]
    Kernel(#[from] BzImageError),
    /// The kernel's command line is too long.
    #[error(
        "the kernel's command line has {length} bytes and this kernel takes {limit}: shorten it in grub.cfg"
    )]
    CommandLine {
        /// Its bytes.
        length: usize,
        /// Bytes that the kernel takes.
        limit: usize,
    },
    /// There is no room.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_found() {
        assert_eq!(Difference::find([("a", 1), ("b", 2)], [("a", 1), ("b", 2)]), None);
        let difference = Difference { name: "b", boot: 2, other: 3 };
        assert_eq!(
            Difference::find([("a", 1), ("b", 2), ("c", 3)], [("a", 1), ("b", 3), ("c", 4)]),
            Some(difference)
        );
    }

    #[test]
    fn sentences_name_the_thing_and_the_way_out() {
        assert_eq!(
            Refusal::LockedOff(VMX).to_string(),
            "VT-x is switched off by the firmware: enable it in the firmware's setup (\"Intel Virtualization \
             Technology\", \"VT-x\" or \"VMX\"), switch the machine off and on, and boot again"
        );
        assert_eq!(
            Refusal::LockedOff(SVM).to_string(),
            "AMD-V is switched off by the firmware: enable it in the firmware's setup (\"SVM Mode\" or \"Secure \
             Virtual Machine\"), switch the machine off and on, and boot again"
        );
        assert_eq!(
            Refusal::Unlike {
                cpu: 2,
                apic_id: 4,
                what: VMX,
                difference: Difference { name: "its revision", boot: 0x12, other: 0x11 }
            }
            .to_string(),
            "CPU 2 (APIC ID 4) has another VT-x than the boot CPU (its revision is 0x11, and 0x12 on the boot CPU): have \
             the firmware make all CPUs alike (a setting, or an update of it), or boot the bare menu entry"
        );
        assert_eq!(
            Refusal::Missing { extension: VMX, what: vec!["EPT", "unrestricted guest"] }.to_string(),
            "this CPU's VT-x lacks EPT, unrestricted guest: use a machine with a newer CPU, or boot the bare menu \
             entry"
        );
    }
}
