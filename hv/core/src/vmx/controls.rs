//! The bits of the VM-execution, VM-exit and VM-entry controls that Vidar uses. Their documentation gives the manual's
//! names. Intel SDM Vol. 3C, 25.6 "VM-Execution Control Fields" to 25.8 "VM-Entry Control Fields".

/// Pin-based controls.
pub mod pin {
    /// NMI exiting. It is set only where one CPU calls another out of the guest, as is the next one.
    pub const NMI_EXITING: u32 = 1 << 3;
    /// Virtual NMIs: the guest's blocking of NMIs is not the CPU's.
    pub const VIRTUAL_NMIS: u32 = 1 << 5;
    /// Activate VMX-preemption timer. It is set only while an event is pending, and after a start-up IPI to check for a
    /// blocked INIT.
    pub const PREEMPTION_TIMER: u32 = 1 << 6;
}

/// Primary processor-based controls.
pub mod primary {
    /// MOV-DR exiting. It is set only for a debugger.
    pub const MOV_DR: u32 = 1 << 23;
    /// Use I/O bitmaps. It is set only for a debugger.
    pub const IO_BITMAPS: u32 = 1 << 25;
    /// Monitor trap flag. It is set only for a debugger that steps.
    pub const MONITOR_TRAP: u32 = 1 << 27;
    /// Use MSR bitmaps.
    pub const MSR_BITMAPS: u32 = 1 << 28;
    /// Activate secondary controls.
    pub const SECONDARY: u32 = 1 << 31;
}

/// Secondary processor-based controls.
pub mod secondary {
    /// Enable EPT.
    pub const EPT: u32 = 1 << 1;
    /// Enable RDTSCP.
    pub const RDTSCP: u32 = 1 << 3;
    /// Enable VPID.
    pub const VPID: u32 = 1 << 5;
    /// Unrestricted guest.
    pub const UNRESTRICTED_GUEST: u32 = 1 << 7;
    /// Enable INVPCID.
    pub const INVPCID: u32 = 1 << 12;
    /// Conceal VMX from PT.
    pub const CONCEAL_FROM_PT: u32 = 1 << 19;
    /// Enable XSAVES/XRSTORS.
    pub const XSAVES: u32 = 1 << 20;
    /// Enable user wait and pause.
    pub const WAITPKG: u32 = 1 << 26;
    /// Enable PCONFIG.
    pub const PCONFIG: u32 = 1 << 27;
}

/// VM-exit controls.
pub mod exit {
    /// Save debug controls.
    pub const SAVE_DEBUG: u32 = 1 << 2;
    /// Host address-space size: 64-bit.
    pub const HOST_64_BIT: u32 = 1 << 9;
    /// Load IA32_PERF_GLOBAL_CTRL.
    pub const LOAD_PERF_GLOBAL: u32 = 1 << 12;
    /// Save IA32_PAT.
    pub const SAVE_PAT: u32 = 1 << 18;
    /// Load IA32_PAT.
    pub const LOAD_PAT: u32 = 1 << 19;
    /// Save IA32_EFER.
    pub const SAVE_EFER: u32 = 1 << 20;
    /// Load IA32_EFER.
    pub const LOAD_EFER: u32 = 1 << 21;
    /// Clear IA32_BNDCFGS.
    pub const CLEAR_BNDCFGS: u32 = 1 << 23;
    /// Conceal VMX from PT.
    pub const CONCEAL_FROM_PT: u32 = 1 << 24;
    /// Clear IA32_RTIT_CTL.
    pub const CLEAR_RTIT: u32 = 1 << 25;
    /// Clear IA32_LBR_CTL.
    pub const CLEAR_LBR: u32 = 1 << 26;
    /// Load CET state.
    pub const LOAD_CET: u32 = 1 << 28;
    /// Save IA32_PERF_GLOBAL_CTL.
    pub const SAVE_PERF_GLOBAL: u32 = 1 << 30;
}

/// VM-entry controls.
pub mod entry {
    /// Load debug controls.
    pub const LOAD_DEBUG: u32 = 1 << 2;
    /// IA-32e mode guest.
    pub const IA32E_GUEST: u32 = 1 << 9;
    /// Load IA32_PERF_GLOBAL_CTRL.
    pub const LOAD_PERF_GLOBAL: u32 = 1 << 13;
    /// Load IA32_PAT.
    pub const LOAD_PAT: u32 = 1 << 14;
    /// Load IA32_EFER.
    pub const LOAD_EFER: u32 = 1 << 15;
    /// Load IA32_BNDCFGS.
    pub const LOAD_BNDCFGS: u32 = 1 << 16;
    /// Conceal VMX from PT.
    pub const CONCEAL_FROM_PT: u32 = 1 << 17;
    /// Load IA32_RTIT_CTL.
    pub const LOAD_RTIT: u32 = 1 << 18;
    /// Load CET state.
    pub const LOAD_CET: u32 = 1 << 20;
    /// Load guest IA32_LBR_CTL.
    pub const LOAD_LBR: u32 = 1 << 21;
}
