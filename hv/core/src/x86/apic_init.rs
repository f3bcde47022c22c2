//! The state of the local APIC after INIT, for a CPU whose INIT exited: such an INIT resets nothing by itself.
//!
//! Intel SDM Vol. 3A, 11.4.7.3 "Local APIC State After an INIT Reset (Wait-for-SIPI State)" and 11.12.5.1 "x2APIC States".

use super::icr::{Mode, register};

/// Offsets of further registers in the page.
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

/// An entry of the local vector table that is masked, and 0 otherwise.
const MASKED: u32 = 1 << 16;
/// The spurious-interrupt vector register: its reset value, with the APIC disabled by software.
pub const SPURIOUS: u32 = 0xff;

/// The local vector table, each entry with the number of the highest entry from which on an APIC has it.
const LOCAL_VECTORS: [(u16, u32); 7] = [
    (offset::TIMER, 0),
    (offset::LINT0, 0),
    (offset::LINT1, 0),
    (offset::ERROR, 0),
    (offset::PERFORMANCE, 4),
    (offset::THERMAL, 5),
    (offset::CMCI, 6),
];

/// The registers that are to be written, in this order, for an APIC whose version register reads `version`. First it is
/// disabled, so that nothing fires on the way.
///
/// The APIC's ID stays, and in x2APIC mode the logical one with it. What is requested and not yet in service stays as well,
/// since software cannot take it back. So does the interrupt command register: a write would send.
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
    fn it_is_disabled_first_and_masked() {
        // Seven entries, as CPUs of today have them.
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
    fn nothing_is_sent_and_the_id_stays() {
        for mode in [Mode::XApic, Mode::X2Apic] {
            for offset in [register::ID, register::ICR_LOW] {
                assert_eq!(written(mode, 0x0006_0015, offset), None);
            }
        }
    }

    #[test]
    fn x2apic_has_no_logical_destination_to_reset() {
        for offset in [register::LOGICAL_DESTINATION, register::DESTINATION_FORMAT, register::ICR_HIGH] {
            assert_eq!(written(Mode::X2Apic, 0x0006_0015, offset), None, "{offset:#x}");
        }
    }

    #[test]
    fn older_ones_have_fewer_entries() {
        assert_eq!(written(Mode::XApic, 0x0004_0014, 0x340), Some(MASKED));
        assert_eq!(written(Mode::XApic, 0x0004_0014, 0x330), None);
        assert_eq!(written(Mode::XApic, 0x0005_0014, 0x2f0), None);
    }
}
