//! Another hypervisor below this Linux.

use vidar_abi::SIGNATURE_LEAF;

use super::cpu::{BOOT, has_hypervisor};
use super::finding::Finding;
use super::machine::Machine;

/// Signatures of hypervisors, their names, and true for those in which Vidar has been tested.
const KNOWN: [(&[u8; 12], &str, bool); 8] = [
    (b"KVMKVMKVM\0\0\0", "KVM", true),
    (b"TCGTCGTCGTCG", "QEMU without KVM", true),
    (b"Microsoft Hv", "Hyper-V", false),
    (b"VMwareVMware", "VMware", false),
    (b"XenVMMXenVMM", "Xen", false),
    (b"VBoxVBoxVBox", "VirtualBox", false),
    (b"bhyve bhyve ", "bhyve", false),
    (b"ACRNACRNACRN", "ACRN", false),
];

/// Tells whether Vidar would run on the machine itself or in a guest of another hypervisor.
pub fn check(machine: &dyn Machine) -> Finding {
    if !has_hypervisor(machine) {
        return Finding::ok("no other hypervisor shows itself below this Linux");
    }
    let leaf = machine.cpuid(BOOT, SIGNATURE_LEAF, 0).unwrap_or_default();
    let signature = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat();
    match KNOWN.into_iter().find(|(known, ..)| signature == **known) {
        Some((_, name, true)) => {
            Finding::ok(format!("this Linux is a guest of {name}, and Vidar has been tested there"))
        }
        Some((_, name, false)) => {
            not_tried(format!("this Linux is a guest of {name}, and Vidar has not been tried there"))
        }
        None => not_tried("this Linux is a guest of a hypervisor that Vidar does not know".into()),
    }
}

fn not_tried(text: String) -> Finding {
    Finding::warning(text, "keep the bare entry at hand, and report what happens")
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::super::finding::State;
    use super::*;

    #[test]
    fn hypervisors_are_named() {
        let mut machine = fake::intel();
        assert_eq!(check(&machine).state, State::Ok);
        machine.change(1, |leaf| leaf.ecx |= 1 << 31);
        assert_eq!(check(&machine).state, State::Warning);
        let mut of = |signature: &[u8; 12]| {
            let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| signature[at + byte]));
            machine
                .change(SIGNATURE_LEAF, |leaf| (leaf.ebx, leaf.ecx, leaf.edx) = (word(0), word(4), word(8)));
            check(&machine)
        };
        assert_eq!(
            of(b"KVMKVMKVM\0\0\0"),
            Finding::ok("this Linux is a guest of KVM, and Vidar has been tested there")
        );
        assert!(of(b"VMwareVMware").text.contains("a guest of VMware"));
    }
}
