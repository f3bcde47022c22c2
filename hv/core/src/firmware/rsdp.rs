//! The ACPI root pointer (RSDP): the boot loader hands over a copy, and the guest must find the original.

use core::ops::Range;

use crate::mem::addr::Hpa;

/// Where the BIOS of a PC keeps the RSDP. ACPI Specification 6.5, 5.2.5.1 "Finding the RSDP on IA-PC Systems".
pub const BIOS_AREA: Range<Hpa> = Hpa(0xe_0000)..Hpa(0x10_0000);

/// Returns the address of the original of `copy`: the first 16-byte boundary in `area` where the same bytes are.
/// `memory` holds the bytes of `area`. Returns `None` if there is no such place or `copy` is empty.
pub fn find(copy: &[u8], memory: &[u8], area: &Range<Hpa>) -> Option<Hpa> {
    if copy.is_empty() {
        return None;
    }
    let offset = (0..memory.len()).step_by(16).find(|at| memory[*at..].starts_with(copy))?;
    Some(area.start + offset as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rsdp_is_found_only_on_a_16_byte_boundary() {
        let mut memory = vec![0; 0x2_0000];
        memory[0x1_2340..0x1_2354].copy_from_slice(b"RSD PTR checksum etc");
        let copy = b"RSD PTR checksum etc";
        assert_eq!(find(copy, &memory, &BIOS_AREA), Some(Hpa(0xf_2340)));
        assert_eq!(find(&copy[1..], &memory, &BIOS_AREA), None, "not on a boundary");
        assert_eq!(find(&[], &memory, &BIOS_AREA), None);
    }
}
