//! The local APIC of this CPU: its mode and ID, and the messages that Vidar sends with it.

#![expect(unsafe_code, reason = "the local APIC's page and MSRs are accessed")]

use vidar_core::mem::addr::Hpa;
use vidar_core::mem::layout::direct;
use vidar_core::x86::icr::{Destination, Icr, Message, Mode, PENDING, register};

use super::{cpuid, msr};

/// The global-enable bit of IA32_APIC_BASE.
const ENABLED: u64 = 1 << 11;
/// The bit of IA32_APIC_BASE that enables x2APIC mode.
const EXTENDED: u64 = 1 << 10;
/// The bits of IA32_APIC_BASE that hold the address of the local APIC's page.
const PAGE: u64 = 0x000f_ffff_ffff_f000;

/// How many times the delivery status of a message is read before Vidar stops waiting for it. Delivery takes a few
/// microseconds at most.
const PATIENCE: u32 = 1_000_000;

/// Returns the mode in which the local APIC is accessed, or `None` while it is switched off.
pub fn mode() -> Option<Mode> {
    let base = msr::read_checked(msr::APIC_BASE).unwrap_or(0);
    match (base & ENABLED != 0, base & EXTENDED != 0) {
        (false, _) => None,
        (_, true) => Some(Mode::X2Apic),
        (_, false) => Some(Mode::XApic),
    }
}

/// Returns this CPU's APIC ID, as the MADT lists it and as messages address it. The local APIC's own register has it.
/// CPUID reports the ID after power-up, which firmware changes on some machines, so it is used only while the APIC is
/// switched off. AMD APM Vol. 2, 16.3.3 "Local APIC ID".
pub fn id() -> u32 {
    match mode() {
        Some(Mode::X2Apic) => msr::read(msr::X2APIC_ID) as u32,
        Some(Mode::XApic) => read(register::ID) >> 24,
        None => cpuid::cpuid(1, 0).ebx >> 24,
    }
}

/// Returns the address in the direct map of the register at `offset` of the local APIC's page.
fn at(offset: u16) -> *mut u32 {
    let page = msr::read_checked(msr::APIC_BASE).unwrap_or(0) & PAGE;
    (direct(Hpa(page)).0 as *mut u32).wrapping_byte_add(usize::from(offset & 0xffc))
}

/// Returns the register at `offset` of the local APIC's page, which must be in xAPIC mode.
pub fn read(offset: u16) -> u32 {
    // SAFETY: firmware leaves the page below 4 GiB, and `policy::msr::apic_base` lets the guest move it only there,
    // where the direct map has it. Reading a register has no side effect.
    unsafe { at(offset).read_volatile() }
}

/// Writes the register at `offset` of the local APIC's page, which must be in xAPIC mode.
pub fn write(offset: u16, value: u32) {
    // SAFETY: the page is in the direct map, as in `read`. The local APIC belongs to the guest, and Vidar runs with
    // interrupts off. Vidar itself decides which messages start CPUs.
    unsafe { at(offset).write_volatile(value) };
}

/// Sends an INIT, a start-up IPI or an NMI. Sends nothing if the local APIC is switched off. In xAPIC mode the upper
/// half of the ICR, where the guest may have written a destination, is restored afterwards.
pub fn send(message: Message, destination: Destination) {
    let icr = Icr { message, destination };
    let to = match destination {
        Destination::Physical(id) => id,
        _ => 0,
    };
    match mode() {
        None => {}
        Some(Mode::X2Apic) => {
            // SAFETY: the caller has decided that the message is to be sent. The fences come first because this WRMSR
            // is not serializing: earlier stores may become visible after the message. Intel SDM Vol. 3A, 11.12.3 "MSR
            // Access in x2APIC Mode".
            unsafe {
                core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags));
                msr::write(msr::X2APIC_ICR, u64::from(to) << 32 | u64::from(icr.encode()));
            }
        }
        Some(Mode::XApic) => {
            wait_until_sent();
            let kept = read(register::ICR_HIGH);
            write(register::ICR_HIGH, to << 24);
            write(register::ICR_LOW, icr.encode());
            wait_until_sent();
            write(register::ICR_HIGH, kept);
        }
    }
}

/// Waits until the local APIC has sent its last message, for [`PATIENCE`] reads at most.
fn wait_until_sent() {
    let mut patience = PATIENCE;
    while read(register::ICR_LOW) & PENDING != 0 && patience > 0 {
        patience -= 1;
        core::hint::spin_loop();
    }
}

/// Sends an INIT to this CPU, which then waits for a start-up IPI as after power-up. The CPU must not be the boot CPU,
/// and must have left the extension's mode of operation.
pub fn init_self() -> ! {
    send(Message::Init, Destination::Physical(id()));
    crate::arch::instructions::halt_forever()
}
