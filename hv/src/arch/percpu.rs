//! The per-CPU block of the CPU that runs this code: GS leads to it.

#![expect(unsafe_code, reason = "GS is dereferenced here")]

use core::arch::asm;

use vidar_core::vmm::percpu::PerCpu;

use super::msr;

/// Makes `block` the block of this CPU.
pub fn install(block: &'static PerCpu) {
    // SAFETY: nothing else in Vidar uses GS, and the block lives for ever.
    unsafe { msr::write(msr::GS_BASE, &raw const *block as u64) };
}

/// Returns the block of this CPU, or `None` before [`install`].
pub fn current() -> Option<&'static PerCpu> {
    if msr::read(msr::GS_BASE) == 0 {
        return None;
    }
    let this: *const PerCpu;
    // SAFETY: a GS base that is not zero is the block that `install` put there, whose first field is its address.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) this, options(nostack, readonly, preserves_flags));
        this.as_ref()
    }
}
