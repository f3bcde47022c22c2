//! VMRUN: the assembly, and the block that it uses.

#![expect(unsafe_code, reason = "the entry assembly is here")]

use core::arch::{asm, global_asm};
use core::mem::offset_of;

use vidar_core::mem::addr::Hpa;
use vidar_core::mem::layout::direct;
use vidar_core::svm::vmcb;
use vidar_core::x86::registers::{Register, Registers};

/// The data that the entry assembly uses.
#[derive(Debug)]
#[repr(C)]
pub struct EntryBlock {
    /// The guest's registers.
    pub registers: Registers,
    /// The physical address of the VMCB.
    vmcb: u64,
    /// The address of the VMCB in the direct map.
    vmcb_page: u64,
    /// The physical address of a VMCB in which VMSAVE has saved the state of Vidar that VMRUN does not switch.
    host: u64,
}

impl EntryBlock {
    /// Returns the block for the guest's VMCB at `vmcb` and Vidar's at `host`. All registers are 0.
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

/// Enters the guest, and returns when the guest has exited.
///
/// # Safety
/// `block` names the VMCB of a guest that cannot access Vidar's memory, and a VMCB with this CPU's own state. EFER.SVME
/// and VM_HSAVE_PA are set, and GIF is 0.
pub unsafe fn enter(block: &mut EntryBlock) {
    // SAFETY: the caller promises that both VMCBs are set up, that the guest cannot access Vidar's memory, and that
    // AMD-V is on. All registers that the call changes are named here, and the block is borrowed mutably.
    unsafe {
        asm!(
            "call vidar_svm_enter",
            inlateout("rdi") &raw mut *block => _,
            lateout("rax") _, lateout("rcx") _, lateout("rdx") _, lateout("rsi") _, lateout("r8") _, lateout("r9") _,
            lateout("r10") _, lateout("r11") _, lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
        );
    }
}
