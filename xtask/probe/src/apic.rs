//! The local APIC, the I/O APIC and the timer, as far as the probe needs them to send interrupts to itself and to
//! another CPU.

#![expect(unsafe_code, reason = "the controllers are registers in memory")]

use crate::attempt::{rdmsr, wrmsr};
use crate::cpu::outb;

const IA32_APIC_BASE: u32 = 0x1b;
const IA32_X2APIC_ICR: u32 = 0x830;
/// The bit of IA32_APIC_BASE that turns x2APIC mode on.
const X2APIC: u64 = 1 << 10;
const IO_APIC: u64 = 0xfec0_0000;

const ID: u64 = 0x20;
const END_OF_INTERRUPT: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;

/// Delivery mode NMI, in the interrupt command register and in a redirection entry.
pub const NMI: u32 = 4 << 8;
/// Delivery mode INIT.
pub const INIT: u32 = 5 << 8;
/// Delivery mode of a start-up IPI.
pub const STARTUP: u32 = 6 << 8;
const PENDING: u32 = 1 << 12;
/// The level bit of an interrupt command, with the value "assert".
pub const ASSERT: u32 = 1 << 14;
/// The trigger-mode bit of an interrupt command, with the value "level".
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const TO_SELF: u32 = 1 << 18;

/// The local APIC of this CPU.
pub struct Apic {
    base: u64,
    x2apic: bool,
}

impl Apic {
    /// Finds the local APIC at the address that IA32_APIC_BASE has. It is taken to be in xAPIC mode.
    pub fn find() -> Self {
        Self { base: rdmsr(IA32_APIC_BASE).unwrap_or(0xfee0_0000) & 0xf_ffff_f000, x2apic: false }
    }

    /// Returns the physical address of its registers.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Reads a register.
    pub fn read(&self, register: u64) -> u32 {
        // SAFETY: all below 4 GiB is mapped, and reading a register of the APIC does no harm.
        unsafe { ((self.base + register) as *const u32).read_volatile() }
    }

    fn write(&self, register: u64, value: u32) {
        // SAFETY: as in `read`; the registers that are written here send interrupts to the probe itself.
        unsafe { ((self.base + register) as *mut u32).write_volatile(value) };
    }

    /// Enables the local APIC, and masks the old interrupt controllers, whose vectors are those of exceptions.
    pub fn enable(&self) {
        outb(0x21, 0xff);
        outb(0xa1, 0xff);
        self.write(SPURIOUS, 0x1ff);
    }

    /// Sends this CPU an interrupt.
    pub fn interrupt_self(&self, vector: u8) {
        self.write(COMMAND_LOW, TO_SELF | ASSERT | u32::from(vector));
    }

    /// Sends this CPU an NMI. The destination shorthand "self" does not allow NMIs, so the message has the APIC ID as
    /// its destination.
    pub fn nmi_self(&self) {
        self.write(COMMAND_HIGH, self.read(ID));
        self.write(COMMAND_LOW, NMI | ASSERT);
    }

    /// Sends this CPU an INIT.
    pub fn init_self(&self) {
        self.write(COMMAND_HIGH, self.read(ID));
        self.write(COMMAND_LOW, INIT | ASSERT);
    }

    /// Sends another CPU an INIT, and waits a while, as operating systems do.
    pub fn init(&self, id: u32) {
        self.send(id, INIT | ASSERT);
        self.send(id, INIT | LEVEL);
        for _ in 0..100_000 {
            core::hint::spin_loop();
        }
    }

    /// Sends another CPU a start-up IPI.
    pub fn startup(&self, id: u32, vector: u8) {
        self.send(id, STARTUP | u32::from(vector));
    }

    /// Switches to x2APIC mode. From then on, messages are sent by the MSR.
    pub fn enter_x2apic_mode(&mut self) {
        let base = rdmsr(IA32_APIC_BASE).unwrap_or(0);
        self.x2apic = wrmsr(IA32_APIC_BASE, base | X2APIC).is_ok();
    }

    /// Sends a message to the CPU with this APIC ID: `command` is the low half of the interrupt command register.
    pub fn send(&self, id: u32, command: u32) {
        if self.x2apic {
            let _ = wrmsr(IA32_X2APIC_ICR, u64::from(id) << 32 | u64::from(command));
            return;
        }
        self.write(COMMAND_HIGH, id << 24);
        self.write(COMMAND_LOW, command);
        while self.read(COMMAND_LOW) & PENDING != 0 {
            core::hint::spin_loop();
        }
    }

    /// Sends the CPU with this APIC ID a message as a device with message-signalled interrupts does. Where the
    /// emulator takes no such message from a CPU, this changes nothing.
    pub fn send_as_device(&self, id: u32, message: u32) {
        // SAFETY: as in `read`. The pages beside that of the local APIC have no other use.
        unsafe { ((0xfee0_0000 | u64::from(id) << 12) as *mut u32).write_volatile(message) };
    }

    /// Tells the local APIC that the interrupt has been handled.
    pub fn end_of_interrupt(&self) {
        self.write(END_OF_INTERRUPT, 0);
    }

    /// Has the I/O APIC send this CPU what [`Apic::timer_to`] says.
    pub fn timer_as(&self, entry: Option<u32>) {
        self.timer_to(self.read(ID) >> 24, entry);
    }

    /// Sets the I/O APIC's redirection entries of the timer, which is connected to pin 0 or pin 2, for the CPU with
    /// this APIC ID. `entry` is a vector or a delivery mode with one; without it the timer is masked.
    pub fn timer_to(&self, id: u32, entry: Option<u32>) {
        for pin in [0, 2] {
            io_apic_write(0x11 + 2 * pin, id << 24);
            io_apic_write(0x10 + 2 * pin, entry.unwrap_or(MASKED));
        }
    }
}

fn io_apic_write(register: u32, value: u32) {
    // SAFETY: all below 4 GiB is mapped; the redirection entries belong to the probe.
    unsafe {
        (IO_APIC as *mut u32).write_volatile(register);
        ((IO_APIC + 0x10) as *mut u32).write_volatile(value);
    }
}

/// Starts the timer to fire once, after this number of its ticks. It has 1,193,182 ticks a second.
pub fn timer_once(ticks: u16) {
    let [low, high] = ticks.to_le_bytes();
    // Channel 0, both bytes, mode 0: the output rises when the count ends.
    outb(0x43, 0x30);
    outb(0x40, low);
    outb(0x40, high);
}
