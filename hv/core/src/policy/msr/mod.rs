//! The policy for the guest's RDMSR and WRMSR. Accesses pass through to the CPU, except for the MSRs in some tables:
//! [`COMMON`] and those of each extension, from which its bitmap is derived.
//!
//! Each file here, and in `msrs` of each extension, has one group of MSRs: the row for a table, the handler if there is
//! one, and the tests. A handler only decides. It reads the state of the CPU and the machine by a [`Context`], and
//! [`vmm::msr`](crate::vmm::msr) applies the [`Effect`] that it returns. To add a group, write its file, and add to
//! `mod.rs` a `pub mod`, a line to the list below, and the row to a table.
//!
//! | file | what it is for |
//! |---|---|
//! | [`row`] | A row of a table, and the rules that reads and writes can have. |
//! | [`allowed`] | The decision about a write, and the writes that Vidar executes for the guest. |
//! | [`context`] | What a handler can read of the CPU and the machine. |
//! | [`apic_base`] | IA32_APIC_BASE: the local APIC stays off Vidar's memory. |
//! | [`efer`] | The handlers of IA32_EFER. |
//! | [`guard`] | The MSRs that the boot option `guard` guards. |
//! | [`hypervisors`] | The MSRs that hypervisors define are refused. |
//! | [`microcode`] | The MSRs that load an update of the CPU's microcode. |
//! | [`mtrr`] | The MTRRs: the second stage follows them. |
//! | [`x2apic_icr`] | IA32_X2APIC_ICR, if Vidar starts CPUs. |

pub mod allowed;
pub mod apic_base;
pub mod context;
pub mod efer;
pub mod guard;
pub mod hypervisors;
pub mod microcode;
pub mod mtrr;
pub mod row;
pub mod x2apic_icr;

pub use self::allowed::AllowedMsrWrite;
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
