// tidy: long because it is the table of VMCS fields.
//! The fields of a VMCS, as typed constants: access with the wrong width, or a write to a read-only field, does not
//! compile. Nor does a write to a field on which Vidar itself depends, except where a virtual CPU is set up.
//!
//! The encodings are in Intel SDM Vol. 3D, Appendix B "Field Encoding in VMCS", and their structure is in Vol. 3C,
//! 25.11.2 "VMREAD, VMWRITE, and Encodings of VMCS Fields".

use core::marker::PhantomData;

/// The type of a field's value, which has the width of the field.
pub trait Width: Copy {
    /// Bits 14:13 of the encodings of fields with this width.
    const CODE: u32;
    /// Returns the value of the field from the 64 bits that VMREAD returns.
    fn from_u64(value: u64) -> Self;
    /// Returns the value of the field as the 64 bits that VMWRITE takes.
    fn to_u64(self) -> u64;
}

/// The value of a natural-width field, which has 64 bits on CPUs with 64-bit mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Natural(pub u64);

macro_rules! widths {
    ($($type:ty = $code:literal),*) => {
        $(impl Width for $type {
            const CODE: u32 = $code;
            fn from_u64(value: u64) -> Self {
                value as Self
            }
            fn to_u64(self) -> u64 {
                u64::from(self)
            }
        })*
    };
}

widths!(u16 = 0, u64 = 1, u32 = 2);

impl Width for Natural {
    const CODE: u32 = 3;
    fn from_u64(value: u64) -> Self {
        Self(value)
    }
    fn to_u64(self) -> u64 {
        self.0
    }
}

/// The access of fields that can be read and written. Whatever value such a field holds, the guest can do only what its
/// own instructions could do, or it exits, or the entry fails.
#[derive(Debug, Clone, Copy)]
pub struct ReadWrite;
/// The access of fields on which Vidar, which runs in VMX root operation, depends: the host state, the addresses of
/// memory that the CPU uses, and the controls that keep the guest in its own memory. [`RootFieldsMut`] writes them.
#[derive(Debug, Clone, Copy)]
pub struct Root;
/// The access of read-only fields, which hold exit information.
#[derive(Debug, Clone, Copy)]
pub struct ReadOnly;

/// The access that a field allows.
pub trait Access: Copy {
    /// The types of the fields that may have this access, as a bit for each value of bits 11:10 of their encodings.
    const TYPES: u32;
}

const CONTROL: u32 = 1 << 0;
const EXIT_INFORMATION: u32 = 1 << 1;
const GUEST_STATE: u32 = 1 << 2;
const HOST_STATE: u32 = 1 << 3;

impl Access for ReadWrite {
    const TYPES: u32 = CONTROL | GUEST_STATE;
}
impl Access for Root {
    const TYPES: u32 = CONTROL | GUEST_STATE | HOST_STATE;
}
impl Access for ReadOnly {
    const TYPES: u32 = EXIT_INFORMATION;
}

/// A field of width `W` and access `A`.
#[derive(Debug, Clone, Copy)]
pub struct Field<W, A = ReadWrite> {
    encoding: u32,
    kind: PhantomData<(W, A)>,
}

impl<W: Width> Field<W, Root> {
    /// Returns the field with this encoding, for code that only reads it.
    ///
    /// # Panics
    /// Panics if the encoding has a width other than `W` or is that of a read-only field.
    pub(super) const fn root(encoding: u32) -> Self {
        Self::new(encoding)
    }
}

impl<W: Width, A: Access> Field<W, A> {
    /// Returns the field with this encoding.
    ///
    /// # Panics
    /// Panics if the encoding has a width other than `W` or does not allow `A`. In constants it does so at compile
    /// time.
    const fn new(encoding: u32) -> Self {
        assert!(encoding >> 13 & 3 == W::CODE, "the encoding has another width than the type");
        assert!(A::TYPES >> (encoding >> 10 & 3) & 1 == 1, "fields of this type do not have this access");
        Self { encoding, kind: PhantomData }
    }

    /// Returns the encoding, as VMREAD and VMWRITE take it.
    pub const fn encoding(self) -> u32 {
        self.encoding
    }

    #[cfg(test)]
    const fn is_root(self) -> bool {
        A::TYPES == Root::TYPES
    }
}

