//! Resetting the machine: every way that a PC has, from the politest on.

#![expect(unsafe_code, reason = "port writes and the triple fault are here")]

use core::arch::asm;

use x86_64::instructions::port::Port;

/// Resets the machine. VMX operation must have been left: under another hypervisor it would survive the reset.
pub fn reset() -> ! {
    // SAFETY: the machine is to be reset, so nothing that the ports do can be wrong.
    unsafe {
        // Reset Control Register of PCI chipsets: bit 1 asks for a hard reset, the rise of bit 2 does it.
        let mut reset_control: Port<u8> = Port::new(0xcf9);
        reset_control.write(0x02);
        reset_control.write(0x06);
        // The keyboard controller's pulse on the CPU's reset line.
        Port::<u8>::new(0x64).write(0xfe);
        for _ in 0..100_000 {
            Port::<u8>::new(0x80).write(0);
        }
        // A triple fault: no IDT and an exception.
        let empty = [0u16; 5];
        asm!("lidt [{}]", "ud2", in(reg) &raw const empty, options(noreturn));
    }
}
