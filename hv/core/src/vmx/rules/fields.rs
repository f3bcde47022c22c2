//! The fields that only the rules read, and the names of all fields for a report. [`field`] has the others.

use crate::vmx::field::{self, Field, Root, cet, switched_msrs};

macro_rules! fields {
    ($($name:ident: $width:ty = $encoding:literal;)*) => {
        $(
            #[doc = concat!("Encoding ", stringify!($encoding), ".")]
            pub const $name: Field<$width, Root> = Field::root($encoding);
        )*
        /// The names and the encodings of the fields above.
        const OWN: &[(&str, u32)] = &[$((stringify!($name), $encoding),)*];
    };
}

fields! {
    POSTED_INTERRUPT_VECTOR: u16 = 0x0002;
    EXIT_MSR_STORE_ADDRESS: u64 = 0x2006;
    EXIT_MSR_LOAD_ADDRESS: u64 = 0x2008;
    ENTRY_MSR_LOAD_ADDRESS: u64 = 0x200a;
    PML_ADDRESS: u64 = 0x200e;
    VIRTUAL_APIC_ADDRESS: u64 = 0x2012;
    APIC_ACCESS_ADDRESS: u64 = 0x2014;
    POSTED_INTERRUPT_DESCRIPTOR: u64 = 0x2016;
    VM_FUNCTION_CONTROLS: u64 = 0x2018;
    EPTP_LIST: u64 = 0x2024;
    VMREAD_BITMAP: u64 = 0x2026;
    VMWRITE_BITMAP: u64 = 0x2028;
    VE_INFORMATION: u64 = 0x202a;
    SUB_PAGE_TABLE: u64 = 0x2030;
    TSC_MULTIPLIER: u64 = 0x2032;
    TERTIARY_CONTROLS: u64 = 0x2034;
    SECONDARY_EXIT_CONTROLS: u64 = 0x2044;
    GUEST_PKRS: u64 = 0x2818;
    HOST_PKRS: u64 = 0x2c06;
    TPR_THRESHOLD: u32 = 0x401c;
}

/// What a record has beside fields: the keys are beyond all encodings.
pub mod key {
    /// A value in memory that an address in the VMCS leads to.
    pub const MEMORY: u32 = 0x1_0000;
    /// The address of the current VMCS.
    pub const CURRENT_VMCS: u32 = 0x1_0001;
    /// The controls that must be 1 and those that may be 1, as a capability MSR has them.
    pub const ALLOWED: u32 = 0x1_0002;
    /// The bits that must be 1 in a control register.
    pub const FIXED_1: u32 = 0x1_0003;
    /// The bits that may be 1 in a control register.
    pub const FIXED_0: u32 = 0x1_0004;
}

/// The names of what no table of fields has: optional state, and the keys.
const OTHERS: &[(&str, u32)] = &[
    ("GUEST_S_CET", cet::GUEST_S_CET.encoding()),
    ("GUEST_SSP", cet::GUEST_SSP.encoding()),
    ("GUEST_INTERRUPT_SSP_TABLE", cet::GUEST_INTERRUPT_SSP_TABLE.encoding()),
    ("HOST_S_CET", cet::HOST_S_CET.encoding()),
    ("HOST_SSP", cet::HOST_SSP.encoding()),
    ("HOST_INTERRUPT_SSP_TABLE", cet::HOST_INTERRUPT_SSP_TABLE.encoding()),
    ("GUEST_PERF_GLOBAL_CTRL", switched_msrs::GUEST_PERF_GLOBAL_CTRL.encoding()),
    ("HOST_PERF_GLOBAL_CTRL", switched_msrs::HOST_PERF_GLOBAL_CTRL.encoding()),
    ("GUEST_BNDCFGS", switched_msrs::GUEST_BNDCFGS.encoding()),
    ("in memory:", key::MEMORY),
    ("current VMCS", key::CURRENT_VMCS),
    ("allowed", key::ALLOWED),
    ("must be 1:", key::FIXED_1),
    ("may be 1:", key::FIXED_0),
];

/// Returns the name of the field with this encoding, or of another value that a record holds under `key`.
#[cold]
pub fn name(key: u32) -> &'static str {
    let mut known = "a field";
    for table in [field::ALL, OWN, OTHERS] {
        find(table, key, &mut known);
    }
    known
}

/// Sets `name` to that of the value with this key, if the table has it.
#[inline(never)]
fn find(table: &[(&'static str, u32)], key: u32, name: &mut &'static str) {
    if let Some((known, _)) = table.iter().find(|(_, known)| *known == key) {
        *name = known;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_one_name() {
        let all: Vec<_> = [field::ALL, OWN, OTHERS].into_iter().flatten().collect();
        for (index, (known, key)) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|(other, same)| other != known && same != key), "{known}");
            assert_eq!(name(*key), *known);
        }
        assert_eq!(name(u32::MAX), "a field");
    }
}
