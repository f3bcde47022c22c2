//! Tests that no known emulator can make. Each is named, and skipped with the reason, so that nobody takes it for made.

use super::lane::Lane;
use super::probes;
use crate::machine::abilities::Ability;

/// Those of no kind: where, what, and why not.
const TESTS: [(Lane, &str, &str); 1] = [(
    Lane::Vmx,
    "linux/5-level-paging",
    "Bochs 3.0 panics at the VM exit of a guest with 5-level paging (LA57), and the models of older ones have none",
)];

/// All of them by name, with what is in their way.
pub fn all() -> impl Iterator<Item = (String, Ability)> {
    let own = TESTS.into_iter().map(|(lane, name, why)| (lane.test(name), why));
    let all = own.chain(Lane::MORE.into_iter().chain([Lane::VmxKvm]).flat_map(probes::names_left_out));
    all.map(|(name, why)| (name, Ability::Nowhere(why)))
}
