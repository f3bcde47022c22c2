//! The reasons why Vidar cannot be asked.

use std::fmt;

use vidar_abi::{Call, VERSION, Version};

/// The sentence for a Linux that does not run under Vidar.
const NOT_UNDER_VIDAR: &str =
    "this Linux does not run under Vidar: choose an entry \"under Vidar\" in GRUB's menu";

/// The sentence for a Vidar that keeps no trace.
const TRACE_OFF: &str =
    "Vidar keeps no trace of the exits: boot with its option trace=on, which is in GRUB's menu";

/// The sentence for a Vidar that guards nothing.
const GUARD_OFF: &str = "Vidar guards nothing: boot with its option guard=cpu, which is in GRUB's menu";

/// The sentence for a Vidar that locks no memory.
const LOCK_OFF: &str =
    "Vidar locks no memory: boot with its option guard=data or guard=audit, which is in GRUB's menu";

/// The sentence for a Vidar that does not watch the kernel's code.
const AUDIT_OFF: &str =
    "Vidar does not watch the kernel's code: boot with its option guard=audit, which is in GRUB's menu";

/// The sentence for a kernel that Vidar does not know.
const NOT_FOUND: &str = "Vidar does not find the read-only data of this kernel, and has locked nothing: it needs a 64-bit Linux 6.0 or \
     later that keeps the names of all symbols (CONFIG_KALLSYMS_ALL)";

/// The reason why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// This Linux does not run under Vidar.
    NotUnderVidar,
    /// Vidar speaks another major version of the hypercall ABI.
    Incompatible(Version),
    /// Vidar is too old for this call.
    TooOld(Call),
    /// Vidar does not take this call from this program.
    NotPermitted(Call),
    /// The user has not confirmed what the command would do.
    NotConfirmed,
    /// Vidar's answer to this call is not one that the ABI allows.
    Malformed(Call),
    /// What this call asks for is switched off.
    Off(Call),
    /// There is no log of the last start.
    NoLastLog,
    /// There is no record for the module ramoops.
    NoRecord,
    /// Vidar has not found what this call asks for.
    NotFound(Call),
    /// Vidar has too little memory for this call.
    NoMemory(Call),
    /// This program may not run on the CPUs that it has to run on.
    NoCpu,
    /// This program may not run on this CPU, so what it was to do on all CPUs is not done there.
    Unreached(usize),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUnderVidar => f.write_str(NOT_UNDER_VIDAR),
            Self::Incompatible(Version { major, minor }) => write!(
                f,
                "Vidar speaks version {major}.{minor} of the hypercall ABI, and this vidarctl speaks version {}.{}: use \
                 the vidarctl that came with this Vidar",
                VERSION.major, VERSION.minor
            ),
            Self::TooOld(call) => {
                write!(f, "this Vidar is too old for the call \"{}\": install a newer one", call.name())
            }
            Self::NotPermitted(call) => write!(
                f,
                "Vidar takes the call \"{}\" only from a program that may reset the machine by its I/O ports: run \
                 vidarctl as root, on a Linux that is not in lockdown mode",
                call.name()
            ),
            Self::NotConfirmed => f.write_str("nothing was done: type yes, or give --yes"),
            Self::Malformed(call) => write!(
                f,
                "Vidar's answer to the call \"{}\" does not follow the ABI: use the vidarctl that came with this Vidar",
                call.name()
            ),
            Self::Off(Call::Trace) => f.write_str(TRACE_OFF),
            Self::Off(Call::Guard) => f.write_str(GUARD_OFF),
            Self::Off(Call::Lock) => f.write_str(LOCK_OFF),
            Self::Off(Call::Audit) => f.write_str(AUDIT_OFF),
            Self::NotFound(Call::Audit) => {
                f.write_str("the kernel's code is not watched yet: run `vidarctl guard lock` first")
            }
            Self::NotFound(_) => f.write_str(NOT_FOUND),
            Self::NoMemory(_) => f.write_str(
                "Vidar has too little memory left for page tables, and has locked nothing: boot with fewer CPUs",
            ),
            Self::Unreached(cpu) => write!(
                f,
                "Linux does not let this program run on CPU {cpu}, so it is not done there: run vidarctl outside of a container, \
                 and in a unit of systemd without AllowedCPUs="
            ),
            Self::NoCpu => f.write_str("Linux lets this program choose no CPU: run vidarctl as root"),
            Self::Off(call) => {
                write!(
                    f,
                    "what the call \"{}\" asks for is switched off: boot with Vidar's option for it",
                    call.name()
                )
            }
            Self::NoLastLog => f.write_str(
                "there is no log of the last start: it is kept over a reset only, and not by every firmware, so look at \
                 the serial line next time",
            ),
            Self::NoRecord => f.write_str(
                "there is no record for ramoops, since no crash report of the last start was found: see `vidarctl log --last`",
            ),
        }
    }
}
