//! MSRs: those that a guest does not have, those that do not exist, and those that are the guest's own.

use core::ops::RangeInclusive;

use crate::attempt::{Hex, Verdict, rdmsr, wrmsr};
use crate::cpu::cpuid;
use crate::line::Line;

const IA32_FEATURE_CONTROL: u32 = 0x3a;

/// The capability MSRs of VT-x.
const VMX_CAPABILITIES: RangeInclusive<u32> = 0x480..=0x491;

/// Indices for which no known CPU has an MSR: inside of the two ranges of an MSR bitmap, at their edges, and outside.
const UNKNOWN: [u32; 9] = [
    0x1234,
    0x1fff,
    0x2000,
    0x4000_0000,
    0x8000_0000,
    0xbfff_ffff,
    0xc000_1fff,
    0xc000_2000,
    0xffff_ffff,
];

/// MSRs of other hypervisors: a synthetic one of Microsoft's, and the old and the new clocks of KVM. Those of AMD-V are
/// in [`SVM`] instead, since a bare machine may have them, and a guest of Vidar does not.
const FOREIGN: [u32; 5] = [0x4000_0021, 0x11, 0x12, 0x4b56_4d00, 0x4b56_4d01];

/// The MSRs of AMD-V: VM_CR, VM_HSAVE_PA, SVM_KEY.
const SVM: [u32; 3] = [0xc001_0114, 0xc001_0117, 0xc001_0118];

/// Reads and then writes each of the MSRs of AMD-V.
pub fn svm(line: &mut Line) {
    for index in SVM {
        let (read, write) = (rdmsr(index), wrmsr(index, 0));
        line.item(format_args!("{index:x}"), format_args!("{}/{}", Hex(read), Verdict(write)));
    }
}

/// Reads and writes the capability MSRs of VT-x, and names those that do not raise #GP. Then reads and writes
/// IA32_FEATURE_CONTROL, which firmware locks.
pub fn vmx(line: &mut Line) {
    let (mut refused_reads, mut refused_writes) = (0, 0);
    for index in VMX_CAPABILITIES {
        match rdmsr(index) {
            Err(fault) if fault.vector == 13 && fault.error == 0 => refused_reads += 1,
            outcome => line.item(format_args!("read-{index:x}"), Hex(outcome)),
        }
        match wrmsr(index, 0) {
            Err(fault) if fault.vector == 13 && fault.error == 0 => refused_writes += 1,
            outcome => line.item(format_args!("write-{index:x}"), Verdict(outcome)),
        }
    }
    line.item("reads-#GP(0)", refused_reads);
    line.item("writes-#GP(0)", refused_writes);
    let control = rdmsr(IA32_FEATURE_CONTROL);
    line.item("feature-control", Hex(control));
    // First only the lock bit is written, and then the value that a guest would write to turn VT-x on.
    line.item("write-lock", Verdict(wrmsr(IA32_FEATURE_CONTROL, 1)));
    line.item("write-on", Verdict(wrmsr(IA32_FEATURE_CONTROL, 5)));
}

/// Reads and writes MSRs that do not exist.
pub fn unknown(line: &mut Line) {
    for index in UNKNOWN.into_iter().chain(FOREIGN) {
        let (read, write) = (rdmsr(index), wrmsr(index, 0));
        line.item(format_args!("{index:#x}"), format_args!("{}/{}", Hex(read), Verdict(write)));
    }
}

/// MSRs that are the guest's own. Each has its name, its index, a good value that differs from the others, and a bad
/// value if there is one.
const OWN: [(&str, u32, u64, Option<u64>); 14] = [
    ("sysenter-cs", 0x174, 0x1230, None),
    ("sysenter-esp", 0x175, 0xffff_8000_1111_2222, Some(1 << 60)),
    ("sysenter-eip", 0x176, 0xffff_8000_3333_4444, Some(1 << 60)),
    ("pat", 0x277, 0x0007_0106_0007_0406, Some(0x0007_0406_0007_0402)),
    ("xss", 0xda0, 0, Some(1 << 62)),
    ("efer", 0xc000_0080, 0xd01, Some(0xd05)),
    ("star", 0xc000_0081, 0x0013_0008_dead_beef, None),
    ("lstar", 0xc000_0082, 0xffff_8000_5555_6666, Some(1 << 60)),
    ("cstar", 0xc000_0083, 0xffff_8000_7777_8888, Some(1 << 60)),
    ("fmask", 0xc000_0084, 0x4_7700, None),
    ("fs-base", 0xc000_0100, 0x0000_7000_9999_aaaa, Some(1 << 60)),
    ("gs-base", 0xc000_0101, 0x0000_7000_bbbb_cccc, Some(1 << 60)),
    ("kernel-gs-base", 0xc000_0102, 0xffff_8000_dddd_eeee, Some(1 << 60)),
    ("tsc-aux", 0xc000_0103, 0x0bad_cafe, None),
];

/// Writes all of the guest's own MSRs, exits a thousand times, and reads them again. Each item has the outcome of the
/// good write, whether the MSR kept the value, and the outcome of the bad write.
pub fn own(line: &mut Line) {
    let before = OWN.map(|(_, index, ..)| rdmsr(index));
    let wrote = OWN.map(|(_, index, good, _)| wrmsr(index, good));
    for _ in 0..1000 {
        cpuid(0x8000_0000, 0);
    }
    let after = OWN.map(|(_, index, ..)| rdmsr(index));
    let refused = OWN.map(|(_, index, _, bad)| bad.map(|bad| wrmsr(index, bad)));
    for ((_, index, ..), before) in OWN.iter().zip(before) {
        // An MSR that could be read can be restored.
        let _ = before.and_then(|before| wrmsr(*index, before));
    }
    for (number, (name, _, good, _)) in OWN.into_iter().enumerate() {
        let kept = match after[number] {
            Ok(value) if value == good => "kept",
            Ok(_) => "lost",
            Err(_) => "none",
        };
        match refused[number] {
            Some(refused) => line.item(name, format_args!("{}/{kept}/{}", Verdict(wrote[number]), Verdict(refused))),
            None => line.item(name, format_args!("{}/{kept}", Verdict(wrote[number]))),
        }
    }
}
