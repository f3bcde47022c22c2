//! The fields of the VMCB by name, for a debugger. The names are those of AMD APM Vol. 2, Appendix B "Layout of VMCB".

use super::vmcb::{Page, intercept};
use crate::debugger::structure::{FIELDS, Layout};

/// What a VMCB consists of, for a debugger.
pub const LAYOUT: Layout = Layout { name: "VMCB", field: |number| ALL.get(number).map(|(name, _)| *name) };

/// Returns the value of the field with this number, or `None` if there is none.
pub fn value(page: &Page, number: usize) -> Option<u64> {
    ALL.get(number).map(|(_, read)| read(page))
}

macro_rules! fields {
    (
        control { $($control:literal |$area:ident| $read:expr;)* }
        segments { $($segment:ident $segment_name:literal;)* }
        tables { $($table:ident $table_name:literal;)* }
        save { $($saved:ident $saved_name:literal;)* }
    ) => {
        /// The names of the fields, and how each is read.
        const ALL: &[(&str, fn(&Page) -> u64)] = &[
            $(($control, |page| { let $area = page.control(); u64::from($read) }),)*
            $(
                (concat!($segment_name, ".selector"), |page| page.save().$segment.selector.into()),
                (concat!($segment_name, ".attrib"), |page| page.save().$segment.attributes.into()),
                (concat!($segment_name, ".limit"), |page| page.save().$segment.limit.into()),
                (concat!($segment_name, ".base"), |page| page.save().$segment.base),
            )*
            $(
                (concat!($table_name, ".limit"), |page| page.save().$table.limit.into()),
                (concat!($table_name, ".base"), |page| page.save().$table.base),
            )*
            $(($saved_name, |page| u64::from(page.save().$saved)),)*
        ];
    };
}

fields! {
    control {
        "INTERCEPT_CR" |area| area.intercepts[intercept::CONTROL_REGISTERS];
        "INTERCEPT_DR" |area| area.intercepts[intercept::DEBUG_REGISTERS];
        "INTERCEPT_EXCEPTIONS" |area| area.intercepts[intercept::EXCEPTIONS];
        "INTERCEPT_INSTRUCTIONS_1" |area| area.intercepts[intercept::GENERAL];
        "INTERCEPT_INSTRUCTIONS_2" |area| area.intercepts[intercept::MORE];
        "INTERCEPT_INSTRUCTIONS_3" |area| area.intercepts[intercept::MORE + 1];
        "IOPM_BASE_PA" |area| area.iopm_base_pa;
        "MSRPM_BASE_PA" |area| area.msrpm_base_pa;
        "TSC_OFFSET" |area| area.tsc_offset;
        "GUEST_ASID" |area| area.guest_asid;
        "TLB_CONTROL" |area| area.tlb_control;
        "V_INTR" |area| area.interrupt_control;
        "INTERRUPT_SHADOW" |area| area.interrupt_shadow;
        "EXITCODE" |area| area.exitcode;
        "EXITINFO1" |area| area.exitinfo1;
        "EXITINFO2" |area| area.exitinfo2;
        "EXITINTINFO" |area| area.exitintinfo;
        "NP_ENABLE" |area| area.nested_control;
        "EVENTINJ" |area| area.eventinj;
        "N_CR3" |area| area.n_cr3;
        "VMCB_CLEAN" |area| area.clean;
        "nRIP" |area| area.nrip;
    }
    segments {
        es "ES"; cs "CS"; ss "SS"; ds "DS"; fs "FS"; gs "GS"; ldtr "LDTR"; tr "TR";
    }
    tables {
        gdtr "GDTR"; idtr "IDTR";
    }
    save {
        cpl "CPL"; efer "EFER"; cr4 "CR4"; cr3 "CR3"; cr0 "CR0"; dr7 "DR7"; dr6 "DR6"; rflags "RFLAGS"; rip "RIP";
        rsp "RSP"; s_cet "S_CET"; ssp "SSP"; isst_addr "ISST_ADDR"; rax "RAX"; star "STAR"; lstar "LSTAR";
        cstar "CSTAR"; sfmask "SFMASK"; kernel_gs_base "KernelGsBase"; sysenter_cs "SYSENTER_CS";
        sysenter_esp "SYSENTER_ESP"; sysenter_eip "SYSENTER_EIP"; cr2 "CR2"; g_pat "G_PAT";
    }
}

const _: () = assert!(ALL.len() <= FIELDS);

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;
    use crate::svm::vmcb::Clean;

    #[test]
    fn each_field_has_a_name_of_its_own_and_its_value() {
        let mut page = Page::new_zeroed();
        let of = |page: &Page, wanted: &str| {
            let number = (0..).find(|number| (LAYOUT.field)(*number) == Some(wanted)).expect("a field");
            value(page, number)
        };
        page.control_mut(Clean::empty()).intercepts[4] = 0x207f;
        page.save_mut(Clean::empty()).cs.attributes = 0xa9b;
        page.save_mut(Clean::empty()).idtr.limit = 0xfff;
        page.save_mut(Clean::empty()).rip = 0x1234;
        assert_eq!(of(&page, "INTERCEPT_INSTRUCTIONS_2"), Some(0x207f));
        assert_eq!(of(&page, "CS.attrib"), Some(0xa9b));
        assert_eq!(of(&page, "IDTR.limit"), Some(0xfff));
        assert_eq!(of(&page, "RIP"), Some(0x1234));
        assert_eq!((value(&page, ALL.len()), (LAYOUT.field)(ALL.len())), (None, None));
        for (index, (name, _)) in ALL.iter().enumerate() {
            assert!(ALL[index + 1..].iter().all(|(other, _)| other != name), "{name}");
        }
    }
}
