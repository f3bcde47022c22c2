//! Tables that take the place of the firmware's: GRUB's command `acpi` has the system find them.

/// The boot CPU, as a structure of the MADT.
pub const CPU_0: &[u8] = &[0, 8, 0, 0, 1, 0, 0, 0];

/// Returns the list of CPUs and interrupt controllers, with these structures; its checksum is wrong unless it is to be
/// good. ACPI Specification 6.5, 5.2.12 "Multiple APIC Description Table (MADT)".
pub fn madt(revision: u8, structures: &[&[u8]], good: bool) -> Vec<u8> {
    // Where the local APICs are, and no flags.
    let mut body = vec![0, 0, 0xe0, 0xfe, 0, 0, 0, 0];
    structures.iter().for_each(|structure| body.extend_from_slice(structure));
    let mut table = table(b"APIC", revision, &body);
    table[CHECKSUM] = table[CHECKSUM].wrapping_add(u8::from(!good));
    table
}

/// Returns the registers of a PC of QEMU's, as a table of ACPI 6.3: QEMU's own is one of ACPI 1.0. GRUB adds where the
/// DSDT and the FACS are. ACPI Specification 6.5, 5.2.9 "Fixed ACPI Description Table (FADT)".
pub fn fadt() -> Vec<u8> {
    /// Offsets in the table, and what is there.
    const FIELDS: &[(usize, &[u8])] = &[
        (46, &[9]),                       // SCI_INT
        (48, &0xb2_u32.to_le_bytes()),    // SMI_CMD
        (52, &[0xf1, 0xf0]),              // ACPI_ENABLE and ACPI_DISABLE
        (56, &0x600_u32.to_le_bytes()),   // PM1a_EVT_BLK
        (64, &0x604_u32.to_le_bytes()),   // PM1a_CNT_BLK
        (76, &0x608_u32.to_le_bytes()),   // PM_TMR_BLK
        (80, &0xafe0_u32.to_le_bytes()),  // GPE0_BLK
        (88, &[4, 2, 0, 4, 4]),           // their lengths, from PM1_EVT_LEN on
        (96, &[0xff, 0x0f, 0xff, 0x0f]),  // P_LVL2_LAT and P_LVL3_LAT: neither is there
        (108, &[0x32]),                   // CENTURY
        (109, &[3, 0]),                   // IAPC_BOOT_ARCH: legacy devices, and the 8042
        (112, &0x80a5_u32.to_le_bytes()), // flags
        (131, &[3]),                      // FADT minor version
    ];
    let mut body = [0; 276 - HEADER];
    for (offset, bytes) in FIELDS {
        body[offset - HEADER..][..bytes.len()].copy_from_slice(bytes);
    }
    table(b"FACP", 6, &body)
}

/// Bytes of the header, and where its checksum is. ACPI Specification 6.5, 5.2.6 "System Description Table Header".
const HEADER: usize = 36;
const CHECKSUM: usize = 9;

fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u32;
    let mut table = [&signature[..], &length.to_le_bytes(), &[revision, 0]].concat();
    table.extend_from_slice(b"VIDAR VIDAR   \x01\0\0\0VDR \x01\0\0\0");
    table.extend_from_slice(body);
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[CHECKSUM] = sum.wrapping_neg();
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(table: &[u8]) -> u8 {
        table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn a_table_adds_up_or_not() {
        let good = madt(3, &[CPU_0, CPU_0], true);
        assert_eq!((good.len(), sum(&good), &good[36..40]), (60, 0, &[0, 0, 0xe0, 0xfe][..]));
        assert_eq!((&good[..4], &good[4..9]), (&b"APIC"[..], &[60, 0, 0, 0, 3][..]));
        assert_eq!(sum(&madt(5, &[CPU_0], false)), 1);
    }

    #[test]
    fn the_registers_are_those_of_a_later_acpi() {
        let fadt = fadt();
        assert_eq!((fadt.len(), sum(&fadt), fadt[8], fadt[131]), (276, 0, 6, 3));
        assert_eq!((&fadt[76..80], &fadt[88..93]), (&0x608_u32.to_le_bytes()[..], &[4, 2, 0, 4, 4][..]));
    }
}