/// A source of field values: the current VMCS, or a fake in tests.
pub trait Fields {
    /// Returns the value of `field`.
    fn read<W: Width, A: Access>(&self, field: Field<W, A>) -> W;
}

/// A VMCS, or a fake in tests, whose fields can also be written.
pub trait FieldsMut: Fields {
    /// Sets `field` to `value`.
    ///
    /// A field on which Vidar depends is not written like this:
    ///
    /// ```compile_fail
    /// use vidar_core::vmx::field::{FieldsMut, HOST_RIP, Natural};
    ///
    /// fn write(vmcs: &mut impl FieldsMut) {
    ///     vmcs.write(HOST_RIP, Natural(0));
    /// }
    /// ```
    fn write<W: Width>(&mut self, field: Field<W, ReadWrite>, value: W);
}

/// A VMCS, or a fake in tests, while its fields on which Vidar depends can be written.
pub trait RootFieldsMut: FieldsMut {
    /// Sets `field` to `value`.
    fn write_root<W: Width>(&mut self, field: Field<W, Root>, value: W);
}

macro_rules! fields {
    ($($name:ident: $width:ty $(, $access:ty)? = $encoding:literal;)*) => {
        $(
            #[doc = concat!("Encoding ", stringify!($encoding), ".")]
            pub const $name: Field<$width $(, $access)?> = Field::new($encoding);
        )*
        /// The name and the encoding of every field above, for the check that the CPU has them.
        pub const ALL: &[(&str, u32)] = &[$((stringify!($name), $encoding),)*];
        /// The name and the encoding of every field above on which Vidar depends.
        #[cfg(test)]
        pub(crate) fn root() -> impl Iterator<Item = (&'static str, u32)> {
            [$(($name.is_root(), stringify!($name), $encoding)),*]
                .into_iter()
                .filter(|(is_root, ..)| *is_root)
                .map(|(_, name, encoding)| (name, encoding))
        }
    };
}

