//! The rules for the VM-execution controls.

use super::bits::{function, pin, primary, secondary, tertiary};
use super::fields::*;
use super::state::{MANUAL, Rule, Section, State};
use crate::mem::addr::PAGE_SIZE;
use crate::vmx::controls::{self, secondary as used};
use crate::vmx::field::*;

/// The rules of the section.
pub const SECTION: Section =
    Section { manual: MANUAL, number: "27.2.1.1", title: "VM-Execution Control Fields", rules: RULES };

const RULES: &[Rule] = &[
    Rule {
        id: "C1",
        says: "The pin-based controls are such as the CPU allows.",
        holds: |s| s.allowed(PIN_BASED_CONTROLS, s.facts.capabilities.pin),
    },
    Rule {
        id: "C2",
        says: "The primary controls are such as the CPU allows.",
        holds: |s| s.allowed(PRIMARY_CONTROLS, s.facts.capabilities.primary),
    },
    Rule {
        id: "C3",
        says: "The secondary controls, if activated, are such as the CPU allows.",
        holds: |s| {
            !s.primary(controls::primary::SECONDARY)
                || s.allowed(SECONDARY_CONTROLS, s.facts.capabilities.secondary)
        },
    },
    Rule {
        id: "C4",
        says: "The tertiary controls, if activated, are such as the CPU allows.",
        holds: |s| {
            s.note(key::ALLOWED, s.facts.tertiary);
            !s.primary(primary::TERTIARY) || s.clear(TERTIARY_CONTROLS, !s.facts.tertiary)
        },
    },
    Rule {
        id: "C5",
        says: "There are no more CR3-target values than the CPU supports.",
        holds: |s| s.get(CR3_TARGET_COUNT) <= s.facts.capabilities.misc >> 16 & 0x1ff,
    },
    Rule {
        id: "C6",
        says: "The I/O bitmaps, if used, are pages of memory.",
        holds: |s| !s.primary(primary::IO_BITMAPS) || s.page(IO_BITMAP_A) && s.page(IO_BITMAP_B),
    },
    Rule {
        id: "C7",
        says: "The MSR bitmaps, if used, are a page of memory.",
        holds: |s| !s.primary(controls::primary::MSR_BITMAPS) || s.page(MSR_BITMAP),
    },
    Rule {
        id: "C8",
        says: "The virtual-APIC page, if the TPR shadow is used, is a page of memory.",
        holds: |s| !s.primary(primary::TPR_SHADOW) || s.page(VIRTUAL_APIC_ADDRESS),
    },
    Rule {
        id: "C9a",
        says: "Bits 31:4 of the TPR threshold are 0, if it is used without virtual-interrupt delivery.",
        holds: |s| !uses_threshold(s) || s.clear(TPR_THRESHOLD, !0xf),
    },
    Rule {
        id: "C9b",
        says: "The TPR threshold does not exceed bits 7:4 of the virtual TPR, unless APIC accesses are virtualized.",
        holds: |s| {
            const TPR: u64 = 0x80;
            if !uses_threshold(s) || s.secondary(secondary::APIC_ACCESSES) {
                return true;
            }
            let page = s.peek(VIRTUAL_APIC_ADDRESS) & !(PAGE_SIZE - 1);
            s.memory(page | TPR).is_none_or(|tpr| s.get(TPR_THRESHOLD) & 0xf <= u64::from(tpr >> 4 & 0xf))
        },
    },
    Rule {
        id: "C10a",
        says: "Virtual NMIs need NMI exiting.",
        holds: |s| {
            !s.has(PIN_BASED_CONTROLS, pin::VIRTUAL_NMIS)
                || s.get(PIN_BASED_CONTROLS) & u64::from(pin::NMI_EXITING) != 0
        },
    },
    Rule {
        id: "C10b",
        says: "NMI-window exiting needs virtual NMIs.",
        holds: |s| {
            !s.primary(primary::NMI_WINDOW) || s.get(PIN_BASED_CONTROLS) & u64::from(pin::VIRTUAL_NMIS) != 0
        },
    },
    Rule {
        id: "C11",
        says: "The APIC-access page, if APIC accesses are virtualized, is a page of memory.",
        holds: |s| !s.secondary(secondary::APIC_ACCESSES) || s.page(APIC_ACCESS_ADDRESS),
    },
    Rule {
        id: "C12",
        says: "Virtual x2APIC mode, APIC-register virtualization and virtual-interrupt delivery need the TPR shadow.",
        holds: |s| s.primary(primary::TPR_SHADOW) || none(s, NEED_TPR_SHADOW),
    },
    Rule {
        id: "C13",
        says: "APIC accesses and x2APIC mode are not virtualized together.",
        holds: |s| !s.secondary(secondary::X2APIC_MODE) || none(s, secondary::APIC_ACCESSES),
    },
    Rule {
        id: "C14",
        says: "Virtual-interrupt delivery needs external-interrupt exiting.",
        holds: |s| {
            s.has(PIN_BASED_CONTROLS, pin::EXTERNAL_INTERRUPT_EXITING)
                || none(s, secondary::INTERRUPT_DELIVERY)
        },
    },
    Rule {
        id: "C15a",
        says: "Posted interrupts need virtual-interrupt delivery, and exits that acknowledge interrupts.",
        holds: |s| {
            !posts(s)
                || s.secondary(secondary::INTERRUPT_DELIVERY)
                    && s.get(EXIT_CONTROLS) & u64::from(super::bits::exit::ACKNOWLEDGE_INTERRUPT) != 0
        },
    },
    Rule {
        id: "C15b",
        says: "The vector of posted interrupts is at most 255, and their descriptor is at 64 bytes in memory.",
        holds: |s| {
            !posts(s)
                || s.clear(POSTED_INTERRUPT_VECTOR, 0xff00) && s.aligned(POSTED_INTERRUPT_DESCRIPTOR, 64)
        },
    },
    Rule {
        id: "C16",
        says: "The VPID is not 0, if VPIDs are enabled.",
        holds: |s| !s.secondary(used::VPID) || s.get(VPID) != 0,
    },
    Rule {
        id: "C17a",
        says: "The EPT pointer has a memory type that the CPU allows: uncacheable (0) or write-back (6).",
        holds: |s| !s.secondary(used::EPT) || memory_type_is_allowed(s),
    },
    Rule {
        id: "C17b",
        says: "The EPT pointer says four levels of tables, or five if the CPU has them.",
        holds: |s| {
            let ept = s.facts.capabilities.ept_vpid;
            !s.secondary(used::EPT)
                || match s.get(EPT_POINTER) >> 3 & 7 {
                    3 => ept & 1 << 6 != 0,
                    4 => ept & 1 << 7 != 0,
                    _ => false,
                }
        },
    },
    Rule {
        id: "C17c",
        says: "The EPT pointer has no bit that the CPU lacks, and its table is in memory.",
        holds: |s| {
            let ept = s.facts.capabilities.ept_vpid;
            let reserved = 0xf00
                | if ept & 1 << 21 == 0 { 1 << 6 } else { 0 }
                | if ept & 1 << 23 == 0 { 1 << 7 } else { 0 };
            // Only the width of physical addresses counts here, also if other addresses have 32 bits.
            let beyond = u64::MAX << s.facts.address_bits.min(63);
            !s.secondary(used::EPT) || s.clear(EPT_POINTER, reserved | beyond)
        },
    },
    Rule {
        id: "C18a",
        says: "An unrestricted guest, mode-based execute control, page-modification logging and sub-page permissions need EPT.",
        holds: |s| s.secondary(used::EPT) || none(s, NEED_EPT),
    },
    Rule {
        id: "C18b",
        says: "EPT paging-write control and guest-paging verification need EPT.",
        holds: |s| {
            const NEED: u32 = tertiary::EPT_PAGING_WRITE | tertiary::GUEST_PAGING_VERIFICATION;
            s.secondary(used::EPT) || !s.tertiary(NEED) || s.get(TERTIARY_CONTROLS) & u64::from(NEED) == 0
        },
    },
    Rule {
        id: "C19",
        says: "What page-modification logging, sub-page permissions, VMCS shadowing and #VE use are pages of memory.",
        holds: |s| {
            let pages = [
                (secondary::PML, PML_ADDRESS),
                (secondary::SUB_PAGE, SUB_PAGE_TABLE),
                (secondary::VMCS_SHADOWING, VMREAD_BITMAP),
                (secondary::VMCS_SHADOWING, VMWRITE_BITMAP),
                (secondary::VE, VE_INFORMATION),
            ];
            pages.into_iter().all(|(control, field)| {
                s.forget();
                !s.secondary(control) || s.page(field)
            })
        },
    },
    Rule {
        id: "C20a",
        says: "The VM functions, if enabled, are such as the CPU has.",
        holds: |s| !s.secondary(secondary::VM_FUNCTIONS) || s.clear(VM_FUNCTION_CONTROLS, !s.facts.functions),
    },
    Rule {
        id: "C20b",
        says: "EPTP switching needs EPT, and its list is a page of memory.",
        holds: |s| {
            !(s.secondary(secondary::VM_FUNCTIONS) && s.has(VM_FUNCTION_CONTROLS, function::EPTP_SWITCHING))
                || !none(s, used::EPT) && s.page(EPTP_LIST)
        },
    },
    Rule {
        id: "C21",
        says: "The TSC multiplier is not 0, if TSC scaling is used.",
        holds: |s| !s.secondary(secondary::TSC_SCALING) || s.get(TSC_MULTIPLIER) != 0,
    },
];

