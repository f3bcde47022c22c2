//! Executes CPUID at one place, so that the exits that it makes can be found in a trace.

#![expect(unsafe_code, reason = "the address of the instruction is wanted")]

use std::arch::asm;

use rustix::thread::{CpuSet, sched_setaffinity};

/// The leaf, which every CPU has.
const LEAF: u32 = 0x8000_0000;

/// Executes CPUID `count` times on the CPU `cpu`, and returns the address of the instruction and the leaf.
pub fn execute(count: u32, cpu: usize) -> Result<String, String> {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).map_err(|error| format!("cannot run on CPU {cpu}: {error}"))?;
    let mut rip: u64 = 0;
    for _ in 0..count {
        // SAFETY: CPUID writes the four registers alone, and RBX gets back what it had.
        unsafe {
            asm!(
                "lea {rip}, [rip + 2f]",
                "mov {rbx}, rbx",
                "2: cpuid",
                "mov rbx, {rbx}",
                rip = out(reg) rip,
                rbx = out(reg) _,
                inout("eax") LEAF => _,
                inout("ecx") 0 => _,
                out("edx") _,
            );
        }
    }
    Ok(format!("rip={rip:#x} leaf={LEAF:#x}"))
}
