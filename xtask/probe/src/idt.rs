//! The interrupt descriptor table, and the dispatcher. It calls a scenario's own handler if there is one. Otherwise the
//! exception ends a visit to CPL 3, an attempted instruction, or the scenario.

#![expect(unsafe_code, reason = "descriptor tables are given to the CPU by address")]

use core::arch::{asm, global_asm};
use core::sync::atomic::Ordering::Relaxed;

use crate::attempt::{self, Fault, RECOVERY};
use crate::frame::Frame;
use crate::gdt::{KERNEL_CODE, Pointer, STACK_OF_DOUBLE_FAULT};
use crate::{guard, handlers, user};

global_asm!(include_str!("idt.S"), dispatch = sym dispatch, options(att_syntax));

unsafe extern "C" {
    static interrupt_stubs: u8;
}

static mut IDT: [[u64; 2]; 256] = [[0; 2]; 256];

/// Fills the table and loads it.
pub fn init() {
    let stubs = &raw const interrupt_stubs as u64;
    let table = &raw mut IDT;
    for vector in 0..256_u64 {
        let stub = stubs + 16 * vector;
        let ist = if vector == 8 { STACK_OF_DOUBLE_FAULT } else { 0 };
        // A present interrupt gate. Only the gate of `user::RETURN` may be called from CPL 3.
        let kind = if vector == user::RETURN { 0xee00 } else { 0x8e00 };
        let low =
            stub & 0xffff | u64::from(KERNEL_CODE) << 16 | (ist | kind) << 32 | (stub >> 16 & 0xffff) << 48;
        // SAFETY: the table is not in use before `load`, and only one CPU runs.
        unsafe { (*table)[vector as usize] = [low, stub >> 32] };
    }
    load(size_of::<[[u64; 2]; 256]>() as u16 - 1);
}

/// Loads the table with this limit. A limit of 0 makes every exception a triple fault.
pub fn load(limit: u16) {
    let pointer = Pointer { limit, base: &raw const IDT as u64 };
    // SAFETY: the table is static, and its entries lead to the stubs.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) };
}

extern "C" fn dispatch(frame: &mut Frame) {
    let fault = Fault { vector: frame.vector, error: frame.error };
    let recovery = RECOVERY.swap(0, Relaxed);
    if let Some(handler) = handlers::of(frame.vector) {
        RECOVERY.store(recovery, Relaxed);
        handler(frame);
    } else if frame.cs & 3 == 3 {
        if frame.vector != user::RETURN {
            attempt::note(fault);
        }
        user::leave(frame);
    } else if recovery != 0 {
        attempt::note(fault);
        frame.rip = recovery;
        // The instruction may have been executed in compatibility mode.
        frame.cs = u64::from(KERNEL_CODE);
    } else {
        guard::leave(frame, fault);
    }
}
