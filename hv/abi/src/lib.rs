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

/// Defines [`Call`]. A row has the call's number, its name for messages, the ABI's minor version that it came with, and its
/// arguments and results.
macro_rules! calls {
    ($(
        $(#[doc = $doc:literal])+
        $call:ident = $number:literal, $name:literal, minor $since:literal {
            in { $($in:ident: $argument:literal,)* }
            out { $($out:ident: $result:literal,)* }
        }
    )+) => {
        /// The calls: what goes in RAX. The number of a call never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u64)]
        pub enum Call {
            $(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nThere since 1.", $since, ".\n")]
                $(#[doc = concat!("* In: ", stringify!($in), " = ", $argument)])*
                $(#[doc = concat!("* Out: ", stringify!($out), " = ", $result)])*
                $call = $number,
            )+
        }

        impl Call {
            /// All calls.
            pub const ALL: &[Self] = &[$(Self::$call,)+];

            /// The call with the number `raw`, if there is one.
            pub const fn from_raw(raw: u64) -> Option<Self> {
                match raw {
                    $($number => Some(Self::$call),)+
                    _ => None,
                }
            }

            /// A short name for messages.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$call => $name,)+ }
            }

            /// The version of the ABI that the call came with.
            pub const fn since(self) -> Version {
                match self { $(Self::$call => Version { major: 1, minor: $since },)+ }
            }
        }
    };
}

calls! {
    /// Tells Vidar from another hypervisor, and one Vidar from another.
    Version = 0, "version", minor 0 {
        in {}
        out {
            RBX: "[`MAGIC`].",
            RCX: "[`VERSION`].",
            RDX: "Vidar's own version as `major << 32 | minor << 16 | patch`.",
        }
    }

    /// Says how Vidar is.
    Status = 1, "status", minor 0 {
        in {}
        out {
            RBX: "the base of the memory that Vidar's image is in.",
            RCX: "its size in bytes.",
            RDX: "the [`Vendor`].",
            RSI: "the number of CPUs.",
            RDI: "the number of exits so far, of all kinds and CPUs.",
        }
    }

    /// Counts the exits of a CPU.
    Exits = 2, "exits", minor 0 {
        in {
            RBX: "the index of a CPU.",
            RCX: "an [`ExitKind`].",
        }
        out { RBX: "how many exits of that kind the CPU has had.", }
    }

    /// Reads a part of the log.
    Log = 3, "log", minor 0 {
        in { RBX: "a position in the log, counted in bytes since boot.", }
        out {
            RBX: "the position of the first byte returned. It is later than asked for if that part has been overwritten.",
            RCX: "the number of bytes returned, at most [`LOG_CHUNK`], and 0 at the end.",
            RDX: "0.",
            R8_to_R11: "the bytes, little-endian, with zeros after them.",
        }
    }

    /// Names a piece of the memory that Vidar keeps.
    Memory = 4, "memory", minor 1 {
        in { RBX: "the index of a piece, from 0 for that of the image.", }
        out {
            RBX: "its base.",
            RCX: "its size in bytes.",
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
        for call in Call::ALL {
            assert_eq!(Call::from_raw(*call as u64), Some(*call));
        }
        assert_eq!(Call::from_raw(Call::ALL.len() as u64), None);
        assert_eq!(Version::from_raw(VERSION.to_raw()), VERSION);
    }
    #[test]
    fn the_version_is_that_of_the_newest_call_or_later() {
        for call in Call::ALL {
            let since = call.since();
            assert!(since.major == VERSION.major && since.minor <= VERSION.minor, "{}", call.name());
        }
    }
}
