//! What becomes of the guest's RDMSR and WRMSR. The CPU answers by itself, except for the MSRs in some tables: [`COMMON`] and one
//! of each backend, from which its bitmap is derived.
//!
//! A file in this room, or in `msrs` of a backend, has one group of MSRs: the row for a table, the handler if it has one, and
//! the test. A handler only decides. It asks by a [`Context`], and [`vmm::msr`](crate::vmm::msr) applies the [`Effect`] that it
//! returns. So a new group takes its file and, in the page of the room, `pub mod`, a line below, and a line in a table.
//!
//! | file | what it is for |
//! |---|---|
//! | [`row`] | A row of a table, and what can become of reads and writes. |
//! | [`context`] | What a handler may ask. |
//! | [`apic_base`] | IA32_APIC_BASE: the local APIC stays off Vidar's memory. |
//! | [`efer`] | The handlers of IA32_EFER. |
//! | [`hypervisors`] | The MSRs that hypervisors define are refused. |
//! | [`microcode`] | The MSRs that load an update of the CPU's microcode. |
//! | [`mtrr`] | The MTRRs: the second stage follows them. |
//! | [`x2apic_icr`] | IA32_X2APIC_ICR, where Vidar starts CPUs. |

pub mod apic_base;
pub mod context;
pub mod efer;
pub mod hypervisors;
pub mod microcode;
pub mod mtrr;
pub mod row;
pub mod x2apic_icr;

pub use self::context::Context;
pub use self::row::{Effect, Read, Row, Write, policy};

/// MSRs that Vidar filters with every extension.
pub const COMMON: &[Row] = &[apic_base::ROW, mtrr::ROW, hypervisors::ROW];

/// MSRs that Vidar filters as well if it starts CPUs for the guest.
pub const STARTUP: &[Row] = &[x2apic_icr::ROW];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x86::msr;

    #[test]
    fn the_cpu_answers_for_msrs_in_no_table() {
        let own = [Row::new(&[0x10..=0x1f, 0x30..=0x30], Read::Refuse, Write::Keep)];
        for index in [0x10, 0x1f, 0x30] {
            assert!(matches!(policy(&[COMMON, &own], index), (Read::Refuse, Write::Keep)), "{index:#x}");
        }
        for (tables, index) in [(&[COMMON, &own][..], 0x20), (&[COMMON, &own], 0x2f), (&[COMMON], 0x1f)] {
            assert!(matches!(policy(tables, index), (Read::Native, Write::Native)), "{index:#x}");
        }
        assert!(matches!(policy(&[COMMON, &own], msr::APIC_BASE), (Read::Native, Write::Handled(_))));
    }
}
