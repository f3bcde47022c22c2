//! The machine that is examined, as far as a program can see it. The checks know no other source of facts.

use vidar_core::x86::cpuid::Leaf;

/// Why a file or an MSR could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It does not exist.
    Absent,
    /// This program may not read it.
    Forbidden,
    /// It exists, and reading it fails. For an MSR this means that the CPU does not have it.
    Fails,
}

/// What the checks can ask a machine.
pub trait Machine {
    /// Returns the content of a file.
    fn file(&self, path: &str) -> Result<Vec<u8>, Unreadable>;

    /// Returns the size of a file in bytes.
    fn size(&self, path: &str) -> Option<u64>;

    /// Returns the names in a folder, sorted.
    fn names(&self, folder: &str) -> Result<Vec<String>, Unreadable>;

    /// Returns what a program prints, if it succeeds.
    fn output(&self, program: &str, argument: &str) -> Option<String>;

    /// Executes CPUID on a CPU. Returns `None` if this program cannot run on it.
    fn cpuid(&self, cpu: u32, leaf: u32, subleaf: u32) -> Option<Leaf>;

    /// Reads an MSR of a CPU.
    fn msr(&self, cpu: u32, index: u32) -> Result<u64, Unreadable>;
}

/// Returns the text of a file, with other characters in place of bytes that are not UTF-8, and without white space at
/// its end.
pub fn text(machine: &dyn Machine, path: &str) -> Result<String, Unreadable> {
    machine.file(path).map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// Returns true if the folder has an entry of this name.
pub fn has(machine: &dyn Machine, folder: &str, name: &str) -> bool {
    machine.names(folder).is_ok_and(|names| names.iter().any(|other| other == name))
}

/// Returns what to do where MSRs cannot be read.
pub fn msr_advice(why: Unreadable) -> &'static str {
    match why {
        Unreadable::Forbidden => "run `vidarctl doctor` as root",
        Unreadable::Absent | Unreadable::Fails => {
            "run `modprobe msr` and then `vidarctl doctor`, both as root"
        }
    }
}
