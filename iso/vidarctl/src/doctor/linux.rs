//! The machine that this program runs on.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use vidar_core::x86::cpuid::Leaf;

use super::machine::{Machine, Unreadable};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 256 << 20;
/// Folders of programs that need not be in the path of a user.
const MORE_PROGRAMS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The machine that this program runs on. While it exists, CPUID may have moved the program to another CPU.
pub struct Linux {
    /// The CPUs that this program might run on.
    before: Option<CpuSet>,
    /// The only CPU that it runs on now, once CPUID has been executed.
    on: Cell<Option<u32>>,
}

impl Linux {
    pub fn new() -> Self {
        Self { before: sched_getaffinity(None).ok(), on: Cell::new(None) }
    }

    /// Moves this program to a CPU. Returns `None` if it may not run there.
    fn go_to(&self, cpu: u32) -> Option<()> {
        if self.on.get() == Some(cpu) {
            return Some(());
        }
        let mut only = CpuSet::new();
        let index = usize::try_from(cpu).ok().filter(|index| *index < CpuSet::MAX_CPU)?;
        only.set(index);
        sched_setaffinity(None, &only).ok()?;
        self.on.set(Some(cpu));
        Some(())
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = sched_setaffinity(None, before);
        }
    }
}

impl Machine for Linux {
    fn file(&self, path: &str) -> Result<Vec<u8>, Unreadable> {
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|error| why(error.kind()))?;
        file.take(LARGEST).read_to_end(&mut bytes).map_err(|error| why(error.kind()))?;
        Ok(bytes)
    }

    fn size(&self, path: &str) -> Option<u64> {
        fs::metadata(path).ok().map(|metadata| metadata.len())
    }

    fn names(&self, folder: &str) -> Result<Vec<String>, Unreadable> {
        let entries = fs::read_dir(folder).map_err(|error| why(error.kind()))?;
        let mut names: Vec<_> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn output(&self, program: &str, argument: &str) -> Option<String> {
        let places = MORE_PROGRAMS.map(|folder| format!("{folder}/{program}"));
        [program.to_owned()].into_iter().chain(places).find_map(|program| {
            let output =
                Command::new(program).arg(argument).stdin(Stdio::null()).stderr(Stdio::null()).output();
            let output = output.ok().filter(|output| output.status.success())?;
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        })
    }

    fn cpuid(&self, cpu: u32, leaf: u32, subleaf: u32) -> Option<Leaf> {
        self.go_to(cpu)?;
        let result = std::arch::x86_64::__cpuid_count(leaf, subleaf);
        Some(Leaf { eax: result.eax, ebx: result.ebx, ecx: result.ecx, edx: result.edx })
    }

    fn msr(&self, cpu: u32, index: u32) -> Result<u64, Unreadable> {
        let file = File::open(format!("/dev/cpu/{cpu}/msr")).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied => why(error.kind()),
            _ => Unreadable::Absent, // the device of a driver that is not there
        })?;
        let mut value = [0; 8];
        file.read_exact_at(&mut value, index.into()).map_err(|error| why(error.kind()))?;
        Ok(u64::from_le_bytes(value))
    }
}

/// Returns the reason for an error of this kind.
fn why(kind: ErrorKind) -> Unreadable {
    match kind {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Unreadable::Absent,
        ErrorKind::PermissionDenied => Unreadable::Forbidden,
        _ => Unreadable::Fails,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_of_the_test_can_be_asked() {
        let linux = Linux::new();
        assert!(linux.names("/proc").is_ok_and(|names| names.contains(&"cpuinfo".into())));
        assert!(linux.file("/proc/cpuinfo").is_ok_and(|bytes| !bytes.is_empty()));
        assert_eq!(linux.file("/proc/no-such-file"), Err(Unreadable::Absent));
        assert_eq!(linux.size("/proc/no-such-file"), None);
        assert_eq!(linux.cpuid(1 << 20, 0, 0), None);
        assert_eq!(linux.output("no-such-program-anywhere", "--version"), None);
        assert!(linux.output("true", "").is_some());
    }
}
