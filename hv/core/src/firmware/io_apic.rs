//! The I/O APICs in the MADT, and the pins to which the lines of ISA devices lead. ACPI Specification 6.5, 5.2.12.3
//! "I/O APIC Structure" and 5.2.12.5 "Interrupt Source Override Structure".
//!
//! The pins of all I/O APICs are numbered together, as global system interrupts (GSIs): each I/O APIC states that of
//! its pin 0. The line of an ISA interrupt leads to the GSI of the same number unless a structure says otherwise.

use super::madt::{structures, whole};
use crate::mem::addr::Hpa;

/// Types of the I/O APIC structure and of the interrupt source override structure, and their lengths.
const IO_APIC: u8 = 1;
const IO_APIC_LENGTH: usize = 12;
const OVERRIDE: u8 = 2;
const OVERRIDE_LENGTH: usize = 10;
/// The number of the ISA bus in an override, the only one that is defined.
const ISA: u8 = 0;
/// Number of interrupts on the ISA bus.
const ISA_IRQS: u8 = 16;
/// Flags of an override: the polarity is in bits 1:0, the trigger mode in bits 3:2. 0 stands for what is usual on the
/// bus, which is active high and edge on ISA, 1 for active high or edge, and 3 for active low or level. Linux takes the
/// reserved value 2 for 3, so the upper bit decides.
const ACTIVE_LOW: u8 = 1 << 1;
const LEVEL: u8 = 1 << 3;
/// Number of pins that an I/O APIC can have. 82093AA I/O APIC (290566), 3.2.2 "IOAPIC Version Register".
const MAX_PINS: u8 = 240;

/// The pin of an I/O APIC to which the line of an ISA device leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// The host-physical address of the I/O APIC's registers.
    pub registers: Hpa,
    /// The number of the pin, below 240. The I/O APIC may have fewer pins: its version register says how many.
    pub number: u8,
    /// The polarity of the line: true if it is active when low.
    pub active_low: bool,
    /// True if the line is level-triggered, false if it is edge-triggered.
    pub level: bool,
}

/// Finds the pin to which the ISA interrupt `irq` leads, in the MADT. The checksum may be wrong, as for
/// [`parse`](super::madt::parse).
///
/// Returns `None` if the table is damaged anywhere, since the part that cannot be read might lead the line elsewhere;
/// if no I/O APIC has the pin; and if the line leads nowhere, because that of another ISA interrupt has its pin.
pub fn pin(table: &[u8], irq: u8) -> Option<Pin> {
    let table = whole(table).ok()?;
    if irq >= ISA_IRQS || !structures(table).all(|structure| structure.is_some_and(|(_, s)| is_whole(s))) {
        return None;
    }
    let (gsi, flags) = match overrides(table).find(|(source, ..)| *source == irq) {
        Some((_, gsi, flags)) => (gsi, flags),
        // As in Linux. On PCs this is so for IRQ 2, at whose pin the timer is.
        None if overrides(table).any(|(_, gsi, _)| gsi == u32::from(irq)) => return None,
        None => (irq.into(), 0),
    };
    let (base, registers) = io_apics(table).filter(|(base, _)| *base <= gsi).max_by_key(|(base, _)| *base)?;
    let number = u8::try_from(gsi - base).ok().filter(|number| *number < MAX_PINS)?;
    Some(Pin { registers, number, active_low: flags & ACTIVE_LOW != 0, level: flags & LEVEL != 0 })
}

/// Returns false if the structure is one of the two kinds and too short for it.
const fn is_whole(structure: &[u8]) -> bool {
    match structure[0] {
        IO_APIC => structure.len() >= IO_APIC_LENGTH,
        OVERRIDE => structure.len() >= OVERRIDE_LENGTH,
        _ => true,
    }
}

/// Returns the GSI of pin 0 and the address of the registers of each I/O APIC.
fn io_apics(table: &[u8]) -> impl Iterator<Item = (u32, Hpa)> {
    structures(table).flatten().filter_map(|(_, structure)| match structure {
        [IO_APIC, _, _, _, a, b, c, d, e, f, g, h, ..] => {
            let registers = Hpa(u32::from_le_bytes([*a, *b, *c, *d]).into());
            Some((u32::from_le_bytes([*e, *f, *g, *h]), registers))
        }
        _ => None,
    })
}

