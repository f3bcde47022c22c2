//! VM entry and exit: the assembly, and the block that it uses.

#![expect(unsafe_code, reason = "the entry assembly is here")]

use core::arch::{asm, global_asm};
use core::mem::offset_of;

use vidar_core::vmm::percpu::PerCpu;
use vidar_core::vmx::field::HOST_RSP;
use vidar_core::x86::registers::{Register, Registers};

use crate::host::exceptions::EntryWindow;

/// The data that the entry assembly uses.
#[derive(Debug, Default)]
#[repr(C)]
pub struct EntryBlock {
    /// The guest's registers.
    pub registers: Registers,
    /// The value of HOST_RSP in the VMCS.
    host_rsp: u64,
    /// True if the VMCS is launched, so that VMRESUME enters the guest.
    pub launched: bool,
}

global_asm!(
    include_str!("entry.S"),
    host_rsp = const offset_of!(EntryBlock, host_rsp),
    launched = const offset_of!(EntryBlock, launched),
    host_rsp_field = const HOST_RSP.encoding(),
    pending = const PerCpu::PENDING,
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

unsafe extern "C" {
    safe static vidar_vmx_exit: [u8; 0];
    safe static vidar_vmx_window_start: [u8; 0];
    safe static vidar_vmx_window_end: [u8; 0];
    safe static vidar_vmx_entry_aborted: [u8; 0];
}

/// What the entry assembly returns.
pub mod status {
    /// The guest has exited.
    pub const LEFT: u32 = 0;
    /// VMfailValid: the VMCS says why the guest was not entered. A value that is not in this list is VMfailInvalid.
    pub const FAILED_VALID: u32 = 2;
    /// The guest was not entered, because an event is pending for it.
    pub const EVENT_KEPT: u32 = 3;
}

/// Enters the guest. Returns a [`status`] when the guest has exited, or if it was not entered.
///
/// # Safety
/// The current VMCS is set up for a guest that cannot access Vidar's memory, and `block` belongs to it.
#[inline(always)] // into `run`, which runs at every exit
pub unsafe fn enter(block: &mut EntryBlock) -> u32 {
    let status;
    // SAFETY: the caller promises that the VMCS is set up, that its guest cannot access Vidar's memory, and that the
    // block belongs to it. All registers that the call changes are named here, and the block is borrowed mutably.
    unsafe {
        asm!(
            "call vidar_vmx_enter",
            inlateout("rdi") &raw mut *block => _,
            lateout("eax") status,
            lateout("rcx") _, lateout("rdx") _, lateout("rsi") _, lateout("r8") _, lateout("r9") _,
            lateout("r10") _, lateout("r11") _, lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
        );
    }
    status
}

/// Returns the address for HOST_RIP, at which the CPU continues after an exit.
pub fn exit_address() -> u64 {
    vidar_vmx_exit.as_ptr() as u64
}

/// Returns the code into which the handler of a pending event must not return.
pub fn window() -> EntryWindow {
    EntryWindow {
        start: vidar_vmx_window_start.as_ptr() as u64,
        end: vidar_vmx_window_end.as_ptr() as u64,
        abort: vidar_vmx_entry_aborted.as_ptr() as u64,
    }
}
