//! One wrapper for each privileged instruction that is not an MSR access and not an instruction of VMX or SVM, and a
//! few helpers for waiting, halting and switching stacks.

#![expect(unsafe_code, reason = "privileged instructions are here")]

use core::arch::asm;

use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};

use super::fixup::execute_checked;
use super::msr::Fault;

/// CR0.CD and CR0.NW.
const CACHE_BITS: Cr0Flags = Cr0Flags::CACHE_DISABLE.union(Cr0Flags::NOT_WRITE_THROUGH);

/// Executes WBINVD, which writes every modified cache line back and then empties the caches.
pub fn wbinvd() {
    // SAFETY: unlike INVD, WBINVD writes modified lines back, so no data is lost.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}

/// The distance between two executions of CLFLUSH: the smallest line that a CPU with long mode has had.
const FLUSHED: usize = 64;

/// Executes CLFLUSH for the memory of `value`: if any cache of the machine has changed lines of it, these are written
/// back. All CPUs with long mode have CLFLUSH.
pub fn write_back<T>(value: &T) {
    let start = core::ptr::from_ref(value).cast::<u8>();
    for at in (0..size_of::<T>()).step_by(FLUSHED) {
        // SAFETY: CLFLUSH changes nothing that software reads, and faults only where a read would. There is a reference
        // to the memory, so it can be read.
        unsafe { asm!("clflush [{}]", in(reg) start.wrapping_add(at), options(nostack, preserves_flags)) };
    }
}

/// Returns the eight bytes at linear address `address`.
///
/// # Errors
/// [`Fault`] where the CPU raises #PF, as it does for a reserved bit in a page-table entry.
///
/// # Safety
/// What is mapped at the address may be read at any time, and no reference to it exists.
pub unsafe fn read_checked(address: u64) -> Result<u64, Fault> {
    let value: u64;
    // SAFETY: the caller promises that a read does no harm and conflicts with no reference, and the fix-up catches #PF.
    let succeeded = unsafe {
        execute_checked!(
            "mov {value}, [{address}]",
            value = inout(reg) 0u64 => value,
            address = in(reg) address,
            options(nostack, readonly),
        )
    };
    if succeeded { Ok(value) } else { Err(Fault) }
}

/// Executes XSETBV for the guest, whose XCR0 is in the CPU even while Vidar runs: Vidar's own code uses no extended
/// state.
///
/// # Errors
/// [`Fault`] where the CPU raises #GP, for an unknown register or an invalid combination of bits, and on a CPU without
/// XSAVE.
pub fn xsetbv(register: u32, value: u64) -> Result<(), Fault> {
    if !Cr4::read().contains(Cr4Flags::OSXSAVE) {
        return Err(Fault); // a CPU without XSAVE, on which the guest cannot set the bit either
    }
    // SAFETY: Vidar is compiled without SSE and x87, so no value of XCR0 affects it. The fix-up catches #GP.
    let succeeded = unsafe {
        execute_checked!(
            "xsetbv",
            in("ecx") register,
            in("eax") value as u32,
            in("edx") (value >> 32) as u32,
            options(nostack),
        )
    };
    if succeeded { Ok(()) } else { Err(Fault) }
}

/// Loads CR4 and DR7 with known values: machine checks are enabled, and breakpoints that firmware may have left are
/// disabled. Exceptions must be caught already.
pub fn set_known_registers() {
    // SAFETY: Vidar's own code needs no bit of CR4 but PAE, and it uses no breakpoints.
    unsafe {
        Cr4::write_raw((Cr4Flags::PHYSICAL_ADDRESS_EXTENSION | Cr4Flags::MACHINE_CHECK_EXCEPTION).bits());
        asm!("mov dr7, {}", in(reg) 0x400u64, options(nomem, nostack, preserves_flags));
    }
}

/// Sets CR0.CD and CR0.NW to their values in `cr0`, which must not have NW set without CD.
pub fn set_cache_bits(cr0: u64) {
    let wanted = Cr0Flags::from_bits_truncate(cr0) & CACHE_BITS;
    let old = Cr0::read();
    if old & CACHE_BITS != wanted {
        // SAFETY: the bits control how memory is cached, and do not change what it holds.
        unsafe { Cr0::write(old & !CACHE_BITS | wanted) };
    }
}

/// Returns DR0 to DR3 and DR6, which neither extension switches all of.
pub fn debug_registers() -> ([u64; 4], u64) {
    let (first, second, third, fourth, status);
    // SAFETY: reading the registers changes nothing, and DR7.GD is clear while Vidar runs.
    unsafe {
        asm!(
            "mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3", "mov {}, dr6",
            out(reg) first, out(reg) second, out(reg) third, out(reg) fourth, out(reg) status,
            options(nomem, nostack, preserves_flags),
        );
    }
    ([first, second, third, fourth], status)
}

/// Loads DR0 to DR3 with the addresses that the guest's DR7 watches. Vidar runs with its own DR7, by which nothing is
/// watched.
pub fn set_debug_addresses(addresses: [u64; 4]) {
    let [first, second, third, fourth] = addresses;
    // SAFETY: no address is watched while Vidar runs.
    unsafe {
        asm!(
            "mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
            in(reg) first, in(reg) second, in(reg) third, in(reg) fourth,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Sets DR7 to a value that the guest is to have.
pub fn set_debug_control(control: u64) {
    // SAFETY: the addresses that are watched are those of the guest, which are not Vidar's own, and the next entry of
    // the guest loads the register anyway.
    unsafe { asm!("mov dr7, {}", in(reg) control, options(nomem, nostack, preserves_flags)) };
}

/// Sets CR2 to the value that the guest is to have, where an extension does not load it.
pub fn set_cr2(value: u64) {
    // SAFETY: Vidar reads CR2 for reports alone.
    unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// Returns CR8, the priority of the local APIC's tasks, which is the guest's.
pub fn cr8() -> u64 {
    let value;
    // SAFETY: reading the register changes nothing.
    unsafe { asm!("mov {}, cr8", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sets CR8 for the guest.
pub fn set_cr8(value: u64) {
    // SAFETY: the register masks interrupts, which Vidar does not take.
    unsafe { asm!("mov cr8, {}", in(reg) value & 15, options(nomem, nostack, preserves_flags)) };
}

/// Puts CR2, DR0 to DR3, and DR6 into their state after INIT. Neither extension switches all of them.
pub fn reset_debug_registers() {
    // SAFETY: Vidar has no breakpoints, and what it reads in CR2 is for reports alone.
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

/// Executes RDTSC, and returns EAX and EDX.
#[inline]
pub fn tsc_halves() -> [u32; 2] {
    let (low, high);
    // SAFETY: RDTSC has no side effect.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    [low, high]
}

/// Returns the time-stamp counter.
fn tsc() -> u64 {
    let [low, high] = tsc_halves();
    u64::from(high) << 32 | u64::from(low)
}

/// Waits until `done` returns true, or until `ticks` ticks of the TSC have passed and `done` has been asked `looks`
/// times. Below a hypervisor ticks pass also while no CPU of this machine runs, and looks do not.
pub fn wait(ticks: u64, looks: u32, mut done: impl FnMut() -> bool) {
    let start = tsc();
    let mut look = 0;
    while !done() && (look < looks || tsc().wrapping_sub(start) < ticks) {
        look = look.saturating_add(1);
        core::hint::spin_loop();
    }
}

/// Halts this CPU for good.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: no interrupt ends HLT with interrupts off, and after an NMI the loop halts again.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Executes IRETQ to the next instruction. This ends the blocking of NMIs after one that was taken on this CPU and not
/// returned from. Where an NMI may arrive then, Vidar's IDT must be loaded.
pub fn unblock_nmis() {
    // SAFETY: IRETQ pops what is pushed here: the segments, the flags and the stack as they are, and the address of the
    // instruction after it. Vidar is compiled without a red zone.
    unsafe {
        asm!(
            "mov {stack}, rsp",
            "mov {other:e}, ss",
            "push {other}",
            "push {stack}",
            "pushfq",
            "mov {other:e}, cs",
            "push {other}",
            "lea {other}, [rip + 2f]",
            "push {other}",
            "iretq",
            "2:",
            stack = out(reg) _,
            other = out(reg) _,
        );
    }
}

/// Calls `function(argument)` on another stack and does not return.
///
/// # Safety
/// `stack_top` is the 16-byte-aligned end of mapped, writable memory that nothing else uses, and `function` may be
/// called with `argument`.
pub unsafe fn switch_stack<T>(
    stack_top: u64,
    function: unsafe extern "C" fn(*mut T) -> !,
    argument: *mut T,
) -> ! {
    // SAFETY: the caller promises that the stack is mapped, aligned and unused, and that `function` may be called with
    // `argument`. RBP = 0 ends backtraces here.
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
