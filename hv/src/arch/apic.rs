//! The local APIC of this CPU: its mode and ID, and the messages that Vidar sends with it.

#![expect(unsafe_code, reason = "the APIC's page and MSRs are written")]

use vidar_core::mem::addr::Hpa;
use vidar_core::mem::layout::direct;
use vidar_core::x86::icr::{Destination, Icr, Message, Mode, PENDING, register};

use super::{cpuid, msr};

/// The global enable of IA32_APIC_BASE.
const ENABLED: u64 = 1 << 11;
/// x2APIC mode in IA32_APIC_BASE.
const EXTENDED: u64 = 1 << 10;
/// The address of the page.
const PAGE: u64 = 0x000f_ffff_ffff_f000;

/// Looks at the delivery status before the last message is given up. A message takes microseconds at most.
const PATIENCE: u32 = 1_000_000;

/// How the APIC is reached; `None` while it is switched off.
pub fn mode() -> Option<Mode> {
    let base = msr::read_checked(msr::APIC_BASE).unwrap_or(0);
    match (base & ENABLED != 0, base & EXTENDED != 0) {
        (false, _) => None,
        (_, true) => Some(Mode::X2Apic),
        (_, false) => Some(Mode::XApic),
    }
}

/// This CPU's APIC ID, as the MADT has it and as messages want it: the APIC's own. CPUID has the one after power-up, which
/// firmware changes on some machines. It is asked alone while the APIC is switched off. AMD APM Vol. 2, 16.3.3 "Local APIC ID".
pub fn id() -> u32 {
    match mode() {
        Some(Mode::X2Apic) => msr::read(msr::X2APIC_ID) as u32,
        Some(Mode::XApic) => read(register::ID) >> 24,
        None => cpuid::cpuid(1, 0).ebx >> 24,
    }
}

/// A register of the page.
fn at(offset: u16) -> *mut u32 {
    let page = msr::read_checked(msr::APIC_BASE).unwrap_or(0) & PAGE;
    (direct(Hpa(page)).0 as *mut u32).wrapping_byte_add(usize::from(offset & 0xffc))
}

/// Reads the register at `offset` of the page.
pub fn read(offset: u16) -> u32 {
    // SAFETY: the page is below 4 GiB and so in the direct map; reading it has no effect.
    unsafe { at(offset).read_volatile() }
}

/// Writes the register at `offset` of the page.
pub fn write(offset: u16, value: u32) {
    // SAFETY: as above. What an APIC does is the guest's, but for messages that start CPUs, and those are made here.
    unsafe { at(offset).write_volatile(value) };
}

/// Sends INIT or a start-up IPI. What the guest may have put into the upper half of the register stays.
pub fn send(message: Message, destination: Destination) {
    let icr = Icr { message, destination };
    let to = match destination {
        Destination::Physical(id) => id,
        _ => 0,
    };
    match mode() {
        None => {}
        Some(Mode::X2Apic) => {
            // SAFETY: the message is one that Vidar answers for. The write is not ordered behind memory by itself:
            // Intel SDM Vol. 3A, 11.12.3 "MSR Access in x2APIC Mode".
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

fn wait_until_sent() {
    let mut patience = PATIENCE;
    while read(register::ICR_LOW) & PENDING != 0 && patience > 0 {
        patience -= 1;
        core::hint::spin_loop();
    }
}

/// Takes an INIT: this CPU then waits for a start-up IPI as after power-up. It must not be the boot CPU, and must have left
/// the extension's mode of operation.
pub fn init_self() -> ! {
    send(Message::Init, Destination::Physical(id()));
    crate::arch::instructions::halt_forever()
}
