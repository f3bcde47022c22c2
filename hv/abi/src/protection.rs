//! The protections that Vidar keeps on with the boot option `guard`.

macro_rules! protections {
    ($($(#[$doc:meta])* $protection:ident = $name:literal,)*) => {
        /// The protections that Vidar keeps on with the boot option `guard`. The number of one never changes. New ones
        /// get the next numbers, with a new minor number of [`VERSION`](crate::VERSION).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Protection { $($(#[$doc])* $protection,)* }

        impl Protection {
            /// All protections, by number.
            pub const ALL: &[Self] = &[$(Self::$protection,)*];

            /// The number of protections.
            pub const COUNT: usize = Self::ALL.len();

            /// Returns the name of the protection, for messages and tables.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$protection => $name,)* }
            }
        }
    };
}

protections! {
    /// CR0.PE: protected mode.
    Cr0Pe = "CR0.PE",
    /// CR0.WP: the kernel cannot write to read-only pages.
    Cr0Wp = "CR0.WP",
    /// CR0.PG: paging.
    Cr0Pg = "CR0.PG",
    /// CR4.UMIP: programs cannot read the addresses of descriptor tables.
    Cr4Umip = "CR4.UMIP",
    /// CR4.SMEP: the kernel cannot execute a program's pages.
    Cr4Smep = "CR4.SMEP",
    /// CR4.SMAP: the kernel accesses a program's pages only where it means to.
    Cr4Smap = "CR4.SMAP",
    /// CR4.CET: shadow stacks and indirect-branch tracking.
    Cr4Cet = "CR4.CET",
    /// IA32_EFER.LME: long mode.
    EferLme = "EFER.LME",
    /// IA32_EFER.NXE: no-execute pages.
    EferNxe = "EFER.NXE",
    /// IA32_STAR: the segments of SYSCALL.
    Star = "STAR",
    /// IA32_LSTAR: where SYSCALL leads to.
    Lstar = "LSTAR",
    /// IA32_CSTAR: where SYSCALL leads to in compatibility mode.
    Cstar = "CSTAR",
    /// IA32_FMASK: the flags that SYSCALL clears.
    Sfmask = "SFMASK",
    /// IA32_SYSENTER_CS: the segments of SYSENTER.
    SysenterCs = "SYSENTER_CS",
    /// IA32_SYSENTER_ESP: the stack of SYSENTER.
    SysenterEsp = "SYSENTER_ESP",
    /// IA32_SYSENTER_EIP: where SYSENTER leads to.
    SysenterEip = "SYSENTER_EIP",
    /// The kernel's read-only data.
    Data = "read-only data",
    /// The interrupt descriptor table.
    Idt = "IDT",
}

impl Protection {
    /// Returns the protection with the number `raw`, if there is one.
    pub fn from_raw(raw: u64) -> Option<Self> {
        usize::try_from(raw).ok().and_then(|index| Self::ALL.get(index).copied())
    }
}