/// Returns the number of the interrupt, the GSI and the flags of each override.
fn overrides(table: &[u8]) -> impl Iterator<Item = (u8, u32, u8)> {
    structures(table).flatten().filter_map(|(_, structure)| match structure {
        [OVERRIDE, _, ISA, irq, a, b, c, d, flags, _, ..] => {
            Some((*irq, u32::from_le_bytes([*a, *b, *c, *d]), *flags))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::madt::tests::table;
    use super::*;

    const CPU: &[u8] = &[0, 8, 1, 0, 1, 0, 0, 0];
    /// At 0xfec00000 from GSI 0 on, and at 0xfec01000 from GSI 24 on.
    const FIRST: &[u8] = &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0];
    const SECOND: &[u8] = &[1, 12, 1, 0, 0, 0x10, 0xc0, 0xfe, 24, 0, 0, 0];
    /// The timer's line leads to GSI 2, as in every PC.
    const TIMER: &[u8] = &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0];

    fn moved(irq: u8, gsi: u8, flags: u8) -> [u8; 10] {
        [2, 10, 0, irq, gsi, 0, 0, 0, flags, 0]
    }

    fn at_first(number: u8) -> Pin {
        Pin { registers: Hpa(0xfec0_0000), number, active_low: false, level: false }
    }

    #[test]
    fn line_leads_to_the_gsi_of_its_number_by_default() {
        let table = table(&[CPU, FIRST, TIMER]);
        assert_eq!(pin(&table, 3), Some(at_first(3)));
        assert_eq!(pin(&table, 15), Some(at_first(15)));
        assert_eq!(pin(&table, 16), None, "ISA has 16 interrupts");
    }

    #[test]
    fn override_leads_a_line_elsewhere() {
        const OF_ANOTHER_BUS: &[u8] = &[2, 10, 1, 3, 20, 0, 0, 0, 0, 0];
        let table = table(&[TIMER, &moved(4, 20, 0b1111), CPU, FIRST, OF_ANOTHER_BUS]);
        assert_eq!(pin(&table, 0), Some(at_first(2)));
        assert_eq!(pin(&table, 4), Some(Pin { active_low: true, level: true, ..at_first(20) }));
        assert_eq!(pin(&table, 3), Some(at_first(3)));
    }

    #[test]
    fn line_whose_pin_another_has_leads_nowhere() {
        let table = table(&[FIRST, TIMER, &moved(5, 3, 0), &moved(3, 5, 0)]);
        assert_eq!(pin(&table, 2), None);
        assert_eq!(
            (pin(&table, 3), pin(&table, 5)),
            (Some(at_first(5)), Some(at_first(3))),
            "these have changed places"
        );
    }

    #[test]
    fn flags_say_polarity_and_trigger_mode() {
        for (flags, active_low, level) in [
            (0b0000, false, false),
            (0b0101, false, false),
            (0b1101, false, true),
            (0b0111, true, false),
            (0b1010, true, true),
        ] {
            let table = table(&[FIRST, &moved(9, 9, flags)]);
            assert_eq!(pin(&table, 9), Some(Pin { active_low, level, ..at_first(9) }), "{flags:#06b}");
        }
    }

    #[test]
    fn pin_is_of_the_io_apic_with_the_next_lower_base() {
        for io_apics in [[FIRST, SECOND], [SECOND, FIRST]] {
            let find = |gsi| pin(&table(&[io_apics[0], io_apics[1], &moved(4, gsi, 0)]), 4).unwrap();
            assert_eq!(find(23), at_first(23));
            assert_eq!(find(24), Pin { registers: Hpa(0xfec0_1000), ..at_first(0) });
            assert_eq!(find(255), Pin { registers: Hpa(0xfec0_1000), ..at_first(231) });
        }
    }

    #[test]
    fn pin_that_no_io_apic_has_is_not_found() {
        assert_eq!(pin(&table(&[CPU, TIMER]), 3), None, "there is no I/O APIC");
        assert_eq!(pin(&table(&[CPU, SECOND]), 3), None, "the only one begins above");
        assert_eq!(pin(&table(&[FIRST, &moved(3, 239, 0)]), 3), Some(at_first(239)));
        assert_eq!(pin(&table(&[FIRST, &moved(3, 240, 0)]), 3), None);
        assert_eq!(pin(&table(&[FIRST, &[2, 10, 0, 3, 3, 1, 0, 0, 0, 0]]), 3), None, "the distance is 259");
    }

    #[test]
    fn damaged_table_tells_no_pin() {
        let good = table(&[CPU, FIRST]);
        for size in 0..good.len() {
            assert_eq!(pin(&good[..size], 3), None, "{size} bytes");
        }
        let mut other = good;
        other[0] = b'F';
        assert_eq!(pin(&other, 3), None, "another table");
        for broken in [
            &[0x80, 0][..],
            &[0x80, 1],
            &[0x80, 4, 0],
            &[1, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[2, 9, 0, 7, 3, 0, 0, 0, 0],
        ] {
            assert_eq!(pin(&table(&[FIRST, broken]), 3), None, "{broken:?}");
        }
    }

    #[test]
    fn checksum_may_be_wrong() {
        let mut table = table(&[FIRST]);
        table[20] ^= 1;
        assert_eq!(pin(&table, 3), Some(at_first(3)));
    }
}
