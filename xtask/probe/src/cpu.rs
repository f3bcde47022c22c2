//! Wrappers of instructions that do not fault at CPL 0.

#![expect(unsafe_code, reason = "port, control-register and time-stamp instructions exist only as assembly")]

use core::arch::asm;

/// Reads a byte from an I/O port.
pub fn inb(port: u16) -> u8 {
    let value: u8;
    // SAFETY: the probe owns the machine, and reading the ports it names has no effect on memory.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a byte to an I/O port.
pub fn outb(port: u16, value: u8) {
    // SAFETY: the probe owns the machine, and starts no device that would write to memory, but for those whose writes
    // are a test.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Writes four bytes to an I/O port.
pub fn outl(port: u16, value: u32) {
    // SAFETY: as in `outb`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads four bytes from an I/O port.
pub fn inl(port: u16) -> u32 {
    let value: u32;
    // SAFETY: as in `inb`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Executes CPUID, and returns EAX, EBX, ECX and EDX.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let answer = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}

macro_rules! register {
    ($(#[$doc:meta])* $read:ident, $register:literal) => {
        $(#[$doc])*
        pub fn $read() -> u64 {
            let value: u64;
            // SAFETY: reading the register at CPL 0 changes nothing.
            unsafe { asm!(concat!("mov {}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }
    };
}

register!(
    /// Returns control register 0.
    cr0, "cr0");
register!(
    /// Returns control register 2.
    cr2, "cr2");
register!(
    /// Returns control register 3.
    cr3, "cr3");
register!(
    /// Returns control register 4.
    cr4, "cr4");
register!(
    /// Returns debug register 6.
    dr6, "dr6");
register!(
    /// Returns debug register 7.
    dr7, "dr7");

/// Sets debug register 6. It is a status register whose bits the CPU sets and never clears.
pub fn set_dr6(value: u64) {
    // SAFETY: the register only holds a status, so writing it has no other effect.
    unsafe { asm!("mov dr6, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// Sets debug register 7 to its value after reset, with all breakpoints off.
pub fn clear_dr7() {
    // SAFETY: breakpoints that are off have no effect.
    unsafe { asm!("mov dr7, {}", in(reg) 0x400_u64, options(nomem, nostack, preserves_flags)) };
}

/// Halts this CPU for ever, with interrupts off.
pub fn halt() -> ! {
    loop {
        // SAFETY: HLT with interrupts off waits for an NMI or a reset.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
