//! The VMCB: the intercepts and the guest's state, in one page of memory that the CPU reads and writes. Code that
//! changes a part must name the part, so that the CPU does not use a cached value of it.
//!
//! The offsets are in appendix B of AMD's manual, "Layout of VMCB". Fields that Vidar does not use are in the reserved
//! ones.

use bitflags::bitflags;
use zerocopy::FromZeros;

bitflags! {
    /// The parts of the VMCB that a CPU with clean bits may keep from the last VMRUN. AMD APM Vol. 2, 15.15.3 "VMCB
    /// Clean Field".
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Clean: u32 {
        /// Intercepts and TSC offset.
        const INTERCEPTS = 1 << 0;
        /// Addresses of the permission maps.
        const PERMISSION_MAPS = 1 << 1;
        /// ASID.
        const ASID = 1 << 2;
        /// Virtual interrupts.
        const INTERRUPTS = 1 << 3;
        /// Nested paging: N_CR3 and G_PAT.
        const NESTED_PAGING = 1 << 4;
        /// CR0, CR3, CR4 and EFER.
        const CONTROLS = 1 << 5;
        /// DR6 and DR7.
        const DEBUG = 1 << 6;
        /// GDTR and IDTR.
        const DESCRIPTOR_TABLES = 1 << 7;
        /// CS, DS, SS, ES and CPL.
        const SEGMENTS = 1 << 8;
        /// CR2.
        const CR2 = 1 << 9;
        /// DebugCtl and the last-branch records.
        const LAST_BRANCH = 1 << 10;
        /// The virtual interrupt controller.
        const AVIC = 1 << 11;
        /// S_CET, SSP and ISST_ADDR.
        const SHADOW_STACK = 1 << 12;
        /// All of these parts. The other bits stay 0: Vidar cannot tell if a part that a future CPU defines has
        /// changed.
        const ALL = (1 << 13) - 1;
    }
}

/// The words of [`Control::intercepts`] and their bits. Bit n of word w intercepts what has the exit code 32 * w + n.
pub mod intercept {
    /// The index of the word with exit codes 0 to 1FH: reads of the control registers, and writes from bit 16 on.
    pub const CONTROL_REGISTERS: usize = 0;
    /// Writes of CR4.
    pub const CR4_WRITE: u32 = 1 << 20;

    /// The index of the word with exit codes 20H to 3FH: reads of the debug registers, and writes from bit 16 on.
    pub const DEBUG_REGISTERS: usize = 1;
    /// Reads and writes of DR0 to DR7.
    pub const ALL_DEBUG_REGISTERS: u32 = 0x00ff_00ff;

    /// The index of the word with exit codes 40H to 5FH: the exceptions, by their vectors.
    pub const EXCEPTIONS: usize = 2;
    /// #DB.
    pub const DEBUG: u32 = 1 << 1;
    /// #BP.
    pub const BREAKPOINT: u32 = 1 << 3;

    /// The index of the word with exit codes 60H to 7FH.
    pub const GENERAL: usize = 3;
    /// Physical interrupts.
    pub const INTERRUPT: u32 = 1 << 0;
    /// NMIs.
    pub const NMI: u32 = 1 << 1;
    /// INIT.
    pub const INIT: u32 = 1 << 3;
    /// Writes of CR0 that change bits other than TS and MP, by MOV and LMSW.
    pub const CR0_SELECTIVE_WRITE: u32 = 1 << 5;
    /// CPUID.
    pub const CPUID: u32 = 1 << 18;
    /// IRET.
    pub const IRET: u32 = 1 << 20;
    /// INT n.
    pub const SOFTWARE_INTERRUPT: u32 = 1 << 21;
    /// INVD.
    pub const INVD: u32 = 1 << 22;
    /// INVLPGA.
    pub const INVLPGA: u32 = 1 << 26;
    /// Accesses to I/O ports, as the I/O permissions map says.
    pub const IO: u32 = 1 << 27;
    /// RDMSR and WRMSR, as the MSR permissions map says.
    pub const MSR: u32 = 1 << 28;
    /// Shutdown.
    pub const SHUTDOWN: u32 = 1 << 31;

    /// The index of the word with exit codes 80H to 9FH.
    pub const MORE: usize = 4;
    /// VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI and SKINIT. VMRUN fails if it is not intercepted itself.
    pub const SVM: u32 = 0x7f;
    /// INT1.
    pub const INT1: u32 = 1 << 8;
    /// XSETBV.
    pub const XSETBV: u32 = 1 << 13;
}

/// Values of [`Control::tlb_control`]. AMD APM Vol. 2, 15.16.1 "TLB Flush".
pub mod tlb_control {
    /// Flush nothing.
    pub const NOTHING: u32 = 0;
    /// Flush the whole TLB.
    pub const ALL: u32 = 1;
    /// Flush the translations of the guest's ASID. It requires flush by ASID.
    pub const THIS_ASID: u32 = 3;
}

/// Bit 24 of [`Control::interrupt_control`], V_INTR_MASKING: RFLAGS.IF of the host masks physical interrupts in the
/// guest, and CR8 of the guest is V_TPR, in bits 7:0.
pub const INTERRUPT_MASKING: u64 = 1 << 24;

/// Bit 8 of [`Control::interrupt_control`], V_IRQ: the guest gets the interrupt whose vector is in bits 39:32 as soon
/// as its RFLAGS.IF lets it.
pub const VIRTUAL_INTERRUPT: u64 = 1 << 8;
/// Bit 20 of [`Control::interrupt_control`], V_IGN_TPR: V_TPR does not hold that interrupt back.
pub const IGNORE_TASK_PRIORITY: u64 = 1 << 20;

