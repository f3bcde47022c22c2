//! The local APIC and the interrupt controllers behind it, as far as the probe sends itself interrupts.

#![expect(unsafe_code, reason = "the controllers are registers in memory")]

use crate::attempt::{rdmsr, wrmsr};
use crate::cpu::outb;

const IA32_APIC_BASE: u32 = 0x1b;
const IA32_X2APIC_ICR: u32 = 0x830;
/// The switch in IA32_APIC_BASE.
const X2APIC: u64 = 1 << 10;
const IO_APIC: u64 = 0xfec0_0000;

const ID: u64 = 0x20;
const END_OF_INTERRUPT: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;

/// Delivery mode NMI, in the interrupt command and in a redirection entry.
pub const NMI: u32 = 4 << 8;
/// Delivery mode INIT.
const INIT: u32 = 5 << 8;
/// Delivery mode of a start-up IPI.
const STARTUP: u32 = 6 << 8;
const PENDING: u32 = 1 << 12;
/// The level of a message that is sent.
pub const ASSERT: u32 = 1 << 14;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const TO_SELF: u32 = 1 << 18;

/// The local APIC, where IA32_APIC_BASE says it is, and whether it is in x2APIC mode.
pub struct Apic(u64, bool);

impl Apic {
    /// Looks where it is.
    pub fn find() -> Self {
        Self(rdmsr(IA32_APIC_BASE).unwrap_or(0xfee0_0000) & 0xf_ffff_f000, false)
    }

    /// Its address.
    pub fn base(&self) -> u64 {
        self.0
    }

    /// Reads a register.
    pub fn read(&self, register: u64) -> u32 {
        // SAFETY: all below 4 GiB is mapped, and reading a register of the APIC does no harm.
        unsafe { ((self.0 + register) as *const u32).read_volatile() }
    }

    fn write(&self, register: u64, value: u32) {
        // SAFETY: as in `read`; the registers that are written here send interrupts to the probe itself.
        unsafe { ((self.0 + register) as *mut u32).write_volatile(value) };
    }

    /// Lets it accept interrupts, and silences the old controllers, whose vectors are those of exceptions.
    pub fn enable(&self) {
        outb(0x21, 0xff);
        outb(0xa1, 0xff);
        self.write(SPURIOUS, 0x1ff);
    }

    /// Sends this CPU an interrupt.
    pub fn interrupt_self(&self, vector: u8) {
        self.write(COMMAND_LOW, TO_SELF | ASSERT | u32::from(vector));
    }

    /// Sends this CPU an NMI. The shorthand for itself is not for NMIs, so it is addressed by its number.
    pub fn nmi_self(&self) {
        self.write(COMMAND_HIGH, self.read(ID));
        self.write(COMMAND_LOW, NMI | ASSERT);
    }

    /// Sends this CPU an INIT.
    pub fn init_self(&self) {
        self.write(COMMAND_HIGH, self.read(ID));
        self.write(COMMAND_LOW, INIT | ASSERT);
    }

    /// Sends another CPU an INIT, and waits as long as software does.
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

    /// Goes over to x2APIC mode; what is sent from then on is sent by the MSR.
    pub fn enter_x2apic_mode(&mut self) {
        let base = rdmsr(IA32_APIC_BASE).unwrap_or(0);
        self.1 = wrmsr(IA32_APIC_BASE, base | X2APIC).is_ok();
    }

    /// Sends a CPU a message.
    pub fn send(&self, id: u32, command: u32) {
        if self.1 {
            let _ = wrmsr(IA32_X2APIC_ICR, u64::from(id) << 32 | u64::from(command));
            return;
        }
        self.write(COMMAND_HIGH, id << 24);
        self.write(COMMAND_LOW, command);
        while self.read(COMMAND_LOW) & PENDING != 0 {
            core::hint::spin_loop();
        }
    }

    /// The interrupt that is being handled is done.
    pub fn end_of_interrupt(&self) {
        self.write(END_OF_INTERRUPT, 0);
    }

    /// Makes the timer interrupt, which comes in at pin 0 or 2, what the entry of the I/O APIC says: a vector or
    /// [`NMI`]. Or it goes nowhere.
    pub fn timer_as(&self, entry: Option<u32>) {
        for pin in [0, 2] {
            io_apic_write(0x11 + 2 * pin, self.read(ID));
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

/// Lets the timer fire once, after so many of its ticks, 1,193,182 a second.
pub fn timer_once(ticks: u16) {
    let [low, high] = ticks.to_le_bytes();
    // Channel 0, both bytes, mode 0: the output rises when the count ends.
    outb(0x43, 0x30);
    outb(0x40, low);
    outb(0x40, high);
}
