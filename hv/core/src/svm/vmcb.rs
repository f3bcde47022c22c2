//! The VMCB: the guest's state and what of it exits, in one page that the CPU reads and writes as memory. What is changed of it
//! must be named, so that the CPU does not go on with what it kept.
//!
//! The offsets are those of appendix B, "Layout of VMCB". Fields that Vidar never uses are part of the reserved ones.

use bitflags::bitflags;
use zerocopy::FromZeros;

bitflags! {
    /// Parts of the VMCB that the CPU may take from the last run, where it has clean bits. AMD APM Vol. 2, 15.15.3
    /// "VMCB Clean Field".
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Clean: u32 {
        /// Intercepts, TSC offset.
        const INTERCEPTS = 1 << 0;
        /// Addresses of the permission maps.
        const PERMISSION_MAPS = 1 << 1;
        /// ASID.
        const ASID = 1 << 2;
        /// Virtual interrupts.
        const INTERRUPTS = 1 << 3;
        /// Nested paging: the root, G_PAT.
        const NESTED_PAGING = 1 << 4;
        /// CR0, CR3, CR4, EFER.
        const CONTROLS = 1 << 5;
        /// DR6, DR7.
        const DEBUG = 1 << 6;
        /// GDTR, IDTR.
        const DESCRIPTOR_TABLES = 1 << 7;
        /// CS, DS, SS, ES, CPL.
        const SEGMENTS = 1 << 8;
        /// CR2.
        const CR2 = 1 << 9;
        /// DebugCtl and the last branch.
        const LAST_BRANCH = 1 << 10;
        /// The virtual interrupt controller.
        const AVIC = 1 << 11;
        /// S_CET, SSP, ISST_ADDR.
        const SHADOW_STACK = 1 << 12;
        /// All of these. The other bits stay 0: what they stand for on a CPU to come, Vidar does not know to have changed.
        const ALL = (1 << 13) - 1;
    }
}

/// Intercept vectors, by their place in [`Control::intercepts`]. The bits are numbered as the exit codes.
pub mod intercept {
    /// The word with exit codes 60H to 7FH.
    pub const GENERAL: usize = 3;
    /// INIT.
    pub const INIT: u32 = 1 << 3;
    /// CPUID.
    pub const CPUID: u32 = 1 << 18;
    /// INVD.
    pub const INVD: u32 = 1 << 22;
    /// INVLPGA.
    pub const INVLPGA: u32 = 1 << 26;
    /// RDMSR and WRMSR, as the MSR permissions map says.
    pub const MSR: u32 = 1 << 28;
    /// Shutdown.
    pub const SHUTDOWN: u32 = 1 << 31;

    /// The word with exit codes 80H to 9FH.
    pub const MORE: usize = 4;
    /// VMRUN, which must be intercepted, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT.
    pub const SVM: u32 = 0x7f;
    /// XSETBV.
    pub const XSETBV: u32 = 1 << 13;
}

/// Values of [`Control::tlb_control`]. AMD APM Vol. 2, 15.16.1 "TLB Flush".
pub mod tlb_control {
    /// Nothing is flushed.
    pub const NOTHING: u32 = 0;
    /// Everything.
    pub const ALL: u32 = 1;
    /// The translations of this ASID.
    pub const THIS_ASID: u32 = 3;
}

/// Bit of [`Control::nested_control`]: nested paging.
pub const NP_ENABLE: u64 = 1;

/// The control area.
#[derive(Debug, Clone, FromZeros)]
#[repr(C)]
pub struct Control {
    /// What exits.
    pub intercepts: [u32; 6],
    reserved_18: [u32; 10],
    /// Physical address of the I/O permissions map; of no effect while ports are not intercepted.
    pub iopm_base_pa: u64,
    /// Physical address of the MSR permissions map.
    pub msrpm_base_pa: u64,
    /// Added to the guest's TSC.
    pub tsc_offset: u64,
    /// Tags the guest's translations; not 0.
    pub guest_asid: u32,
    /// What VMRUN flushes first.
    pub tlb_control: u32,
    /// Virtual interrupts.
    pub interrupt_control: u64,
    /// Bit 0: the guest is in the shadow of STI or MOV SS.
    pub interrupt_shadow: u64,
    /// Why the guest left.
    pub exitcode: u64,
    /// More about it.
    pub exitinfo1: u64,
    /// Still more.
    pub exitinfo2: u64,
    /// The event whose delivery the exit interrupted.
    pub exitintinfo: u64,
    /// Nested paging and what belongs to encrypted guests.
    pub nested_control: u64,
    reserved_98: [u64; 2],
    /// The event that VMRUN injects.
    pub eventinj: u64,
    /// Physical address of the nested page table.
    pub n_cr3: u64,
    reserved_b8: u64,
    /// Parts that have not changed since the last run.
    pub clean: u32,
    reserved_c4: u32,
    /// The address behind the intercepted instruction, where the CPU saves it.
    pub nrip: u64,
    reserved_d0: [u64; 102],
}

/// A segment register. The attributes are those of a descriptor, bits 55:52 and 47:40, side by side.
#[derive(Debug, Clone, Copy, Default, FromZeros)]
#[repr(C)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Type, S, DPL and P in bits 7:0; AVL, L, D/B and G in bits 11:8.
    pub attributes: u16,
    /// Limit in bytes.
    pub limit: u32,
    /// Base address.
    pub base: u64,
}

