//! The cases that only another CPU can show than the one that they begin with.

use vidar_core::vmx::field::*;
use vidar_core::vmx::rules::change::host_32;
use vidar_core::vmx::rules::fields::*;

use super::vmx::Machine;

/// The number of a rule, and a change of the state and of what the CPU has that breaks it.
type Case = (&'static str, fn(&mut Machine));

/// The cases.
pub const CASES: &[Case] = &[
    ("C1", |m| m.facts.capabilities.pin &= !(1 << 33)),
    ("C1", |m| m.facts.capabilities.pin |= 1 << 10),
    ("C3", |m| m.facts.capabilities.secondary &= !(1 << (1 + 32))),
    ("C17a", |m| m.facts.capabilities.ept_vpid &= !(1 << 14)),
    ("C17b", |m| m.facts.capabilities.ept_vpid &= !(1 << 6)),
    ("C17c", |m| {
        m.or(EPT_POINTER, 1 << 6);
        m.facts.capabilities.ept_vpid &= !(1 << 21);
    }),
    ("C28b", |m| {
        m.or(EXIT_CONTROLS, 1 << 31);
        m.set(SECONDARY_EXIT_CONTROLS, 8);
        m.facts.secondary_exit = 7;
    }),
    ("C31c", |m| {
        to_smm(m);
        m.or(ENTRY_CONTROLS, 1 << 11);
    }),
    ("C32", |m| {
        m.set(ENTRY_INTERRUPTION_INFO, 0x8000_0700);
        m.facts.capabilities.primary &= !(1 << (27 + 32));
    }),
    // Bochs 2.7 does not know this type, and panics.
    ("C33", |m| m.set(ENTRY_INTERRUPTION_INFO, 0x8000_0701)),
    ("H12c", |m| {
        m.change(host_32);
        m.facts.ia32e = false;
        m.set(HOST_SS_SELECTOR, 0);
    }),
    ("H15", |m| m.facts.ia32e = false),
    ("H15", |m| {
        m.change(host_32);
        m.change(|m| m.long_mode());
        m.facts.ia32e = false;
    }),
    ("H16", |m| {
        m.change(host_32);
        m.facts.ia32e = false;
        m.set(HOST_RIP, 1 << 32);
    }),
    ("G40a", |m| {
        m.set(GUEST_ACTIVITY_STATE, 3);
        m.facts.capabilities.misc &= !(1 << 8);
    }),
    ("G41b", |m| {
        to_smm(m);
        m.set(GUEST_ACTIVITY_STATE, 3);
    }),
    ("G42i", |m| {
        to_smm(m);
        m.set(GUEST_INTERRUPTIBILITY, 0);
    }),
];

/// Has the entry go from system-management mode to a guest in that mode.
fn to_smm(m: &mut Machine) {
    m.facts.smm = true;
    m.or(ENTRY_CONTROLS, 1 << 10);
    m.set(GUEST_INTERRUPTIBILITY, 4);
}
