//! The indices of model-specific registers, and the bits of EFER.
//!
//! The indices and names are in Intel SDM Vol. 4, 2.1 "Architectural MSRs", and those of AMD in appendix A of AMD's
//! manual, "MSR Cross-Reference".

/// IA32_APIC_BASE.
pub const APIC_BASE: u32 = 0x1b;
/// IA32_USER_MSR_CTL.
pub const USER_MSR_CTL: u32 = 0x1c;
/// IA32_FEATURE_CONTROL.
pub const FEATURE_CONTROL: u32 = 0x3a;
/// IA32_BIOS_UPDT_TRIG: a write loads microcode.
pub const BIOS_UPDT_TRIG: u32 = 0x79;
/// IA32_SMM_MONITOR_CTL.
pub const SMM_MONITOR_CTL: u32 = 0x9b;
/// IA32_SYSENTER_CS.
pub const SYSENTER_CS: u32 = 0x174;
/// IA32_SYSENTER_ESP.
pub const SYSENTER_ESP: u32 = 0x175;
/// IA32_SYSENTER_EIP.
pub const SYSENTER_EIP: u32 = 0x176;
/// IA32_MISC_ENABLE.
pub const MISC_ENABLE: u32 = 0x1a0;
/// IA32_FRED_RSP0, the first of FRED's MSRs.
pub const FRED_RSP0: u32 = 0x1cc;
/// IA32_FRED_CONFIG, the last of them.
pub const FRED_CONFIG: u32 = 0x1d4;
/// IA32_DEBUGCTL.
pub const DEBUGCTL: u32 = 0x1d9;
/// IA32_PAT.
pub const PAT: u32 = 0x277;
/// IA32_PERF_CAPABILITIES.
pub const PERF_CAPABILITIES: u32 = 0x345;
/// IA32_PERF_GLOBAL_CTRL.
pub const PERF_GLOBAL_CTRL: u32 = 0x38f;
/// IA32_PEBS_ENABLE.
pub const PEBS_ENABLE: u32 = 0x3f1;
/// IA32_PEBS_BASE.
pub const PEBS_BASE: u32 = 0x3f4;
/// IA32_PEBS_INDEX.
pub const PEBS_INDEX: u32 = 0x3f5;
/// IA32_PMC_GP0_CFG_C. The index for each further general-purpose counter is 4 higher.
pub const GP0_CFG_C: u32 = 0x1903;
/// IA32_PMC_FX0_CFG_C. The index for each further fixed-function counter is 4 higher.
pub const FIXED0_CFG_C: u32 = 0x1983;
/// IA32_VMX_BASIC, the first of the VMX capability MSRs.
pub const VMX_BASIC: u32 = 0x480;
/// IA32_VMX_EXIT_CTLS2, the last of the VMX capability MSRs.
pub const VMX_EXIT_CTLS2: u32 = 0x493;
/// IA32_RTIT_CTL.
pub const RTIT_CTL: u32 = 0x570;
/// IA32_U_CET.
pub const U_CET: u32 = 0x6a0;
/// IA32_S_CET.
pub const S_CET: u32 = 0x6a2;
/// IA32_PL0_SSP, the first of the MSRs with shadow-stack pointers.
pub const PL0_SSP: u32 = 0x6a4;
/// IA32_PL3_SSP, the last of those for privilege levels.
pub const PL3_SSP: u32 = 0x6a7;
/// IA32_INTERRUPT_SSP_TABLE_ADDR.
pub const INTERRUPT_SSP_TABLE: u32 = 0x6a8;
/// The first MSR of the local APIC in x2APIC mode.
pub const X2APIC: u32 = 0x800;
/// IA32_X2APIC_APICID.
pub const X2APIC_ID: u32 = 0x802;
/// IA32_X2APIC_ICR.
pub const X2APIC_ICR: u32 = 0x830;
/// IA32_TME_ACTIVATE: enables and configures the encryption of memory.
pub const TME_ACTIVATE: u32 = 0x982;
/// IA32_TME_EXCLUDE_BASE, the last MSR of total memory encryption.
pub const TME_EXCLUDE_BASE: u32 = 0x984;
/// IA32_BNDCFGS.
pub const BNDCFGS: u32 = 0xd90;
/// IA32_LBR_CTL.
pub const LBR_CTL: u32 = 0x14ce;
/// IA32_EFER.
pub const EFER: u32 = 0xc000_0080;
/// IA32_STAR.
pub const STAR: u32 = 0xc000_0081;
/// IA32_LSTAR.
pub const LSTAR: u32 = 0xc000_0082;
/// IA32_CSTAR.
pub const CSTAR: u32 = 0xc000_0083;
/// IA32_FMASK, which AMD calls SFMASK.
pub const SFMASK: u32 = 0xc000_0084;
/// IA32_GS_BASE.
pub const GS_BASE: u32 = 0xc000_0101;
/// IA32_KERNEL_GS_BASE, which SWAPGS exchanges with the base address of GS.
pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
/// TSC_RATIO of AMD-V: the ratio of the guest's TSC to the CPU's.
pub const TSC_RATIO: u32 = 0xc000_0104;
/// SYSCFG of AMD: enables the encryption of memory, the MTRRs' extensions, TOP_MEM2 and SNP.
pub const SYSCFG: u32 = 0xc001_0010;
/// IORR_BASE0 of AMD, the first of four MSRs that direct ranges of addresses to memory or to devices.
pub const IORR_BASE0: u32 = 0xc001_0016;
/// IORR_MASK1 of AMD, the last of them.
pub const IORR_MASK1: u32 = 0xc001_0019;
/// TOP_MEM of AMD: the addresses from this value to 4 GiB are those of devices.
pub const TOP_MEM: u32 = 0xc001_001a;
/// TOP_MEM2 of AMD: above 4 GiB, the addresses from this value on are those of devices.
pub const TOP_MEM2: u32 = 0xc001_001d;
/// MMIO_CFG_BASE of AMD: the address of PCI's configuration space.
pub const MMIO_CFG_BASE: u32 = 0xc001_0058;
/// SMM_BASE of AMD, the first of the MSRs that place the memory of system-management mode.
pub const SMM_BASE: u32 = 0xc001_0111;
/// SMM_MASK of AMD, the last of them.
pub const SMM_MASK: u32 = 0xc001_0113;
/// SMM_CTL of AMD, which maps the memory of system-management mode for ordinary code.
pub const SMM_CTL: u32 = 0xc001_0116;
/// VM_CR of AMD-V.
pub const VM_CR: u32 = 0xc001_0114;
/// VM_HSAVE_PA of AMD-V.
pub const VM_HSAVE_PA: u32 = 0xc001_0117;
/// SVM_KEY of AMD-V.
pub const SVM_KEY: u32 = 0xc001_0118;
/// GHCB of AMD-V: the address of the block by which an encrypted guest calls its hypervisor.
pub const GHCB: u32 = 0xc001_0130;
/// RMP_BASE of AMD: the address of the reverse map table, which SNP needs.
pub const RMP_BASE: u32 = 0xc001_0132;
/// RMP_END of AMD: the end of the reverse map table.
pub const RMP_END: u32 = 0xc001_0133;
/// PATCH_LOADER: a write loads AMD's microcode.
pub const PATCH_LOADER: u32 = 0xc001_0020;

/// IA32_EFER.SCE: SYSCALL is enabled.
pub const EFER_SCE: u64 = 1 << 0;
/// IA32_EFER.LME: long mode is enabled.
pub const EFER_LME: u64 = 1 << 8;
/// IA32_EFER.LMA: long mode is active.
pub const EFER_LMA: u64 = 1 << 10;
/// IA32_EFER.NXE: pages may be no-execute.
pub const EFER_NXE: u64 = 1 << 11;
/// IA32_EFER.SVME: the instructions of AMD-V are enabled.
pub const EFER_SVME: u64 = 1 << 12;

/// The error of an access to an MSR, or of another privileged instruction, that raises #GP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault;
