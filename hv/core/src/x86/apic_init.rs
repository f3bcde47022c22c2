//! The state of the local APIC after INIT. An INIT that exits does not reset the local APIC, so Vidar writes this
//! state.
//!
//! Intel SDM Vol. 3A, 11.4.7.3 "Local APIC State After an INIT Reset (Wait-for-SIPI State)" and 11.12.5.1 "x2APIC
//! States".

use super::icr::{Mode, register};

/// Offsets of registers in the local APIC's page, besides those of [`register`].
pub mod offset {
    /// Local APIC version.
    pub const VERSION: u16 = 0x30;
    /// Task priority.
    pub const TASK_PRIORITY: u16 = 0x80;
    /// End of interrupt (EOI).
    pub const END_OF_INTERRUPT: u16 = 0xb0;
    /// Spurious-interrupt vector.
    pub const SPURIOUS_VECTOR: u16 = 0xf0;
    /// In-service register (ISR), bits 31:0; seven more follow, 10H apart.
    pub const IN_SERVICE: u16 = 0x100;
    /// Error status.
    pub const ERROR_STATUS: u16 = 0x280;
    /// LVT entry of corrected machine checks.
    pub const CMCI: u16 = 0x2f0;
    /// LVT entry of the timer.
    pub const TIMER: u16 = 0x320;
    /// LVT entry of the thermal sensor.
    pub const THERMAL: u16 = 0x330;
    /// LVT entry of the performance counters.
    pub const PERFORMANCE: u16 = 0x340;
    /// LVT entry of the pin LINT0.
    pub const LINT0: u16 = 0x350;
    /// LVT entry of the pin LINT1.
    pub const LINT1: u16 = 0x360;
    /// LVT entry of errors.
    pub const ERROR: u16 = 0x370;
    /// The timer's initial count.
    pub const INITIAL_COUNT: u16 = 0x380;
    /// The timer's divide configuration.
    pub const DIVIDE: u16 = 0x3e0;
}

/// The value after INIT of an entry of the local vector table: masked, and 0 otherwise.
const MASKED: u32 = 1 << 16;
/// The value after INIT of the spurious-interrupt vector register, which disables the APIC.
pub const SPURIOUS: u32 = 0xff;

/// The entries of the local vector table. An APIC has an entry if Max LVT Entry of its version register is at least the
/// number beside it.
const LOCAL_VECTORS: [(u16, u32); 7] = [
    (offset::TIMER, 0),
    (offset::LINT0, 0),
    (offset::LINT1, 0),
    (offset::ERROR, 0),
    (offset::PERFORMANCE, 4),
    (offset::THERMAL, 5),
    (offset::CMCI, 6),
];

/// Returns the registers to write, by their offsets, and their values. They must be written in this order. `version` is
/// the value of the version register. The first write disables the APIC, so that it delivers no interrupt in the
/// meantime.
///
/// The APIC keeps its ID, and in x2APIC mode also its logical ID. It keeps the interrupts that are requested and not
/// yet in service, since software cannot clear them. It keeps the low half of the interrupt command register, since a
/// write would send a message.
pub fn writes(mode: Mode, version: u32) -> impl Iterator<Item = (u16, u32)> {
    let highest = version >> 16 & 0xff;
    let entries = LOCAL_VECTORS.into_iter().filter(move |(_, from)| highest >= *from);
    let others = [
        (offset::TASK_PRIORITY, 0),
        (offset::INITIAL_COUNT, 0),
        (offset::DIVIDE, 0),
        (offset::ERROR_STATUS, 0),
    ];
    let page = [
        (register::LOGICAL_DESTINATION, 0),
        (register::DESTINATION_FORMAT, u32::MAX),
        (register::ICR_HIGH, 0),
    ];
    [(offset::SPURIOUS_VECTOR, SPURIOUS)]
        .into_iter()
        .chain(entries.map(|(offset, _)| (offset, MASKED)))
        .chain(others)
        .chain(page.into_iter().filter(move |_| mode == Mode::XApic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(mode: Mode, version: u32, offset: u16) -> Option<u32> {
        writes(mode, version).find(|(other, _)| *other == offset).map(|(_, value)| value)
    }

    #[test]
    fn the_apic_is_disabled_before_its_entries_are_masked() {
        // The version register of a recent CPU, whose local vector table has seven entries.
        let all: Vec<_> = writes(Mode::XApic, 0x0006_0015).collect();
        assert_eq!(all[0], (0xf0, 0xff));
        for offset in [0x2f0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370] {
            assert!(all.contains(&(offset, 1 << 16)), "{offset:#x}");
        }
        for (offset, value) in
            [(0x80, 0), (0x380, 0), (0x3e0, 0), (0x280, 0), (0xd0, 0), (0xe0, !0), (0x310, 0)]
        {
            assert!(all.contains(&(offset, value)), "{offset:#x}");
        }
    }

    #[test]
    fn neither_the_id_nor_the_low_half_of_the_icr_is_written() {
        for mode in [Mode::XApic, Mode::X2Apic] {
            for offset in [register::ID, register::ICR_LOW] {
                assert_eq!(written(mode, 0x0006_0015, offset), None);
            }
        }
    }

    #[test]
    fn registers_that_x2apic_mode_lacks_are_not_written() {
        for offset in [register::LOGICAL_DESTINATION, register::DESTINATION_FORMAT, register::ICR_HIGH] {
            assert_eq!(written(Mode::X2Apic, 0x0006_0015, offset), None, "{offset:#x}");
        }
    }

    #[test]
    fn entries_that_an_older_apic_lacks_are_not_written() {
        assert_eq!(written(Mode::XApic, 0x0004_0014, 0x340), Some(MASKED));
        assert_eq!(written(Mode::XApic, 0x0004_0014, 0x330), None);
        assert_eq!(written(Mode::XApic, 0x0005_0014, 0x2f0), None);
    }
}
