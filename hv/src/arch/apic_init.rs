//! Putting this CPU's local APIC into the state after INIT.

#![expect(unsafe_code, reason = "the APIC's MSRs are written")]

use vidar_core::x86::apic_init::{SPURIOUS, offset, writes};
use vidar_core::x86::icr::Mode;

use super::{apic, msr};

/// This CPU's APIC as it is reached now.
struct Apic(Mode);

impl Apic {
    fn x2apic(offset: u16) -> u32 {
        msr::X2APIC + u32::from(offset >> 4)
    }

    fn read(&self, offset: u16) -> u32 {
        match self.0 {
            Mode::XApic => apic::read(offset),
            Mode::X2Apic => msr::read_checked(Self::x2apic(offset)).unwrap_or(0) as u32,
        }
    }

    fn write(&self, offset: u16, value: u32) {
        match self.0 {
            Mode::XApic => apic::write(offset, value),
            Mode::X2Apic => {
                // SAFETY: these registers are the guest's, and Vidar takes no interrupts.
                let _ = unsafe { msr::write_checked(Self::x2apic(offset), value.into()) };
            }
        }
    }
}

/// Disables this CPU's APIC: all that is done before it waits for its start-up IPI, which may come some microseconds later
/// and would be lost.
pub fn disable() {
    if let Some(mode) = apic::mode() {
        Apic(mode).write(offset::SPURIOUS_VECTOR, SPURIOUS);
    }
}

/// Puts this CPU's APIC into the state after INIT, if it is not switched off.
pub fn reset() {
    let Some(mode) = apic::mode() else { return };
    let apic = Apic(mode);
    // Each of 256 vectors is in service once at most.
    let in_service = || (0..8).any(|word| apic.read(offset::IN_SERVICE + word * 0x10) != 0);
    let mut left = 256;
    while left > 0 && in_service() {
        apic.write(offset::END_OF_INTERRUPT, 0);
        left -= 1;
    }
    writes(mode, apic.read(offset::VERSION)).for_each(|(offset, value)| apic.write(offset, value));
}
