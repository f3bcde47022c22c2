//! The hypercall ABI of Vidar, for the hypervisor and for programs in its guest.
//!
//! A hypercall is VMCALL on Intel's CPUs and VMMCALL on AMD's. It can be made at any privilege level. Any program may
//! make the calls that tell nothing of the kernel: [`Call::Version`], [`Call::Status`], [`Call::Exits`],
//! [`Call::Memory`], [`Call::Commit`] and [`Call::Dma`]. All others are taken from CPL 0, and from a program that may
//! write to port CF9h, the reset control register of the chip set, by IOPL or the I/O permission bitmap of the TSS.
//! They end or change something, or their answers have addresses of the kernel, which Linux hides from programs
//! (KASLR).
//!
//! The number of the [`Call`] goes in RAX, and its arguments in RBX and RCX. RAX returns a [`Status`]. If that is
//! [`Status::Ok`], the registers that the [`Call`] names hold the results; otherwise no other register has changed.
//! Results are never written to the guest's memory, so Vidar need not translate the guest's addresses.

// tidy: long because it describes each call with its registers.

#![no_std]

mod commit;
mod dma;
mod protection;
mod trace;

pub use commit::{Commit, Release};
pub use dma::{DmaFault, DmaState};
pub use protection::Protection;
pub use trace::{Record, Subject};

/// The version of this ABI.
pub const VERSION: Version = Version { major: 1, minor: 4 };

/// The value that [`Call::Version`] returns in RBX. By it a program tells Vidar from another hypervisor that handles
/// the instruction.
pub const MAGIC: u64 = u64::from_le_bytes(*b"VidarABI");

/// The CPUID leaf that returns [`SIGNATURE`] in EBX, ECX and EDX, and in EAX the number of Vidar's highest leaf, which
/// is the next. That leaf returns [`VERSION`] in EAX. The guest sees both only with the boot option
/// `hypervisor-bit=on`.
pub const SIGNATURE_LEAF: u32 = 0x4000_0000;

/// The signature that [`SIGNATURE_LEAF`] returns.
pub const SIGNATURE: [u8; 12] = *b"VidarVMM\0\0\0\0";

/// The most bytes that one [`Call::Log`] or [`Call::LastLog`] returns, in R8 to R11.
pub const LOG_CHUNK: usize = 32;

/// The most records that one [`Call::Trace`] returns, in R8 to R15.
pub const TRACE_CHUNK: usize = 2;

/// A version of the ABI. A register holds it as `major << 16 | minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// The major number, which is raised when an existing call changes its meaning.
    pub major: u16,
    /// The minor number, which is raised when a call or a kind of exit is added.
    pub minor: u16,
}

impl Version {
    /// Returns the version as a register holds it.
    pub const fn to_raw(self) -> u32 {
        (self.major as u32) << 16 | self.minor as u32
    }

    /// Returns the version that a register holds.
    pub const fn from_raw(raw: u32) -> Self {
        Self { major: (raw >> 16) as u16, minor: raw as u16 }
    }
}

