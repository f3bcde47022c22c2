//! One wrapper for each instruction that cannot fault here, or whose fault is not the point.

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
    // SAFETY: the probe owns the machine, and starts no device that would write to memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Writes four bytes to an I/O port.
pub fn outl(port: u16, value: u32) {
    // SAFETY: as in `outb`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
}

/// CPUID as EAX, EBX, ECX, EDX.
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
    /// Control register 0.
    cr0, "cr0");
register!(
    /// Control register 2.
    cr2, "cr2");
register!(
    /// Control register 3.
    cr3, "cr3");
register!(
    /// Control register 4.
    cr4, "cr4");
register!(
    /// Debug register 6.
    dr6, "dr6");

/// Sets debug register 6, the status that the CPU only ever adds to.
pub fn set_dr6(value: u64) {
    // SAFETY: the register is a status and starts nothing.
    unsafe { asm!("mov dr6, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// Sets debug register 7 to its reset value: no breakpoint on.
pub fn clear_dr7() {
    // SAFETY: switches breakpoints off.
    unsafe { asm!("mov dr7, {}", in(reg) 0x400_u64, options(nomem, nostack, preserves_flags)) };
}

/// Stops for good, interrupts off.
pub fn halt() -> ! {
    loop {
        // SAFETY: HLT with interrupts off waits for an NMI or a reset.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
