//! The rules for the VM-execution controls that Vidar never sets. They are not in the image: the tests ask them.

use super::bits::{function, pin, primary, secondary, tertiary};
use super::fields::*;
use super::state::{MANUAL, Rules, Section, State};
use crate::mem::addr::PAGE_SIZE;
use crate::vmm::rules::rules;
use crate::vmx::controls::secondary::EPT;
use crate::vmx::field::*;

/// The rules of the section.
pub const SECTION: Section =
    Section { manual: MANUAL, number: "27.2.1.1", title: "VM-Execution Control Fields", rules: RULES };

const RULES: Rules = rules![
    State,
    ("C4", "The tertiary controls, if activated, are such as the CPU allows.", |s| {
        s.note(key::ALLOWED, s.facts.tertiary);
        !s.primary(primary::TERTIARY) || s.clear(TERTIARY_CONTROLS, !s.facts.tertiary)
    }),
    ("C8", "The virtual-APIC page, if the TPR shadow is used, is a page of memory.", |s| {
        !s.primary(primary::TPR_SHADOW) || s.page(VIRTUAL_APIC_ADDRESS)
    }),
    ("C9a", "Bits 31:4 of the TPR threshold are 0, if it is used without virtual-interrupt delivery.", |s| {
        !uses_threshold(s) || s.clear(TPR_THRESHOLD, !0xf)
    }),
    (
        "C9b",
        "The TPR threshold does not exceed bits 7:4 of the virtual TPR, unless APIC accesses are virtualized.",
        |s| {
            const TPR: u64 = 0x80;
            let page = || s.peek(VIRTUAL_APIC_ADDRESS) & !(PAGE_SIZE - 1);
            let reaches = |tpr| s.get(TPR_THRESHOLD) & 0xf <= u64::from(tpr >> 4 & 0xf_u32);
            !uses_threshold(s)
                || s.secondary(secondary::APIC_ACCESSES)
                || s.memory(page() | TPR).is_none_or(reaches)
        }
    ),
    ("C10a", "Virtual NMIs need NMI exiting.", |s| {
        !s.has(PIN_BASED_CONTROLS, pin::VIRTUAL_NMIS)
            || s.get(PIN_BASED_CONTROLS) & u64::from(pin::NMI_EXITING) != 0
    }),
    ("C10b", "NMI-window exiting needs virtual NMIs.", |s| {
        !s.primary(primary::NMI_WINDOW) || s.get(PIN_BASED_CONTROLS) & u64::from(pin::VIRTUAL_NMIS) != 0
    }),
    ("C11", "The APIC-access page, if APIC accesses are virtualized, is a page of memory.", |s| {
        !s.secondary(secondary::APIC_ACCESSES) || s.page(APIC_ACCESS_ADDRESS)
    }),
    (
        "C12",
        "Virtual x2APIC mode, APIC-register virtualization and virtual-interrupt delivery need the TPR shadow.",
        |s| s.primary(primary::TPR_SHADOW) || none(s, NEED_TPR_SHADOW)
    ),
    ("C13", "APIC accesses and x2APIC mode are not virtualized together.", |s| {
        !s.secondary(secondary::X2APIC_MODE) || none(s, secondary::APIC_ACCESSES)
    }),
    ("C14", "Virtual-interrupt delivery needs external-interrupt exiting.", |s| {
        s.has(PIN_BASED_CONTROLS, pin::EXTERNAL_INTERRUPT_EXITING) || none(s, secondary::INTERRUPT_DELIVERY)
    }),
    (
        "C15a",
        "Posted interrupts need virtual-interrupt delivery, and exits that acknowledge interrupts.",
        |s| {
            !posts(s)
                || s.secondary(secondary::INTERRUPT_DELIVERY)
                    && s.get(EXIT_CONTROLS) & u64::from(super::bits::exit::ACKNOWLEDGE_INTERRUPT) != 0
        }
    ),
    (
        "C15b",
        "The vector of posted interrupts is at most 255, and their descriptor is at 64 bytes in memory.",
        |s| {
            !posts(s)
                || s.clear(POSTED_INTERRUPT_VECTOR, 0xff00) && s.aligned(POSTED_INTERRUPT_DESCRIPTOR, 64)
        }
    ),
    ("C18b", "EPT paging-write control and guest-paging verification need EPT.", |s| {
        const NEED: u32 = tertiary::EPT_PAGING_WRITE | tertiary::GUEST_PAGING_VERIFICATION;
        s.secondary(EPT) || !s.tertiary(NEED) || s.get(TERTIARY_CONTROLS) & u64::from(NEED) == 0
    }),
    (
        "C19",
        "What page-modification logging, sub-page permissions, VMCS shadowing and #VE use are pages of memory.",
        |s| {
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
        }
    ),
    ("C20a", "The VM functions, if enabled, are such as the CPU has.", |s| {
        !s.secondary(secondary::VM_FUNCTIONS) || s.clear(VM_FUNCTION_CONTROLS, !s.facts.functions)
    }),
    ("C20b", "EPTP switching needs EPT, and its list is a page of memory.", |s| {
        !(s.secondary(secondary::VM_FUNCTIONS) && s.has(VM_FUNCTION_CONTROLS, function::EPTP_SWITCHING))
            || !none(s, EPT) && s.page(EPTP_LIST)
    }),
    ("C21", "The TSC multiplier is not 0, if TSC scaling is used.", |s| {
        !s.secondary(secondary::TSC_SCALING) || s.get(TSC_MULTIPLIER) != 0
    }),
];

/// The secondary controls that need the TPR shadow.
const NEED_TPR_SHADOW: u32 =
    secondary::X2APIC_MODE | secondary::APIC_REGISTERS | secondary::INTERRUPT_DELIVERY;

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