/// Defines [`Call`]. A row has the call's number, its name for messages, the ABI's minor version that it came with, and
/// its arguments and results.
macro_rules! calls {
    ($(
        $(#[doc = $doc:literal])+
        $call:ident = $number:literal, $name:literal, minor $since:literal {
            in { $($in:ident: $argument:literal,)* }
            out { $($out:ident: $result:literal,)* }
        }
    )+) => {
        /// The calls, with their numbers, which go in RAX. The number of a call never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u64)]
        pub enum Call {
            $(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nSince version 1.", $since, ".\n")]
                $(#[doc = concat!("* In: ", stringify!($in), " = ", $argument)])*
                $(#[doc = concat!("* Out: ", stringify!($out), " = ", $result)])*
                $call = $number,
            )+
        }

        impl Call {
            /// All calls.
            pub const ALL: &[Self] = &[$(Self::$call,)+];

            /// Returns the call with the number `raw`, if there is one.
            pub const fn from_raw(raw: u64) -> Option<Self> {
                match raw {
                    $($number => Some(Self::$call),)+
                    _ => None,
                }
            }

            /// Returns a short name of the call, for messages.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$call => $name,)+ }
            }

            /// Returns the version of the ABI that introduced the call.
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

    /// Returns where Vidar is, on what it runs, and how many exits it has handled.
    Status = 1, "status", minor 0 {
        in {}
        out {
            RBX: "the address of the region, which holds Vidar's image.",
            RCX: "its size in bytes.",
            RDX: "the [`Vendor`].",
            RSI: "the number of CPUs.",
            RDI: "the number of exits so far, of all kinds and CPUs.",
        }
    }

    /// Returns the number of exits of one kind on one CPU.
    Exits = 2, "exits", minor 0 {
        in {
            RBX: "the index of a CPU.",
            RCX: "an [`ExitKind`].",
        }
        out { RBX: "the number of exits of that kind on that CPU so far.", }
    }

    /// Reads a part of the log. Before version 1.4 any program might make this call, and [`Trace`](Self::Trace).
    Log = 3, "log", minor 0 {
        in { RBX: "a position in the log, counted in bytes since boot.", }
        out {
            RBX: "the position of the first byte returned. It is later than requested if that part has been overwritten.",
            RCX: "the number of bytes returned, at most [`LOG_CHUNK`], and 0 at the end.",
            RDX: "0.",
            R8_to_R11: "the bytes, little-endian, with zeros after them.",
        }
    }

    /// Names a piece of the memory that Vidar keeps, or reserves for CPUs that wait.
    Memory = 4, "memory", minor 1 {
        in { RBX: "the index of a piece, from 0 for that of the image.", }
        out {
            RBX: "its base.",
            RCX: "its size in bytes.",
        }
    }

    /// Names the commit that Vidar was built from.
    Commit = 5, "commit", minor 2 {
        in {}
        out {
            RBX: "the first 12 hexadecimal digits of the commit as a number, or 0 if it is not known.",
            RCX: "1 if Vidar's source differed from the commit, or else 0.",
        }
    }

    /// Ends the guest with a crash report of all CPUs, and then halts or resets the machine, as the boot option
    /// `on-crash` says. It returns only if it is refused.
    Crash = 6, "crash", minor 3 {
        in {}
        out {}
    }

    /// Reads a part of the log of the start before this one, which a warm reset leaves in memory. The log is empty if
    /// there was no such start, or if its log has not outlived the reset.
    LastLog = 7, "last-log", minor 3 {
        in { RBX: "a position in the log, counted in bytes since that boot.", }
        out {
            RBX: "as for [`Call::Log`].",
            RCX: "as for [`Call::Log`].",
            RDX: "the address of the record that Linux' module `ramoops` can read, or 0 if there is none, as after a start without a crash report.",
            RSI: "the size of the record's memory in bytes, or 0.",
            R8_to_R11: "as for [`Call::Log`].",
        }
    }

    /// Reads exits of one CPU from the trace, which is kept with the boot option `trace=on`. The exit of this call is
    /// not in the trace, so that reading pushes nothing out of it.
    Trace = 8, "trace", minor 3 {
        in {
            RBX: "the index of a CPU.",
            RCX: "a position in its trace, counted in exits since boot.",
        }
        out {
            RBX: "the position of the first record returned. It is later than requested if that record has been overwritten.",
            RCX: "the number of records returned, at most [`TRACE_CHUNK`], and 0 at the end.",
            R8_to_R15: "the words of the [`Record`]s, with zeros after them.",
        }
    }

    /// Returns how one protection stands that the boot option `guard` keeps on. Without that option the call returns
    /// [`Status::Off`].
    Guard = 10, "guard", minor 4 {
        in { RBX: "the number of a [`Protection`].", }
        out {
            RBX: "the number of CPUs on which it is kept on now.",
            RCX: "how often Vidar has refused to change it.",
            RDX: "the RIP of the last instruction that was refused, or 0.",
        }
    }

    /// Locks the read-only data and the IDT of the guest's Linux, which Vidar finds by itself, until the machine is
    /// reset. With the boot option `guard=audit` it also watches the kernel's code. It has to be made on each CPU,
    /// which may write there until then.
    Lock = 11, "lock", minor 4 {
        in {}
        out {
            RBX: "the number of CPUs that cannot write there any more.",
            RCX: "the number of CPUs.",
        }
    }

    /// Reads a row of the table of what has written to the kernel's code, which is kept with the boot option
    /// `guard=audit`. Row 0 also has this CPU watch again the pages that have been written to.
    Audit = 12, "audit", minor 4 {
        in { RBX: "the index of a row.", }
        out {
            RBX: "the number of writes, or 0 if the row is free, as all that follow are.",
            RCX: "the address of the last one, in the mapping of the kernel's image.",
            RDX: "the number of writes that have found no row.",
            R8_to_R15: "the addresses of the instruction and of its callers, the innermost first, with zeros after them.",
        }
    }

    /// Says whether devices can write to Vidar's memory, and names those that have tried to.
    Dma = 13, "dma", minor 4 {
        in { RBX: "an index among the faults that Vidar keeps, from 0 for the oldest.", }
        out {
            RBX: "the [`DmaState`].",
            RCX: "the number of IOMMUs.",
            RDX: "the number of faults so far. Vidar keeps the last ones.",
            RSI: "the fault with that index as a word that [`DmaFault::from_words`] decodes, or 0 if there is none.",
            RDI: "the address of its page.",
        }
    }
}

/// The status that a call returns in RAX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Status {
    /// The call succeeded. The registers that the call names hold its results.
    Ok = 0,
    /// No call has this number.
    UnknownCall = 1,
    /// An argument is out of its range.
    BadArgument = 2,
    /// The caller may not make this call. Since version 1.3.
    NotPermitted = 3,
    /// What the call asks for is switched off. A boot option of Vidar switches it on.
    Off = 4,
    /// What the call asks for was not found in the guest's memory. Since version 1.4.
    NotFound = 5,
    /// Vidar has too little memory left. Since version 1.4.
    NoMemory = 6,
}

impl Status {
    /// Returns the status with the number `raw`, if there is one.
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match raw {
            0 => Some(Self::Ok),
            1 => Some(Self::UnknownCall),
            2 => Some(Self::BadArgument),
            3 => Some(Self::NotPermitted),
            4 => Some(Self::Off),
            5 => Some(Self::NotFound),
            6 => Some(Self::NoMemory),
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
    /// Returns the extension with the number `raw`, if there is one.
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match raw {
            1 => Some(Self::Vmx),
            2 => Some(Self::Svm),
            _ => None,
        }
    }

    /// Returns the name of the extension, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vmx => "Intel VT-x",
            Self::Svm => "AMD-V",
        }
    }
}

macro_rules! exit_kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// The kinds of exits, the same for both extensions. The number of a kind never changes. New kinds get the next
        /// numbers, with a new minor number of [`VERSION`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum ExitKind { $($(#[$doc])* $kind,)* }

        impl ExitKind {
            /// All kinds, by number.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The number of kinds.
            pub const COUNT: usize = Self::ALL.len();

            /// Returns a short name of the kind, for tables and JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

exit_kinds! {
    /// CPUID.
    Cpuid = "cpuid",
    /// RDMSR of an MSR that Vidar filters, or that the MSR bitmap does not cover.
    Rdmsr = "rdmsr",
    /// WRMSR of an MSR that Vidar filters, or that the MSR bitmap does not cover.
    Wrmsr = "wrmsr",
    /// A write to CR0 or CR4 that changes a bit which the guest does not own.
    ControlRegister = "control-register",
    /// XSETBV.
    Xsetbv = "xsetbv",
    /// INVD.
    Invd = "invd",
    /// VMCALL or VMMCALL.
    Hypercall = "hypercall",
    /// Another instruction of VMX, SMX or SVM.
    Virtualization = "virtualization-instruction",
    /// An access to guest-physical memory that the second stage does not map, or maps without the rights for the
    /// access.
    SecondStage = "second-stage",
    /// An INIT signal.
    Init = "init",
    /// A start-up IPI.
    Sipi = "sipi",
    /// A non-maskable interrupt.
    Nmi = "nmi",
    /// The time to try again to inject an event that is pending for the guest.
    Window = "window",
    /// A triple fault (VT-x) or a shutdown (AMD-V).
    TripleFault = "triple-fault",
    /// Any other exit.
    Other = "other",
}

impl ExitKind {
    /// Returns the kind with the number `raw`, if there is one.
    pub fn from_raw(raw: u64) -> Option<Self> {
        usize::try_from(raw).ok().and_then(|index| Self::ALL.get(index).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_in_a_register_decodes_to_the_value_that_it_came_from() {
        for kind in ExitKind::ALL {
            assert_eq!(ExitKind::from_raw(*kind as u64), Some(*kind));
        }
        assert_eq!(ExitKind::from_raw(ExitKind::COUNT as u64), None);
        assert_eq!(ExitKind::from_raw(u64::MAX), None);
        for call in Call::ALL {
            assert_eq!(Call::from_raw(*call as u64), Some(*call));
        }
        assert_eq!(Call::from_raw(u64::MAX), None);
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
