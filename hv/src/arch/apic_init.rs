//! Putting this CPU's local APIC into the state after INIT.

#![expect(unsafe_code, reason = "the APIC's MSRs are written")]

use vidar_core::x86::apic_init::{SPURIOUS, offset, writes};
use vidar_core::x86::icr::Mode;

use super::{apic, msr};

/// The local APIC of this CPU, with the mode in which it is accessed.
struct Apic(Mode);

impl Apic {
    /// Returns the MSR that is the register at `offset` in x2APIC mode.
    fn x2apic(offset: u16) -> u32 {
        msr::X2APIC + u32::from(offset >> 4)
    }

    /// Returns the register at `offset`, or 0 if the MSR for it does not exist.
    fn read(&self, offset: u16) -> u32 {
        match self.0 {
            Mode::XApic => apic::read(offset),
            Mode::X2Apic => msr::read_checked(Self::x2apic(offset)).unwrap_or(0) as u32,
        }
    }

    /// Writes the register at `offset`. A value that the MSR for it refuses is not written.
    fn write(&self, offset: u16, value: u32) {
        match self.0 {
            Mode::XApic => apic::write(offset, value),
            Mode::X2Apic => {
                // SAFETY: the registers belong to the guest, and Vidar runs with interrupts off, so no value affects
                // Vidar.
                let _ = unsafe { msr::write_checked(Self::x2apic(offset), value.into()) };
            }
        }
    }
}

/// Disables this CPU's local APIC by its spurious-interrupt vector register. Nothing else is done before the CPU waits
/// for its start-up IPI, since that may come some microseconds later and would be lost.
pub fn disable() {
    if let Some(mode) = apic::mode() {
        Apic(mode).write(offset::SPURIOUS_VECTOR, SPURIOUS);
    }
}

/// Puts this CPU's local APIC into the state after INIT. Does nothing if it is switched off.
pub fn reset() {
    let Some(mode) = apic::mode() else { return };
    let apic = Apic(mode);
    // There are 256 vectors, and each is in service at most once.
    let in_service = || (0..8).any(|word| apic.read(offset::IN_SERVICE + word * 0x10) != 0);
    let mut left = 256;
    while left > 0 && in_service() {
        apic.write(offset::END_OF_INTERRUPT, 0);
        left -= 1;
    }
    writes(mode, apic.read(offset::VERSION)).for_each(|(offset, value)| apic.write(offset, value));
}
