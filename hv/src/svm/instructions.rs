//! The SVM instructions that are executed outside of the entry.

#![expect(unsafe_code, reason = "SVM instructions are here")]

use core::arch::asm;

use vidar_core::mem::addr::Hpa;

/// VMSAVE: FS, GS, TR, LDTR, KernelGsBase and the MSRs of SYSCALL and SYSENTER go to the VMCB at `vmcb`.
///
/// # Safety
/// EFER.SVME is set, and `vmcb` is a page that holds nothing else.
pub unsafe fn vmsave(vmcb: Hpa) {
    // SAFETY: the caller's promise.
    unsafe { asm!("vmsave rax", in("rax") vmcb.0, options(nostack, preserves_flags)) };
}

/// CLGI: from here on interrupts, NMIs and INIT wait for the guest, into which VMRUN lets them.
///
/// # Safety
/// EFER.SVME is set.
pub unsafe fn clgi() {
    // SAFETY: the caller's promise; nothing that waits is lost.
    unsafe { asm!("clgi", options(nomem, nostack, preserves_flags)) };
}

/// STGI: what waits may come. Interrupts are off in Vidar, so that is NMIs and an INIT.
///
/// # Safety
/// EFER.SVME is set, and exceptions are caught.
pub unsafe fn stgi() {
    // SAFETY: the caller's promise.
    unsafe { asm!("stgi", options(nostack, preserves_flags)) };
}
