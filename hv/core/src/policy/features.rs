//! Features of the CPU that depend on the extension: the guest sees them only if Vidar has enabled what they need.

use bitflags::bitflags;

bitflags! {
    /// Features of which a guest can only make use if the extension has a control for them, and it is on.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Features: u32 {
        /// RDTSCP and RDPID.
        const RDTSCP = 1 << 0;
        /// INVPCID.
        const INVPCID = 1 << 1;
        /// XSAVES, XRSTORS and IA32_XSS.
        const XSAVES = 1 << 2;
        /// UMONITOR, UMWAIT and TPAUSE.
        const WAITPKG = 1 << 3;
        /// PCONFIG.
        const PCONFIG = 1 << 4;
        /// Intel PT while the extension is in use.
        const INTEL_PT = 1 << 5;
        /// What Vidar has not been taught: without an intercept that it sets, no instruction leaves the guest.
        const UNTAUGHT = 1 << 6;
    }
}
