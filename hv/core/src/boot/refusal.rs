//! Refusals: why Vidar does not start. Each is one sentence that says what is wrong and what to do.

use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

use crate::linux::bzimage::BzImageError;
use crate::linux::placement::PlacementError;

/// The names of a virtualization extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    name: &'static str,
    /// The name of the setting in firmware setups.
    setting: &'static str,
}

/// The names of VT-x.
pub const VMX: Names =
    Names { name: "VT-x", setting: "\"Intel Virtualization Technology\", \"VT-x\" or \"VMX\"" };

/// The names of AMD-V.
pub const SVM: Names = Names { name: "AMD-V", setting: "\"SVM Mode\" or \"Secure Virtual Machine\"" };

/// A property of the extension that is not the same on two CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The name of the property.
    pub name: &'static str,
    /// The value of the property on the boot CPU.
    pub boot: u64,
    /// The value of the property on the other CPU.
    pub other: u64,
}

impl Difference {
    /// Returns the first property that differs, or `None` if all are equal. `boot` and `other` hold the names and
    /// values of the same properties in the same order.
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

/// A reason not to start. It is displayed as a sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The boot loader does not use Multiboot2. The value is what it left in EAX.
    #[error(
        "Vidar was not started by a Multiboot2 loader (the magic number is {0:#x}): use `multiboot2` and `module2` in \
         grub.cfg"
    )]
    NotMultiboot2(u32),
    /// The Multiboot2 information is malformed.
    #[error("the boot loader's information is damaged: use GRUB 2.02 or later")]
    BootInformation,
    /// The Multiboot2 information has no memory map.
    #[error("the boot loader gave no memory map: use GRUB 2.02 or later")]
    NoMemoryMap,
    /// GRUB has loaded no module.
    #[error(
        "no kernel was given: add a line `module2 /path/to/vmlinuz` below the `multiboot2` line in grub.cfg"
    )]
    NoKernel,
    /// The CPU has no no-execute pages, or the firmware has disabled them.
    #[error(
        "this CPU's no-execute pages are switched off: enable them in the firmware's setup (\"Execute Disable\", \"XD\" or \
         \"NX\"), or boot the bare menu entry"
    )]
    NoExecuteDisable,
    /// The CPU has neither VT-x nor AMD-V.
    #[error(
        "this CPU has neither VT-x nor AMD-V: use a machine whose CPU has one of them, or boot the bare menu entry"
    )]
    NoVirtualization,
    /// The firmware has disabled the extension.
    #[error(
        "{} is switched off by the firmware: enable it in the firmware's setup ({}), switch the machine off and on, \
         and boot again", .0.name, .0.setting
    )]
    LockedOff(Names),
    /// The extension lacks features that Vidar requires.
    #[error(
        "this CPU's {} lacks {}: use a machine with a newer CPU, or boot the bare menu entry",
        .extension.name, .what.join(", ")
    )]
    Missing {
        /// The extension.
        extension: Names,
        /// The names of the missing features.
        what: Vec<&'static str>,
    },
    /// The extension of another CPU differs from that of the boot CPU.
    #[error(
        "CPU {cpu} (APIC ID {apic_id}) differs from the boot CPU in its {} ({} is {:#x}, and {:#x} on the boot CPU): \
         make all CPUs alike by a setting or an update of the firmware, or boot the bare menu entry",
        .what.name, .difference.name, .difference.other, .difference.boot
    )]
    Unlike {
        /// Number of the other CPU.
        cpu: u32,
        /// ID of the other CPU's local APIC.
        apic_id: u32,
        /// The extension.
        what: Names,
        /// The difference.
        difference: Difference,
    },
    /// The extension does not work as its capability registers say.
    #[error(
        "this CPU's {} does not work as its capability registers say ({how}): report this, with the CPU's name",
        .extension.name
    )]
    Extension {
        /// The extension.
        extension: Names,
        /// What has failed.
        how: String,
    },
    /// There are too few frames for the second-stage tables of all memory.
    #[error(
        "the machine has more memory than Vidar's tables can hold: boot the bare menu entry, and report this"
    )]
    TooMuchMemory,
    /// The kernel file cannot be started.
    #[error(transparent)]
    Kernel(#[from] BzImageError),
    /// The kernel's command line is too long.
    #[error(
        "the kernel's command line has {length} bytes and this kernel takes at most {limit}: shorten it in grub.cfg"
    )]
    CommandLine {
        /// Length of the command line in bytes.
        length: usize,
        /// Length of the longest command line that the kernel takes, in bytes.
        limit: usize,
    },
    /// There is no memory for the kernel, the initrd or the hand-over block.
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
    fn sentences_say_what_is_wrong_and_what_to_do() {
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
                difference: Difference { name: "the VMCS revision", boot: 0x12, other: 0x11 }
            }
            .to_string(),
            "CPU 2 (APIC ID 4) differs from the boot CPU in its VT-x (the VMCS revision is 0x11, and 0x12 on the boot \
             CPU): make all CPUs alike by a setting or an update of the firmware, or boot the bare menu entry"
        );
        assert_eq!(
            Refusal::Missing { extension: VMX, what: vec!["EPT", "unrestricted guest"] }.to_string(),
            "this CPU's VT-x lacks EPT, unrestricted guest: use a machine with a newer CPU, or boot the bare menu \
             entry"
        );
    }
}
