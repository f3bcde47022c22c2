//! Tests that no known emulator can run. Each of them is listed as skipped, with the reason, so that it is not silently
//! absent.

use super::lane::Lane;
use super::probes;
use crate::machine::abilities::Ability;

/// The reason why little can be tested with two CPUs on a KVM in Bochs.
///
/// At a VM entry, Bochs loads RFLAGS before it notes that the CPU is in a guest (`VMenterLoadCheckGuestState` in its
/// cpu/vmx.cc, the same in 2.7 and 3.0). If IF is clear, external interrupts thus stay masked, although they should
/// cause an exit. While a guest spins with IF clear, for instance because Linux has stopped all its CPUs, the CPU of
/// the Linux with KVM answers no IPIs.
const LOCKS_UP: &str = "in Bochs no external interrupt causes an exit from a guest that was entered with IF clear, so the Linux with KVM \
                        locks up sooner or later if its guest has two CPUs";

/// The tests other than scenarios of the probe: the lane, the name, and the reason.
const TESTS: [(Lane, &str, &str); 4] = [
    (
        Lane::Vmx,
        "linux/5-level-paging",
        "Bochs 3.0 panics at the VM exit of a guest with 5-level paging (LA57), and the models of older ones have none",
    ),
    (
        Lane::Vmx,
        "probe/msr-immediate",
        "neither Bochs 3.0 nor QEMU 10 has RDMSR and WRMSRNS with an immediate on a CPU that it models",
    ),
    (Lane::VmxKvm, "linux/2-cpu/hotplug", LOCKS_UP),
    (Lane::VmxKvm, "linux/2-cpu/reboot", LOCKS_UP),
];

/// Returns all such tests, including scenarios of the probe. Each has the ability that it lacks.
pub fn all() -> impl Iterator<Item = (String, Ability)> {
    let own = TESTS.into_iter().map(|(lane, name, why)| (lane.test(name), why));
    let all = own.chain(Lane::MORE.into_iter().chain([Lane::VmxKvm]).flat_map(probes::names_left_out));
    all.map(|(name, why)| (name, Ability::Nowhere(why)))
}