/// Bit 0 of [`Control::nested_control`]: nested paging is enabled.
pub const NP_ENABLE: u64 = 1;

/// The control area.
#[derive(Debug, Clone, FromZeros)]
#[repr(C)]
pub struct Control {
    /// The intercept vectors, as [`intercept`] describes them.
    pub intercepts: [u32; 6],
    reserved_18: [u32; 10],
    /// Physical address of the I/O permissions map. It has an effect only for a debugger.
    pub iopm_base_pa: u64,
    /// Physical address of the MSR permissions map.
    pub msrpm_base_pa: u64,
    /// The offset that the CPU adds to the TSC when the guest reads it.
    pub tsc_offset: u64,
    /// The ASID that tags the guest's translations. It must not be 0.
    pub guest_asid: u32,
    /// What VMRUN flushes, as a value of [`tlb_control`].
    pub tlb_control: u32,
    /// The control of virtual interrupts, which only a debugger uses.
    pub interrupt_control: u64,
    /// Bit 0: the guest is in the shadow of STI or MOV SS.
    pub interrupt_shadow: u64,
    /// The exit code: the reason for the exit.
    pub exitcode: u64,
    /// Information about the exit that depends on the exit code.
    pub exitinfo1: u64,
    /// Further information about the exit that depends on the exit code.
    pub exitinfo2: u64,
    /// The event whose delivery the exit interrupted, in the format of [`event`](super::event).
    pub exitintinfo: u64,
    /// The controls of nested paging and of encrypted guests.
    pub nested_control: u64,
    reserved_98: [u64; 2],
    /// The event that VMRUN injects, in the format of [`event`](super::event).
    pub eventinj: u64,
    /// Physical address of the nested page table.
    pub n_cr3: u64,
    reserved_b8: u64,
    /// The parts that have not changed since the last VMRUN, as bits of [`Clean`].
    pub clean: u32,
    reserved_c4: u32,
    /// The address of the instruction after the intercepted one, on a CPU with nrip_save.
    pub nrip: u64,
    reserved_d0: [u64; 102],
}

/// A segment register. The attributes are bits 55:52 and 47:40 of a descriptor, without the gap between them.
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

/// The L bit of [`Segment::attributes`] of CS: 64-bit code.
pub const LONG_CODE: u16 = 1 << 9;
/// The D bit of [`Segment::attributes`] of CS: operands and addresses have 32 bits by default.
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
    /// FS. VMLOAD loads it and VMSAVE saves it.
    pub fs: Segment,
    /// GS. VMLOAD loads it and VMSAVE saves it.
    pub gs: Segment,
    /// GDTR. Only the base and the limit are used.
    pub gdtr: Segment,
    /// LDTR. VMLOAD loads it and VMSAVE saves it.
    pub ldtr: Segment,
    /// IDTR. Only the base and the limit are used.
    pub idtr: Segment,
    /// TR. VMLOAD loads it and VMSAVE saves it.
    pub tr: Segment,
    reserved_0a0: [u8; 43],
    /// The current privilege level.
    pub cpl: u8,
    reserved_0cc: u32,
    /// EFER. SVME must be set.
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
    /// STAR. VMLOAD loads it and VMSAVE saves it, as with all fields up to SYSENTER_EIP.
    pub star: u64,
    /// LSTAR.
    pub lstar: u64,
    /// CSTAR.
    pub cstar: u64,
    /// SFMASK.
    pub sfmask: u64,
    /// KernelGsBase.
    pub kernel_gs_base: u64,
    /// SYSENTER_CS.
    pub sysenter_cs: u64,
    /// SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// CR2.
    pub cr2: u64,
    reserved_248: [u64; 4],
    /// The guest's PAT under nested paging.
    pub g_pat: u64,
    reserved_270: [u64; 306],
}

/// A VMCB, which is one page of 4 KiB.
#[derive(Debug, Clone, FromZeros)]
#[repr(C)]
pub struct Page {
    /// The control area, at offset 0.
    control: Control,
    /// The state-save area, at offset 400H.
    save: Save,
}

/// Asserts that fields have the offsets of the manual.
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
    rax 0x1f8 star 0x200 lstar 0x208 cstar 0x210 sfmask 0x218 kernel_gs_base 0x220 sysenter_cs 0x228 sysenter_esp 0x230
    sysenter_eip 0x238 cr2 0x240 g_pat 0x268
);
const _: () = assert!(size_of::<Page>() == 4096);

/// The offset in bytes of RAX in the VMCB, for assembly.
pub const RAX: usize = core::mem::offset_of!(Page, save) + core::mem::offset_of!(Save, rax);

impl Page {
    /// Returns the control area.
    pub const fn control(&self) -> &Control {
        &self.control
    }

    /// Returns the state-save area.
    pub const fn save(&self) -> &Save {
        &self.save
    }

    /// Returns the control area to be changed, and marks the parts `changed` as not clean. The caller may change these
    /// parts, and fields that belong to no part.
    pub fn control_mut(&mut self, changed: Clean) -> &mut Control {
        self.control.clean &= !changed.bits();
        &mut self.control
    }

    /// Returns the state-save area to be changed, and marks the parts `changed` as not clean. The caller may change
    /// these parts, and fields that belong to no part.
    pub fn save_mut(&mut self, changed: Clean) -> &mut Save {
        self.control.clean &= !changed.bits();
        &mut self.save
    }

    /// Prepares the VMCB for the next VMRUN, after an exit: marks the parts `clean` as clean, and requests neither an
    /// injection nor a TLB flush.
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
    fn changed_parts_are_not_clean() {
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