fields! {
    // B.1 16-bit fields: control, guest state, host state.
    VPID: u16 = 0x0000;
    GUEST_ES_SELECTOR: u16 = 0x0800;
    GUEST_CS_SELECTOR: u16 = 0x0802;
    GUEST_SS_SELECTOR: u16 = 0x0804;
    GUEST_DS_SELECTOR: u16 = 0x0806;
    GUEST_FS_SELECTOR: u16 = 0x0808;
    GUEST_GS_SELECTOR: u16 = 0x080a;
    GUEST_LDTR_SELECTOR: u16 = 0x080c;
    GUEST_TR_SELECTOR: u16 = 0x080e;
    HOST_ES_SELECTOR: u16, Root = 0x0c00;
    HOST_CS_SELECTOR: u16, Root = 0x0c02;
    HOST_SS_SELECTOR: u16, Root = 0x0c04;
    HOST_DS_SELECTOR: u16, Root = 0x0c06;
    HOST_FS_SELECTOR: u16, Root = 0x0c08;
    HOST_GS_SELECTOR: u16, Root = 0x0c0a;
    HOST_TR_SELECTOR: u16, Root = 0x0c0c;

    // B.2 64-bit fields: control, exit information, guest state, host state.
    IO_BITMAP_A: u64, Root = 0x2000;
    IO_BITMAP_B: u64, Root = 0x2002;
    MSR_BITMAP: u64, Root = 0x2004;
    TSC_OFFSET: u64 = 0x2010;
    EPT_POINTER: u64, Root = 0x201a;
    XSS_EXITING_BITMAP: u64 = 0x202c;
    PCONFIG_EXITING_BITMAP: u64 = 0x203e;
    GUEST_PHYSICAL_ADDRESS: u64, ReadOnly = 0x2400;
    VMCS_LINK_POINTER: u64, Root = 0x2800;
    GUEST_DEBUGCTL: u64 = 0x2802;
    GUEST_PAT: u64 = 0x2804;
    GUEST_EFER: u64 = 0x2806;
    GUEST_PDPTE0: u64 = 0x280a;
    GUEST_PDPTE1: u64 = 0x280c;
    GUEST_PDPTE2: u64 = 0x280e;
    GUEST_PDPTE3: u64 = 0x2810;
    HOST_PAT: u64, Root = 0x2c00;
    HOST_EFER: u64, Root = 0x2c02;

    // B.3 32-bit fields: control, exit information, guest state, host state.
    PIN_BASED_CONTROLS: u32, Root = 0x4000;
    PRIMARY_CONTROLS: u32, Root = 0x4002;
    EXCEPTION_BITMAP: u32 = 0x4004;
    PAGE_FAULT_ERROR_CODE_MASK: u32 = 0x4006;
    PAGE_FAULT_ERROR_CODE_MATCH: u32 = 0x4008;
    CR3_TARGET_COUNT: u32 = 0x400a;
    EXIT_CONTROLS: u32, Root = 0x400c;
    EXIT_MSR_STORE_COUNT: u32, Root = 0x400e;
    EXIT_MSR_LOAD_COUNT: u32, Root = 0x4010;
    ENTRY_CONTROLS: u32 = 0x4012;
    ENTRY_MSR_LOAD_COUNT: u32, Root = 0x4014;
    ENTRY_INTERRUPTION_INFO: u32 = 0x4016;
    ENTRY_EXCEPTION_ERROR_CODE: u32 = 0x4018;
    ENTRY_INSTRUCTION_LENGTH: u32 = 0x401a;
    SECONDARY_CONTROLS: u32, Root = 0x401e;
    VM_INSTRUCTION_ERROR: u32, ReadOnly = 0x4400;
    EXIT_REASON: u32, ReadOnly = 0x4402;
    EXIT_INTERRUPTION_INFO: u32, ReadOnly = 0x4404;
    IDT_VECTORING_INFO: u32, ReadOnly = 0x4408;
    IDT_VECTORING_ERROR_CODE: u32, ReadOnly = 0x440a;
    EXIT_INSTRUCTION_LENGTH: u32, ReadOnly = 0x440c;
    EXIT_INSTRUCTION_INFO: u32, ReadOnly = 0x440e;
    GUEST_ES_LIMIT: u32 = 0x4800;
    GUEST_CS_LIMIT: u32 = 0x4802;
    GUEST_SS_LIMIT: u32 = 0x4804;
    GUEST_DS_LIMIT: u32 = 0x4806;
    GUEST_FS_LIMIT: u32 = 0x4808;
    GUEST_GS_LIMIT: u32 = 0x480a;
    GUEST_LDTR_LIMIT: u32 = 0x480c;
    GUEST_TR_LIMIT: u32 = 0x480e;
    GUEST_GDTR_LIMIT: u32 = 0x4810;
    GUEST_IDTR_LIMIT: u32 = 0x4812;
    GUEST_ES_RIGHTS: u32 = 0x4814;
    GUEST_CS_RIGHTS: u32 = 0x4816;
    GUEST_SS_RIGHTS: u32 = 0x4818;
    GUEST_DS_RIGHTS: u32 = 0x481a;
    GUEST_FS_RIGHTS: u32 = 0x481c;
    GUEST_GS_RIGHTS: u32 = 0x481e;
    GUEST_LDTR_RIGHTS: u32 = 0x4820;
    GUEST_TR_RIGHTS: u32 = 0x4822;
    GUEST_INTERRUPTIBILITY: u32 = 0x4824;
    GUEST_ACTIVITY_STATE: u32 = 0x4826;
    GUEST_SYSENTER_CS: u32 = 0x482a;
    PREEMPTION_TIMER: u32 = 0x482e;
    HOST_SYSENTER_CS: u32, Root = 0x4c00;

    // B.4 Natural-width fields: control, exit information, guest state, host state.
    CR0_GUEST_HOST_MASK: Natural = 0x6000;
    CR4_GUEST_HOST_MASK: Natural = 0x6002;
    CR0_READ_SHADOW: Natural = 0x6004;
    CR4_READ_SHADOW: Natural = 0x6006;
    EXIT_QUALIFICATION: Natural, ReadOnly = 0x6400;
    GUEST_CR0: Natural = 0x6800;
    GUEST_CR3: Natural = 0x6802;
    GUEST_CR4: Natural = 0x6804;
    GUEST_ES_BASE: Natural = 0x6806;
    GUEST_CS_BASE: Natural = 0x6808;
    GUEST_SS_BASE: Natural = 0x680a;
    GUEST_DS_BASE: Natural = 0x680c;
    GUEST_FS_BASE: Natural = 0x680e;
    GUEST_GS_BASE: Natural = 0x6810;
    GUEST_LDTR_BASE: Natural = 0x6812;
    GUEST_TR_BASE: Natural = 0x6814;
    GUEST_GDTR_BASE: Natural = 0x6816;
    GUEST_IDTR_BASE: Natural = 0x6818;
    GUEST_DR7: Natural = 0x681a;
    GUEST_RSP: Natural = 0x681c;
    GUEST_RIP: Natural = 0x681e;
    GUEST_RFLAGS: Natural = 0x6820;
    GUEST_PENDING_DEBUG: Natural = 0x6822;
    GUEST_SYSENTER_ESP: Natural = 0x6824;
    GUEST_SYSENTER_EIP: Natural = 0x6826;
    HOST_CR0: Natural, Root = 0x6c00;
    HOST_CR3: Natural, Root = 0x6c02;
    HOST_CR4: Natural, Root = 0x6c04;
    HOST_FS_BASE: Natural, Root = 0x6c06;
    HOST_GS_BASE: Natural, Root = 0x6c08;
    HOST_TR_BASE: Natural, Root = 0x6c0a;
    HOST_GDTR_BASE: Natural, Root = 0x6c0c;
    HOST_IDTR_BASE: Natural, Root = 0x6c0e;
    HOST_SYSENTER_ESP: Natural, Root = 0x6c10;
    HOST_SYSENTER_EIP: Natural, Root = 0x6c12;
    HOST_RSP: Natural, Root = 0x6c14;
    HOST_RIP: Natural, Root = 0x6c16;
}

