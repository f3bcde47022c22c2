//! The rules for the VM-exit controls, and for the VM-entry controls without event injection.

use super::bits::{entry, exit};
use super::fields::*;
use super::state::{MANUAL, Section, State};
use crate::vmm::rules::rules;
use crate::vmx::controls::pin;
use crate::vmx::field::*;

/// The rules for the VM-exit controls.
pub const EXIT: Section = Section {
    manual: MANUAL,
    number: "27.2.1.2",
    title: "VM-Exit Control Fields",
    rules: rules![
        State,
        ("C28a", "The VM-exit controls are such as the CPU allows.", |s| {
            s.allowed(EXIT_CONTROLS, s.facts.capabilities.exit)
        }),
        ("C28b", "The secondary VM-exit controls, if activated, are such as the CPU allows.", |s| {
            s.note(key::ALLOWED, s.facts.secondary_exit);
            !s.exit(exit::SECONDARY) || s.clear(SECONDARY_EXIT_CONTROLS, !s.facts.secondary_exit)
        }),
        ("C29", "Saving the preemption timer needs an active preemption timer.", |s| {
            !s.exit(exit::SAVE_TIMER) || s.get(PIN_BASED_CONTROLS) & u64::from(pin::PREEMPTION_TIMER) != 0
        }),
        ("C30a", "The lists of MSRs that exits store and load are at 16 bytes and wholly in memory.", |s| {
            list(s, EXIT_MSR_STORE_COUNT, EXIT_MSR_STORE_ADDRESS)
                && list(s, EXIT_MSR_LOAD_COUNT, EXIT_MSR_LOAD_ADDRESS)
        }),
    ],
};

/// The rules for the VM-entry controls.
pub const ENTRY: Section = Section {
    manual: MANUAL,
    number: super::injection::NUMBER,
    title: super::injection::TITLE,
    rules: rules![
        State,
        ("C30b", "The list of MSRs that entries load is at 16 bytes and wholly in memory.", |s| {
            list(s, ENTRY_MSR_LOAD_COUNT, ENTRY_MSR_LOAD_ADDRESS)
        }),
        ("C31a", "The VM-entry controls are such as the CPU allows.", |s| {
            s.allowed(ENTRY_CONTROLS, s.facts.capabilities.entry)
        }),
        (
            "C31b",
            "Outside of system-management mode no entry goes there or ends the dual-monitor treatment.",
            |s| s.facts.smm || s.clear(ENTRY_CONTROLS, BY_SMM.into())
        ),
        ("C31c", "An entry to system-management mode does not end the dual-monitor treatment.", |s| {
            s.get(ENTRY_CONTROLS) as u32 & BY_SMM != BY_SMM
        }),
    ],
};

/// The controls of entries from system-management mode.
const BY_SMM: u32 = entry::TO_SMM | entry::DEACTIVATE_DUAL_MONITOR;

/// Returns true if a list of `count` MSRs, 16 bytes each, is in memory. An empty list may be anywhere.
#[inline(never)]
fn list(s: &State<'_>, count: Field<u32, impl Access>, address: Field<u64, impl Access>) -> bool {
    s.forget();
    let count = s.get(count);
    if count == 0 {
        return true;
    }
    let first = s.get(address);
    first & 0xf == 0 && first.checked_add(count * 16 - 1).is_some_and(|last| s.in_memory(last))
}
