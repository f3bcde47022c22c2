//! One wrapper for each privileged instruction that is neither an MSR access nor VMX.

#![expect(unsafe_code, reason = "privileged instructions are here")]

use core::arch::asm;

use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};

use super::fixup::fixup;
use super::msr::Fault;

/// CR0.CD and CR0.NW.
const CACHE_BITS: Cr0Flags = Cr0Flags::CACHE_DISABLE.union(Cr0Flags::NOT_WRITE_THROUGH);

/// WBINVD: writes every dirty cache line back, then empties the caches.
pub fn wbinvd() {
    // SAFETY: unlike INVD this loses no data.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}

/// Reads eight bytes at a linear address.
///
/// # Errors
/// [`Fault`] where the CPU gives #PF, which a reserved bit in an entry of a page table brings about.
///
/// # Safety
/// What is there may be read at any time, and no reference to it exists.
pub unsafe fn read_checked(address: u64) -> Result<u64, Fault> {
    let (value, done): (u64, u32);
    // SAFETY: the caller's promise, and #PF is caught by the fix-up.
    unsafe {
        asm!(
            "xor {done:e}, {done:e}",
            "2: mov {value}, [{address}]",
            "mov {done:e}, 1",
            "3:",
            fixup!("2b", "3b"),
            done = out(reg) done,
            value = inout(reg) 0u64 => value,
            address = in(reg) address,
            options(nostack, readonly),
        );
    }
    if done == 1 { Ok(value) } else { Err(Fault) }
}

/// XSETBV for the guest, whose XCR0 is the CPU's: Vidar's own code uses no extended state.
///
/// # Errors
/// [`Fault`] where the CPU gives #GP: an unknown register or a set of bits that it does not take.
pub fn xsetbv(register: u32, value: u64) -> Result<(), Fault> {
    if !Cr4::read().contains(Cr4Flags::OSXSAVE) {
        return Err(Fault); // a CPU without XSAVE, on which the guest cannot set the bit either
    }
    let done: u32;
    // SAFETY: Vidar is compiled without SSE and x87, so no XCR0 harms it; #GP is caught by the fix-up.
    unsafe {
        asm!(
            "xor {done:e}, {done:e}",
            "2: xsetbv",
            "mov {done:e}, 1",
            "3:",
            fixup!("2b", "3b"),
            done = out(reg) done,
            in("ecx") register,
            in("eax") value as u32,
            in("edx") (value >> 32) as u32,
            options(nostack),
        );
    }
    if done == 1 { Ok(()) } else { Err(Fault) }
}

/// Gives CR4 and DR7 known values, for code that catches exceptions: machine checks are on, and debug registers that firmware may
/// have left break nothing.
pub fn set_known_registers() {
    // SAFETY: 64-bit mode needs PAE and nothing else of CR4, and Vidar uses no breakpoints.
    unsafe {
        Cr4::write_raw((Cr4Flags::PHYSICAL_ADDRESS_EXTENSION | Cr4Flags::MACHINE_CHECK_EXCEPTION).bits());
        asm!("mov dr7, {}", in(reg) 0x400u64, options(nomem, nostack, preserves_flags));
    }
}

/// Makes CR0.CD and CR0.NW those of `cr0`, which must not have NW without CD.
pub fn set_cache_bits(cr0: u64) {
    let wanted = Cr0Flags::from_bits_truncate(cr0) & CACHE_BITS;
    let old = Cr0::read();
    if old & CACHE_BITS != wanted {
        // SAFETY: the bits decide how memory is cached, not what it holds.
        unsafe { Cr0::write(old & !CACHE_BITS | wanted) };
    }
}

/// Puts CR2 and the debug registers that no virtualization extension switches into their state after INIT.
pub fn reset_debug_registers() {
    // SAFETY: Vidar uses none of them.
    unsafe {
        asm!(
            "mov cr2, {zero}", "mov dr0, {zero}", "mov dr1, {zero}", "mov dr2, {zero}", "mov dr3, {zero}",
            "mov dr6, {dr6}",
            zero = in(reg) 0u64,
            dr6 = in(reg) 0xffff_0ff0u64,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Waits until `done` says so, or for so many ticks of the TSC.
pub fn wait(ticks: u64, mut done: impl FnMut() -> bool) {
    // SAFETY: reading the TSC changes nothing.
    let now = || unsafe { core::arch::x86_64::_rdtsc() };
    let start = now();
    while !done() && now().wrapping_sub(start) < ticks {
        core::hint::spin_loop();
    }
}

/// Stops this CPU for good.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: with interrupts off only an NMI ends HLT, and the loop takes that up.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Goes on at `function(argument)` on another stack and never comes back.
///
/// # Safety
/// `stack_top` is the 16-byte-aligned end of mapped, writable memory that nothing else uses, and `function` may be
/// called with `argument`.
pub unsafe fn switch_stack<T>(
    stack_top: u64,
    function: unsafe extern "C" fn(*mut T) -> !,
    argument: *mut T,
) -> ! {
    // SAFETY: the caller vouches for the stack; RBP = 0 ends backtraces there.
    unsafe {
        asm!(
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "call {function}",
            "ud2",
            stack = in(reg) stack_top,
            function = in(reg) function,
            in("rdi") argument,
            options(noreturn),
        )
    }
}