/// The secondary controls that need the TPR shadow.
const NEED_TPR_SHADOW: u32 =
    secondary::X2APIC_MODE | secondary::APIC_REGISTERS | secondary::INTERRUPT_DELIVERY;

/// The secondary controls that need EPT.
const NEED_EPT: u32 =
    used::UNRESTRICTED_GUEST | secondary::MODE_BASED_EXECUTE | secondary::PML | secondary::SUB_PAGE;

/// Returns true if none of the secondary controls `mask` is set. Records the controls.
#[inline(never)]
fn none(s: &State<'_>, mask: u32) -> bool {
    !s.secondary(mask) || s.clear(SECONDARY_CONTROLS, mask.into())
}

/// Returns true if the TPR threshold counts.
fn uses_threshold(s: &State<'_>) -> bool {
    s.primary(primary::TPR_SHADOW) && !s.secondary(secondary::INTERRUPT_DELIVERY)
}

/// Returns true if interrupts are posted.
fn posts(s: &State<'_>) -> bool {
    s.has(PIN_BASED_CONTROLS, pin::POSTED_INTERRUPTS)
}

/// Returns true if the CPU can read EPT tables with the memory type that the EPT pointer says.
fn memory_type_is_allowed(s: &State<'_>) -> bool {
    let ept = s.facts.capabilities.ept_vpid;
    match s.get(EPT_POINTER) & 7 {
        0 => ept & 1 << 8 != 0,
        6 => ept & 1 << 14 != 0,
        _ => false,
    }
}
