//! Resetting the machine by every means that a PC has, the gentlest first.

#![expect(unsafe_code, reason = "port writes and the triple fault are here")]

use core::arch::asm;

use x86_64::instructions::port::Port;

/// Resets the machine. The CPU must have left VMX operation: under another hypervisor it would survive the reset.
pub fn reset() -> ! {
    // SAFETY: the machine is to be reset, so nothing that these ports change matters afterwards.
    unsafe {
        // The Reset Control Register of PCI chipsets: bit 1 selects a hard reset, and setting bit 2 performs it.
        let mut reset_control: Port<u8> = Port::new(0xcf9);
        reset_control.write(0x02);
        reset_control.write(0x06);
        // The keyboard controller pulses the CPU's reset line.
        Port::<u8>::new(0x64).write(0xfe);
        for _ in 0..100_000 {
            Port::<u8>::new(0x80).write(0);
        }
        // A triple fault: an exception while the IDT is empty.
        let empty = [0u16; 5];
        asm!("lidt [{}]", "ud2", in(reg) &raw const empty, options(noreturn));
    }
}
