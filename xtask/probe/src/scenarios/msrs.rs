//! Model-specific registers that a guest does not have.

use core::ops::RangeInclusive;

use crate::attempt::{Hex, Shown, rdmsr, wrmsr};
use crate::line::Line;

const IA32_FEATURE_CONTROL: u32 = 0x3a;

/// The capability MSRs of VT-x.
const VMX_CAPABILITIES: RangeInclusive<u32> = 0x480..=0x491;

/// Indices that no CPU model known to us has: inside the two ranges of an MSR bitmap, at their edges, and outside.
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

/// MSRs of other CPUs and of other hypervisors: AMD's virtualization control, Microsoft's and KVM's synthetic ones.
const FOREIGN: [u32; 3] = [0xc001_0114, 0x4000_0021, 0x4b56_4d01];

/// The capability MSRs, one by one where they are not #GP, and the lock of firmware.
pub fn vmx(line: &mut Line) {
    let (mut refused_reads, mut refused_writes) = (0, 0);
    for index in VMX_CAPABILITIES {
        match rdmsr(index) {
            Err(fault) if fault.vector == 13 && fault.error == 0 => refused_reads += 1,
            outcome => line.item(format_args!("read-{index:x}"), Hex(outcome)),
        }
        match wrmsr(index, 0) {
            Err(fault) if fault.vector == 13 && fault.error == 0 => refused_writes += 1,
            outcome => line.item(format_args!("write-{index:x}"), Shown(outcome)),
        }
    }
    line.item("reads-#GP(0)", refused_reads);
    line.item("writes-#GP(0)", refused_writes);
    let control = rdmsr(IA32_FEATURE_CONTROL);
    line.item("feature-control", Hex(control));
    // The lock alone, and then what a guest would write to switch VT-x on.
    line.item("write-lock", Shown(wrmsr(IA32_FEATURE_CONTROL, 1)));
    line.item("write-on", Shown(wrmsr(IA32_FEATURE_CONTROL, 5)));
}

/// Reads and writes of MSRs that are not there.
pub fn unknown(line: &mut Line) {
    for index in UNKNOWN.into_iter().chain(FOREIGN) {
        let (read, write) = (rdmsr(index), wrmsr(index, 0));
        line.item(format_args!("{index:#x}"), format_args!("{}/{}", Hex(read), Shown(write)));
    }
}
