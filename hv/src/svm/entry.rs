//! VMRUN: the assembly, and what it works on.

#![expect(unsafe_code, reason = "the entry assembly is here")]

use core::arch::{asm, global_asm};
use core::mem::offset_of;

use vidar_core::mem::addr::Hpa;
use vidar_core::mem::layout::direct;
use vidar_core::svm::vmcb;
use vidar_core::x86::registers::{Register, Registers};

/// What the entry assembly works on.
#[derive(Debug)]
#[repr(C)]
pub struct EntryBlock {
    /// The guest's registers.
    pub registers: Registers,
    /// Physical address of the VMCB.
    vmcb: u64,
    /// Its address in the direct map.
    vmcb_page: u64,
    /// Physical address of a VMCB that VMSAVE has filled with what VMRUN does not switch of Vidar's own state.
    host: u64,
}

impl EntryBlock {
    /// The block for the VMCB at `vmcb`, with registers of zero.
    pub fn new(vmcb: Hpa, host: Hpa) -> Self {
        Self { registers: Registers::default(), vmcb: vmcb.0, vmcb_page: direct(vmcb).0, host: host.0 }
    }
}

global_asm!(
    include_str!("entry.S"),
    vmcb = const offset_of!(EntryBlock, vmcb),
    vmcb_page = const offset_of!(EntryBlock, vmcb_page),
    host = const offset_of!(EntryBlock, host),
    vmcb_rax = const vmcb::RAX,
    rax = const Register::Rax.offset(),
    rcx = const Register::Rcx.offset(),
    rdx = const Register::Rdx.offset(),
    rbx = const Register::Rbx.offset(),
    rbp = const Register::Rbp.offset(),
    rsi = const Register::Rsi.offset(),
    rdi = const Register::Rdi.offset(),
    r8 = const Register::R8.offset(),
    r9 = const Register::R9.offset(),
    r10 = const Register::R10.offset(),
    r11 = const Register::R11.offset(),
    r12 = const Register::R12.offset(),
    r13 = const Register::R13.offset(),
    r14 = const Register::R14.offset(),
    r15 = const Register::R15.offset(),
);

/// Enters the guest and returns when it has left.
///
/// # Safety
/// `block` names the VMCB of a guest that cannot reach Vidar's memory, and one with this CPU's own state; EFER.SVME and
/// VM_HSAVE_PA are set, and GIF is 0.
pub unsafe fn enter(block: &mut EntryBlock) {
    // SAFETY: the caller's promise; all that the call loses is named here, and the block may change.
    unsafe {
        asm!(
            "call vidar_svm_enter",
            inlateout("rdi") &raw mut *block => _,
            lateout("rax") _, lateout("rcx") _, lateout("rdx") _, lateout("rsi") _, lateout("r8") _, lateout("r9") _,
            lateout("r10") _, lateout("r11") _, lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
        );
    }
}
