//! The hypercall ABI of Vidar, for the hypervisor and for programs in its guest.
//!
//! A hypercall is VMCALL on Intel and VMMCALL on AMD, at any privilege level: every call here only reads.
//! The number of the call goes in RAX, its arguments in RBX, RCX and RDX. RAX comes back with a [`Status`];
//! only if that is [`Status::Ok`] have other registers changed, those that the [`Call`] names.
//! Results are registers and never guest memory, so no guest page has to be walked or faulted in.

#![no_std]

/// Version of this ABI: the major number changes when an existing call does.
pub const VERSION: Version = Version { major: 1, minor: 1 };

/// What RBX holds after [`Call::Version`]: tells Vidar from another hypervisor that answers the instruction.
pub const MAGIC: u64 = u64::from_le_bytes(*b"VidarABI");

/// CPUID leaf that carries [`SIGNATURE`] in EBX, ECX, EDX; EAX is the highest leaf of Vidar's, one above this.
/// The leaf above has [`VERSION`] in EAX. Both are there with the boot option `hypervisor-bit=on` alone.
pub const SIGNATURE_LEAF: u32 = 0x4000_0000;

/// The signature in [`SIGNATURE_LEAF`].
pub const SIGNATURE: [u8; 12] = *b"VidarVMM\0\0\0\0";

/// Bytes that one [`Call::Log`] returns at most, in R8 to R11.
pub const LOG_CHUNK: usize = 32;

/// An ABI version, packed as `major << 16 | minor` into a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Raised when an existing call changes its meaning.
    pub major: u16,
    /// Raised when a call or an exit kind is added.
    pub minor: u16,
}

impl Version {
    /// The register form.
    pub const fn to_raw(self) -> u32 {
        (self.major as u32) << 16 | self.minor as u32
    }

    /// From the register form.
    pub const fn from_raw(raw: u32) -> Self {
        Self { major: (raw >> 16) as u16, minor: raw as u16 }
    }
}

/// The calls: what goes in RAX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Call {
    /// Out: RBX = [`MAGIC`], RCX = [`VERSION`], RDX = Vidar's own version as `major << 32 | minor << 16 | patch`.
    Version = 0,
    /// Out: RBX = base and RCX = size in bytes of the memory that Vidar's image is in, RDX = [`Vendor`], RSI = CPUs,
    /// RDI = exits of all kinds and CPUs so far.
    Status = 1,
    /// In: RBX = index of a CPU, RCX = an [`ExitKind`]. Out: RBX = how many exits of that kind the CPU has had.
    Exits = 2,
    /// In: RBX = position in the log, counted in bytes since boot. Out: RBX = position of the first byte returned
    /// (later than asked for if that part has been overwritten), RCX = bytes returned, 0 at the end,
    /// at most [`LOG_CHUNK`], RDX = 0, R8 to R11 = the bytes, little-endian, the rest zero.
    Log = 3,
    /// In: RBX = index of a piece of memory that Vidar keeps, from 0 for that of the image. Out: RBX = its base and RCX =
    /// its size in bytes. There since 1.1.
    Memory = 4,
}

impl Call {
    /// The call with the number `raw`, if there is one.
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match raw {
            0 => Some(Self::Version),
            1 => Some(Self::Status),
            2 => Some(Self::Exits),
            3 => Some(Self::Log),
            4 => Some(Self::Memory),
            _ => None,
        }
    }
}

/// What RAX holds after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Status {
    /// Done; the registers that the call names hold its results.
    Ok = 0,
    /// There is no call of this number.
    UnknownCall = 1,
    /// An argument is out of its range.
    BadArgument = 2,
}

impl Status {
    /// The status with the number `raw`, if there is one.
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match raw {
            0 => Some(Self::Ok),
            1 => Some(Self::UnknownCall),
            2 => Some(Self::BadArgument),
            _ => None,
        }
    }
}

/// The virtualization extension that Vidar runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Vendor {
    /// Intel VT-x.
    Vmx = 1,
    /// AMD-V.
    Svm = 2,
}

impl Vendor {
    /// The vendor with the number `raw`, if there is one.
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match raw {
            1 => Some(Self::Vmx),
            2 => Some(Self::Svm),
            _ => None,
        }
    }

    /// As people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vmx => "Intel VT-x",
            Self::Svm => "AMD-V",
        }
    }
}

macro_rules! exit_kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// The reasons for which a guest leaves to Vidar, the same for both vendors. The number of a kind never
        /// changes; new kinds are added before [`ExitKind::COUNT`] grows, with a new minor [`VERSION`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum ExitKind { $($(#[$doc])* $kind,)* }

        impl ExitKind {
            /// All kinds, by number.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// How many kinds there are.
            pub const COUNT: usize = Self::ALL.len();

            /// A short name for tables and JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

exit_kinds! {
    /// CPUID.
    Cpuid = "cpuid",
    /// RDMSR of an MSR that Vidar answers itself, or that lies outside the MSR bitmap.
    Rdmsr = "rdmsr",
    /// WRMSR, likewise.
    Wrmsr = "wrmsr",
    /// A write to CR0 or CR4 that touches a bit which the extension fixes.
    ControlRegister = "control-register",
    /// XSETBV.
    Xsetbv = "xsetbv",
    /// INVD.
    Invd = "invd",
    /// VMCALL or VMMCALL.
    Hypercall = "hypercall",
    /// Another instruction of VMX, SMX or SVM.
    Virtualization = "virtualization-instruction",
    /// An access to guest-physical memory that the second-stage table does not map, or not so.
    SecondStage = "second-stage",
    /// An INIT signal.
    Init = "init",
    /// A start-up IPI.
    Sipi = "sipi",
    /// A non-maskable interrupt.
    Nmi = "nmi",
    /// A window in which a kept NMI can be delivered.
    Window = "window",
    /// Triple fault or shutdown.
    TripleFault = "triple-fault",
    /// Anything else.
    Other = "other",
}

impl ExitKind {
    /// The kind with the number `raw`, if there is one.
    pub fn from_raw(raw: u64) -> Option<Self> {
        usize::try_from(raw).ok().and_then(|index| Self::ALL.get(index).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_register() {
        for kind in ExitKind::ALL {
            assert_eq!(ExitKind::from_raw(*kind as u64), Some(*kind));
        }
        assert_eq!(ExitKind::from_raw(ExitKind::COUNT as u64), None);
        assert_eq!(ExitKind::from_raw(u64::MAX), None);
        for call in [Call::Version, Call::Status, Call::Exits, Call::Log, Call::Memory] {
            assert_eq!(Call::from_raw(call as u64), Some(call));
        }
        assert_eq!(Call::from_raw(5), None);
        assert_eq!(Version::from_raw(VERSION.to_raw()), VERSION);
    }
}
