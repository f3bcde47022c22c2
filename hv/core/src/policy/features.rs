//! The features of the CPU that depend on the extension. The guest sees them only if the extension supports them in a
//! guest.

use bitflags::bitflags;

bitflags! {
    /// The features that a guest can use only if the extension supports them, on VT-x mostly by a control that Vidar
    /// sets.
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
        /// Intel PT in VMX operation.
        const INTEL_PT = 1 << 5;
        /// The features that Vidar does not know. It is set for an extension under which no instruction exits unless
        /// Vidar intercepts it.
        const UNKNOWN = 1 << 6;
    }
}
