//! The SVM instructions that Vidar executes outside of the entry assembly.

#![expect(unsafe_code, reason = "SVM instructions are here")]

use core::arch::asm;

use vidar_core::mem::addr::Hpa;

/// Executes VMSAVE: saves FS, GS, TR, LDTR, KernelGsBase and the MSRs of SYSCALL and SYSENTER to the VMCB at `vmcb`.
///
/// # Safety
/// EFER.SVME is set, and the page at `vmcb` is used for nothing but a VMCB.
pub unsafe fn vmsave(vmcb: Hpa) {
    // SAFETY: the caller promises that SVME is set, so VMSAVE exists, and that the page it writes is a VMCB.
    unsafe { asm!("vmsave rax", in("rax") vmcb.0, options(nostack, preserves_flags)) };
}

/// Executes CLGI: from here on interrupts, NMIs and INIT wait until VMRUN sets GIF.
///
/// # Safety
/// EFER.SVME is set.
pub unsafe fn clgi() {
    // SAFETY: the caller promises that SVME is set, so CLGI exists. An event that waits is not lost.
    unsafe { asm!("clgi", options(nomem, nostack, preserves_flags)) };
}

/// Executes STGI: events that wait are delivered. Interrupts are off in Vidar, so these are NMIs and an INIT.
///
/// # Safety
/// EFER.SVME is set, and Vidar's IDT is loaded.
pub unsafe fn stgi() {
    // SAFETY: the caller promises that SVME is set, so STGI exists, and that the IDT has handlers for what may arrive.
    unsafe { asm!("stgi", options(nostack, preserves_flags)) };
}
