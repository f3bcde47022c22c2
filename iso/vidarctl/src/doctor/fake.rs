//! Machines for tests.

use std::collections::BTreeMap;

use vidar_core::x86::cpuid::Leaf;

use super::machine::{Machine, Unreadable};

/// A machine that is what a test says. CPUs that the test does not name are as CPU 0.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    files: BTreeMap<String, Result<Vec<u8>, Unreadable>>,
    leaves: BTreeMap<(u32, u32), Leaf>,
    /// The MSRs, or the reason why none can be read.
    msrs: Option<BTreeMap<(u32, u32), u64>>,
    programs: BTreeMap<String, String>,
    cpus: u32,
}

impl Fake {
    /// Returns the machine with a file.
    pub fn with(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.insert(path.into(), Ok(content.as_ref().to_vec()));
        self
    }

    /// Returns the machine with a file that cannot be read.
    pub fn without(mut self, path: &str, why: Unreadable) -> Self {
        self.files.insert(path.into(), Err(why));
        self
    }

    /// Returns the machine with a program that prints this.
    pub fn printing(mut self, program: &str, text: &str) -> Self {
        self.programs.insert(program.into(), text.into());
        self
    }

    /// Returns the machine with an MSR on all CPUs.
    pub fn with_msr(self, index: u32, value: u64) -> Self {
        self.with_msr_on(0, index, value)
    }

    /// Returns the machine with another value of an MSR on one CPU.
    pub fn with_msr_on(mut self, cpu: u32, index: u32, value: u64) -> Self {
        self.msrs.get_or_insert_default().insert((cpu, index), value);
        self
    }

    /// Returns the machine without the device of the MSRs.
    pub fn without_msrs(mut self) -> Self {
        self.msrs = None;
        self
    }

    /// Returns the machine with so many CPUs.
    pub fn with_cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self.with("/sys/devices/system/cpu/online", format!("0-{}\n", cpus - 1))
    }

    /// Changes what CPUID returns on all CPUs.
    pub fn change(&mut self, leaf: u32, change: impl FnOnce(&mut Leaf)) {
        change(self.leaves.entry((0, leaf)).or_default());
    }

    /// Changes what CPUID returns on one CPU.
    pub fn change_on(&mut self, cpu: u32, leaf: u32, change: impl FnOnce(&mut Leaf)) {
        let usual = self.leaves.get(&(0, leaf)).copied().unwrap_or_default();
        change(self.leaves.entry((cpu, leaf)).or_insert(usual));
    }
}

impl Machine for Fake {
    fn file(&self, path: &str) -> Result<Vec<u8>, Unreadable> {
        self.files.get(path).cloned().unwrap_or(Err(Unreadable::Absent))
    }

    fn size(&self, path: &str) -> Option<u64> {
        self.file(path).ok().map(|bytes| bytes.len() as u64)
    }

    fn names(&self, folder: &str) -> Result<Vec<String>, Unreadable> {
        if let Some(Err(why)) = self.files.get(folder) {
            return Err(*why);
        }
        let below = format!("{folder}/");
        let inside = self.files.keys().filter_map(|path| path.strip_prefix(&below)?.split('/').next());
        let mut names: Vec<_> = inside.map(str::to_owned).collect();
        names.dedup();
        if names.is_empty() { Err(Unreadable::Absent) } else { Ok(names) }
    }

    fn output(&self, program: &str, _: &str) -> Option<String> {
        self.programs.get(program).cloned()
    }

    fn cpuid(&self, cpu: u32, leaf: u32, _: u32) -> Option<Leaf> {
        let known = cpu < self.cpus;
        known.then(|| {
            self.leaves.get(&(cpu, leaf)).or(self.leaves.get(&(0, leaf))).copied().unwrap_or_default()
        })
    }

    fn msr(&self, cpu: u32, index: u32) -> Result<u64, Unreadable> {
        let msrs = self.msrs.as_ref().ok_or(Unreadable::Absent)?;
        let value = msrs.get(&(cpu, index)).or(msrs.get(&(0, index)));
        value.copied().ok_or(Unreadable::Fails)
    }
}

/// Returns a machine with one CPU, of this vendor and name.
fn cpu(vendor: &[u8; 12], name: &[u8; 48]) -> Fake {
    let mut fake = Fake::default().with_cpus(1);
    let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let vendor: Vec<_> = vendor.chunks(4).map(word).collect();
    fake.change(0, |leaf| *leaf = Leaf { eax: 0xd, ebx: vendor[0], edx: vendor[1], ecx: vendor[2] });
    fake.change(0x8000_0000, |leaf| leaf.eax = 0x8000_001f);
    // No-execute pages, and pages of 1 GiB.
    fake.change(0x8000_0001, |leaf| leaf.edx = 1 << 20 | 1 << 26);
    for (number, bytes) in (0x8000_0002..).zip(name.chunks(16)) {
        let [eax, ebx, ecx, edx] = [0, 4, 8, 12].map(|at| word(&bytes[at..]));
        fake.change(number, |leaf| *leaf = Leaf { eax, ebx, ecx, edx });
    }
    fake
}

/// Returns a machine with VT-x on which Vidar runs, whose MSRs can be read.
pub fn intel() -> Fake {
    let mut fake =
        cpu(b"GenuineIntel", b"   Fine CPU   of Intel\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    fake.change(1, |leaf| leaf.ecx = 1 << 5);
    let all = !0u64 << 32;
    let capabilities = [
        (0x480, 1 << 55 | 0x12),
        (0x485, !0),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x0037_67ff),
        (0x48b, all),
        (0x48c, !0),
        (0x48d, all | 0x16),
        (0x48e, all | 0x0400_6172),
        (0x48f, all | 0x0003_6dfb),
        (0x490, all | 0x11fb),
    ];
    let flags = "flags : fpu vmx\nvmx flags : vnmi preemption_timer ept vpid unrestricted_guest\n";
    let fake = fake.with_msr(0x3a, 0b101).with("/proc/cpuinfo", flags);
    capabilities.into_iter().fold(fake, |fake, (index, value)| fake.with_msr(index, value))
}

/// Returns a machine with AMD-V on which Vidar runs, whose MSRs can be read.
pub fn amd() -> Fake {
    let mut fake = cpu(b"AuthenticAMD", b"Fine CPU of AMD                                 ");
    fake.change(0x8000_0001, |leaf| leaf.ecx = 1 << 2);
    fake.change(0x8000_000a, |leaf| *leaf = Leaf { ebx: 16, edx: 0b1101, ..Leaf::default() });
    fake.with_msr(0xc001_0114, 0b1000).with("/proc/cpuinfo", "flags : fpu svm\n")
}
