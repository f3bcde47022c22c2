//! The rule for the list of MSRs that a VM entry loads.

use super::fields::ENTRY_MSR_LOAD_ADDRESS;
use super::state::{MANUAL, Section, State};
use crate::vmm::rules::rules;
use crate::vmx::field::*;

/// The most MSRs of a list that are looked at. Intel's manual recommends no longer lists: Intel SDM Vol. 3D, Appendix
/// A.6 "Miscellaneous Data".
const MOST: u64 = 512;

/// The rule of the section.
pub const SECTION: Section = Section {
    manual: MANUAL,
    number: "27.4",
    title: "Loading MSRs",
    rules: rules![
        State,
        (
            "M1",
            "The list of MSRs that entries load has no base of FS or GS, no MSR of an x2APIC, and 0 in its reserved parts.",
            |s| {
                let count = s.peek(ENTRY_MSR_LOAD_COUNT).min(MOST);
                (0..count).all(|index| {
                    s.forget();
                    can_load(s, (s.get(ENTRY_MSR_LOAD_ADDRESS) & !0xf).checked_add(index * 16))
                })
            }
        ),
    ],
};

/// Returns true if the entry of the list at `address` can be loaded, or cannot be read. There is none beyond the last
/// address.
fn can_load(s: &State<'_>, address: Option<u64>) -> bool {
    const FS_BASE: u32 = 0xc000_0100;
    const GS_BASE: u32 = 0xc000_0101;
    let is_good = |index| !matches!(index, FS_BASE | GS_BASE | 0x800..=0x8ff);
    let Some(address) = address else { return true };
    s.memory(address).is_none_or(is_good) && s.memory(address | 4).is_none_or(|reserved| reserved == 0)
}
