//! The per-CPU block of the CPU that runs this code, which is found through GS.

#![expect(unsafe_code, reason = "GS is dereferenced here")]

use core::arch::asm;

use vidar_core::vmm::percpu::PerCpu;

use super::msr;

/// Makes `block` the per-CPU block of this CPU.
///
/// # Safety
/// No other CPU has this block.
pub unsafe fn install(block: &'static PerCpu) {
    // SAFETY: nothing else in Vidar uses GS, and the block is never freed.
    unsafe { msr::write(msr::GS_BASE, &raw const *block as u64) };
}

/// Returns the APIC ID of this CPU. Before [`install`] has been called on it, this is 0.
pub fn apic_id() -> u32 {
    current().map_or(0, |cpu| cpu.apic_id)
}

/// Returns the per-CPU block of this CPU, or `None` before [`install`] has been called on it.
pub fn current() -> Option<&'static PerCpu> {
    if msr::read(msr::GS_BASE) == 0 {
        return None;
    }
    let this: *const PerCpu;
    // SAFETY: only `install` sets the GS base to a value other than zero, and the first field of the block there is the
    // block's own address.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) this, options(nostack, readonly, preserves_flags));
        this.as_ref()
    }
}
