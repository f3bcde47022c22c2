//! The rules for the VM-execution controls that Vidar uses. [`unused`](super::unused) has the others.

use super::bits::secondary as more;
use super::state::{MANUAL, Rules, Section, State};
use crate::vmm::rules::rules;
use crate::vmx::controls::{primary, secondary};
use crate::vmx::field::*;

/// The rules of the section.
pub const SECTION: Section =
    Section { manual: MANUAL, number: "27.2.1.1", title: "VM-Execution Control Fields", rules: RULES };

const RULES: Rules = rules![
    State,
    ("C1", "The pin-based controls are such as the CPU allows.", |s| {
        s.allowed(PIN_BASED_CONTROLS, s.facts.capabilities.pin)
    }),
    ("C2", "The primary controls are such as the CPU allows.", |s| {
        s.allowed(PRIMARY_CONTROLS, s.facts.capabilities.primary)
    }),
    ("C3", "The secondary controls, if activated, are such as the CPU allows.", |s| {
        !s.primary(primary::SECONDARY) || s.allowed(SECONDARY_CONTROLS, s.facts.capabilities.secondary)
    }),
    ("C5", "There are no more CR3-target values than the CPU supports.", |s| {
        s.get(CR3_TARGET_COUNT) <= s.facts.capabilities.misc >> 16 & 0x1ff
    }),
    ("C6", "The I/O bitmaps, if used, are pages of memory.", |s| {
        !s.primary(primary::IO_BITMAPS) || s.page(IO_BITMAP_A) && s.page(IO_BITMAP_B)
    }),
    ("C7", "The MSR bitmaps, if used, are a page of memory.", |s| {
        !s.primary(primary::MSR_BITMAPS) || s.page(MSR_BITMAP)
    }),
    ("C16", "The VPID is not 0, if VPIDs are enabled.", |s| {
        !s.secondary(secondary::VPID) || s.get(VPID) != 0
    }),
    (
        "C17a",
        "The EPT pointer has a memory type that the CPU allows: uncacheable (0) or write-back (6).",
        |s| !s.secondary(secondary::EPT) || memory_type_is_allowed(s)
    ),
    ("C17b", "The EPT pointer says four levels of tables, or five if the CPU has them.", |s| {
        let ept = s.facts.capabilities.ept_vpid;
        !s.secondary(secondary::EPT)
            || match s.get(EPT_POINTER) >> 3 & 7 {
                3 => ept & 1 << 6 != 0,
                4 => ept & 1 << 7 != 0,
                _ => false,
            }
    }),
    ("C17c", "The EPT pointer has no bit that the CPU lacks, and its table is in memory.", |s| {
        let ept = s.facts.capabilities.ept_vpid;
        let reserved =
            0xf00 | if ept & 1 << 21 == 0 { 1 << 6 } else { 0 } | if ept & 1 << 23 == 0 { 1 << 7 } else { 0 };
        // Only the width of physical addresses counts here, also if other addresses have 32 bits.
        let beyond = u64::MAX << s.facts.address_bits.min(63);
        !s.secondary(secondary::EPT) || s.clear(EPT_POINTER, reserved | beyond)
    }),
    (
        "C18a",
        "An unrestricted guest, mode-based execute control, page-modification logging and sub-page permissions need EPT.",
        |s| {
            s.secondary(secondary::EPT)
                || !s.secondary(NEED_EPT)
                || s.clear(SECONDARY_CONTROLS, NEED_EPT.into())
        }
    ),
];

/// The secondary controls that need EPT.
const NEED_EPT: u32 = secondary::UNRESTRICTED_GUEST | more::MODE_BASED_EXECUTE | more::PML | more::SUB_PAGE;

/// Returns true if the CPU can read EPT tables with the memory type that the EPT pointer says.
fn memory_type_is_allowed(s: &State<'_>) -> bool {
    let ept = s.facts.capabilities.ept_vpid;
    match s.get(EPT_POINTER) & 7 {
        0 => ept & 1 << 8 != 0,
        6 => ept & 1 << 14 != 0,
        _ => false,
    }
}