/// [`Segment::attributes`] of CS: L, 64-bit code.
pub const LONG_CODE: u16 = 1 << 9;
/// [`Segment::attributes`] of CS: D, operands and addresses of 32 bits.
pub const DEFAULT_32: u16 = 1 << 10;

/// The state-save area.
#[derive(Debug, Clone, FromZeros)]
#[repr(C)]
pub struct Save {
    /// ES.
    pub es: Segment,
    /// CS.
    pub cs: Segment,
    /// SS.
    pub ss: Segment,
    /// DS.
    pub ds: Segment,
    /// FS: of VMLOAD and VMSAVE.
    pub fs: Segment,
    /// GS: of VMLOAD and VMSAVE.
    pub gs: Segment,
    /// GDTR: base and limit.
    pub gdtr: Segment,
    /// LDTR: of VMLOAD and VMSAVE.
    pub ldtr: Segment,
    /// IDTR: base and limit.
    pub idtr: Segment,
    /// TR: of VMLOAD and VMSAVE.
    pub tr: Segment,
    reserved_0a0: [u8; 43],
    /// The current privilege level.
    pub cpl: u8,
    reserved_0cc: u32,
    /// EFER, with SVME set.
    pub efer: u64,
    reserved_0d8: [u64; 14],
    /// CR4.
    pub cr4: u64,
    /// CR3.
    pub cr3: u64,
    /// CR0.
    pub cr0: u64,
    /// DR7.
    pub dr7: u64,
    /// DR6.
    pub dr6: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RIP.
    pub rip: u64,
    reserved_180: [u64; 11],
    /// RSP.
    pub rsp: u64,
    /// S_CET.
    pub s_cet: u64,
    /// SSP.
    pub ssp: u64,
    /// ISST_ADDR.
    pub isst_addr: u64,
    /// RAX.
    pub rax: u64,
    reserved_200: [u64; 8],
    /// CR2.
    pub cr2: u64,
    reserved_248: [u64; 4],
    /// The guest's PAT under nested paging.
    pub g_pat: u64,
    reserved_270: [u64; 306],
}

/// One VMCB, a page.
#[derive(Debug, Clone, FromZeros)]
#[repr(C)]
pub struct Page {
    /// Offset 0.
    pub control: Control,
    /// Offset 400H.
    pub save: Save,
}

/// Asserts where the manual has a field.
macro_rules! assert_offsets {
    ($structure:ty: $($field:ident $offset:literal)*) => {
        const _: () = {
            $(assert!(core::mem::offset_of!($structure, $field) == $offset, stringify!($field));)*
        };
    };
}

assert_offsets!(Page: control 0 save 0x400);
assert_offsets!(Control:
    intercepts 0 iopm_base_pa 0x40 msrpm_base_pa 0x48 tsc_offset 0x50 guest_asid 0x58 tlb_control 0x5c
    interrupt_control 0x60 interrupt_shadow 0x68 exitcode 0x70 exitinfo1 0x78 exitinfo2 0x80 exitintinfo 0x88
    nested_control 0x90 eventinj 0xa8 n_cr3 0xb0 clean 0xc0 nrip 0xc8
);
assert_offsets!(Segment: selector 0 attributes 2 limit 4 base 8);
assert_offsets!(Save:
    es 0 cs 0x10 ss 0x20 ds 0x30 fs 0x40 gs 0x50 gdtr 0x60 ldtr 0x70 idtr 0x80 tr 0x90 cpl 0xcb efer 0xd0 cr4 0x148
    cr3 0x150 cr0 0x158 dr7 0x160 dr6 0x168 rflags 0x170 rip 0x178 rsp 0x1d8 s_cet 0x1e0 ssp 0x1e8 isst_addr 0x1f0
    rax 0x1f8 cr2 0x240 g_pat 0x268
);
const _: () = assert!(size_of::<Page>() == 4096);

/// Offset of RAX in the page, for assembly.
pub const RAX: usize = core::mem::offset_of!(Page, save) + core::mem::offset_of!(Save, rax);

impl Page {
    /// The control area, of which the parts `changed` may be changed; what has no part of its own always may. The CPU does not go on
    /// with what it kept of them.
    pub fn control_mut(&mut self, changed: Clean) -> &mut Control {
        self.control.clean &= !changed.bits();
        &mut self.control
    }

    /// The state-save area, of which the parts `changed` may be changed; what has no part of its own always may.
    pub fn save_mut(&mut self, changed: Clean) -> &mut Save {
        self.control.clean &= !changed.bits();
        &mut self.save
    }

    /// After an exit: all is as the CPU left it, no event is to be injected and nothing to be flushed.
    pub const fn left(&mut self, clean: Clean) {
        self.control.clean = clean.bits();
        self.control.eventinj = 0;
        self.control.tlb_control = tlb_control::NOTHING;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_marked() {
        let mut vmcb = Page::new_zeroed();
        vmcb.left(Clean::ALL);
        assert_eq!(vmcb.control.clean, 0x1fff, "reserved bits are 0");
        vmcb.save_mut(Clean::CONTROLS | Clean::DEBUG).cr0 = 1;
        vmcb.control_mut(Clean::empty()).eventinj = 1 << 31;
        assert_eq!(vmcb.control.clean, 0x1fff & !(1 << 5 | 1 << 6));
        vmcb.left(Clean::empty());
        assert_eq!((vmcb.control.clean, vmcb.control.eventinj), (0, 0));
    }
}