/// The encodings of the fields that exist only if the CPU has a control which Vidar does not require.
pub const OPTIONAL: &[u32] =
    &[VPID.encoding(), XSS_EXITING_BITMAP.encoding(), PCONFIG_EXITING_BITMAP.encoding()];

/// The fields of the CET state. They exist only if the CPU has the "load CET state" controls.
pub mod cet {
    use super::{Field, Natural, Root};

    /// Guest IA32_S_CET.
    pub const GUEST_S_CET: Field<Natural> = Field::new(0x6828);
    /// Guest SSP.
    pub const GUEST_SSP: Field<Natural> = Field::new(0x682a);
    /// Guest IA32_INTERRUPT_SSP_TABLE_ADDR.
    pub const GUEST_INTERRUPT_SSP_TABLE: Field<Natural> = Field::new(0x682c);
    /// Host IA32_S_CET.
    pub const HOST_S_CET: Field<Natural, Root> = Field::new(0x6c18);
    /// Host SSP.
    pub const HOST_SSP: Field<Natural, Root> = Field::new(0x6c1a);
    /// Host IA32_INTERRUPT_SSP_TABLE_ADDR.
    pub const HOST_INTERRUPT_SSP_TABLE: Field<Natural, Root> = Field::new(0x6c1c);
}

/// The fields of the MSRs that entries and exits switch. Each exists only if the CPU has the controls for it. See
/// `vmx::switched_msrs`.
pub mod switched_msrs {
    use super::{Field, Root};

    /// Guest IA32_PERF_GLOBAL_CTRL.
    pub const GUEST_PERF_GLOBAL_CTRL: Field<u64> = Field::new(0x2808);
    /// Guest IA32_BNDCFGS.
    pub const GUEST_BNDCFGS: Field<u64> = Field::new(0x2812);
    /// Guest IA32_RTIT_CTL.
    pub const GUEST_RTIT_CTL: Field<u64> = Field::new(0x2814);
    /// Guest IA32_LBR_CTL.
    pub const GUEST_LBR_CTL: Field<u64> = Field::new(0x2816);
    /// Host IA32_PERF_GLOBAL_CTRL.
    pub const HOST_PERF_GLOBAL_CTRL: Field<u64, Root> = Field::new(0x2c04);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_of_full_access_and_unique() {
        for (i, (name, encoding)) in ALL.iter().enumerate() {
            assert_eq!(encoding & 1, 0, "{name} must not name the high half of a 64-bit field");
            assert!(ALL[i + 1..].iter().all(|(_, other)| other != encoding), "{name}");
        }
    }
}
