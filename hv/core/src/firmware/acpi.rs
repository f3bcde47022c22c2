//! Finds ACPI tables from the root pointer, and changes them in place. ACPI Specification 6.5, 5.2.6 "System
//! Description Table Header", 5.2.7 "Root System Description Table (RSDT)" and 5.2.8 "Extended System Description Table
//! (XSDT)".

use core::ops::Range;

use crate::mem::addr::Hpa;

/// Size in bytes of the header that every table begins with.
pub const HEADER: usize = 36;
/// Offset of the checksum in the header: the byte that makes the sum of all bytes of the table 0.
pub const CHECKSUM: usize = 9;

/// Largest size in bytes of a table that Vidar takes for one.
const PLAUSIBLE: u32 = 16 << 20;

/// A table at its place in memory.
pub trait Table {
    /// Returns all bytes of the table.
    fn bytes(&self) -> &[u8];

    /// Writes `byte` at offset `at`. Returns true if the table holds it afterwards, and false if the table is in ROM.
    fn put(&mut self, at: usize, byte: u8) -> bool;
}

/// The error for a table that cannot be changed, because it is in ROM or too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOnly;

/// Changes the byte at offset `at` to `to`, and adapts the checksum.
///
/// # Errors
/// [`ReadOnly`] if a byte could not be written, or lies beyond the end of the table.
pub fn amend(table: &mut impl Table, at: usize, to: u8) -> Result<(), ReadOnly> {
    let byte = |at: usize| table.bytes().get(at).copied().ok_or(ReadOnly);
    let (before, checksum) = (byte(at)?, byte(CHECKSUM)?);
    let both = table.put(at, to) && table.put(CHECKSUM, checksum.wrapping_add(before.wrapping_sub(to)));
    if both { Ok(()) } else { Err(ReadOnly) }
}

/// Returns where the tables with this signature lie. `rsdp` holds the bytes of the root pointer. `read` fills a buffer
/// from memory and returns true, or returns false if nothing can be read there.
pub fn find(
    rsdp: &[u8],
    signature: [u8; 4],
    read: impl Fn(Hpa, &mut [u8]) -> bool,
) -> impl Iterator<Item = Range<Hpa>> {
    let (root, width) = root(rsdp, &read).unwrap_or((Hpa(0)..Hpa(0), 4));
    (root.start.0 + HEADER as u64..root.end.0).step_by(width).filter_map(move |at| {
        let mut pointer = [0; 8];
        let entry = pointer.get_mut(..width)?;
        if root.end.0 - at < width as u64 || !read(Hpa(at), entry) {
            return None;
        }
        table(Hpa(u64::from_le_bytes(pointer)), &read)
            .filter(|(name, _)| *name == signature)
            .map(|(_, range)| range)
    })
}

/// Returns where the DSDT lies according to the bytes of the FADT; `None` if no DSDT is where they point. `read` is as
/// for [`find`]. ACPI Specification 6.5, 5.2.9 "Fixed ACPI Description Table (FADT)".
pub fn dsdt(fadt: &[u8], read: impl Fn(Hpa, &mut [u8]) -> bool) -> Option<Range<Hpa>> {
    let field = |at: Range<usize>| fadt.get(at).map(number).filter(|address| *address != 0);
    let address = field(140..148).or_else(|| field(40..44))?;
    table(Hpa(address), &read).filter(|(name, _)| name == b"DSDT").map(|(_, range)| range)
}

/// Returns where the RSDT or the XSDT lies, and the size of its entries in bytes. The XSDT is preferred if there is
/// one.
fn root(rsdp: &[u8], read: &impl Fn(Hpa, &mut [u8]) -> bool) -> Option<(Range<Hpa>, usize)> {
    let old = || rsdp.get(16..20).map(|bytes| (number(bytes), 4));
    let new = || rsdp.get(24..32).map(|bytes| (number(bytes), 8)).filter(|(address, _)| *address != 0);
    let (root, width) =
        if rsdp.get(15).is_some_and(|revision| *revision >= 2) { new().or_else(old) } else { old() }?;
    Some((table(Hpa(root), read)?.1, width))
}

/// Returns the signature and the extent of the table at `at`; `None` if its length is not plausible.
fn table(at: Hpa, read: &impl Fn(Hpa, &mut [u8]) -> bool) -> Option<([u8; 4], Range<Hpa>)> {
    let mut start = [0; 8];
    if !read(at, &mut start) {
        return None;
    }
    let [a, b, c, d, length @ ..] = start;
    let length = u32::from_le_bytes(length);
    let end = Hpa(at.0.checked_add(length.into())?);
    (HEADER as u32..=PLAUSIBLE).contains(&length).then_some(([a, b, c, d], at..end))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Tables for tests: one in RAM, and one in ROM.
#[cfg(test)]
mod fakes {
    use alloc::vec::Vec;

    use super::Table;

    impl Table for Vec<u8> {
        fn bytes(&self) -> &[u8] {
            self
        }

        fn put(&mut self, at: usize, byte: u8) -> bool {
            self[at] = byte;
            true
        }
    }

    /// A table in ROM: writes do not change it.
    #[derive(Debug)]
    pub struct Rom(pub Vec<u8>);

    impl Table for Rom {
        fn bytes(&self) -> &[u8] {
            &self.0
        }

        fn put(&mut self, at: usize, byte: u8) -> bool {
            self.0[at] == byte
        }
    }
}

#[cfg(test)]
pub use fakes::Rom;

#[cfg(test)]
mod tests {
    use super::*;

    fn put(memory: &mut [u8], at: usize, signature: &[u8; 4], content: &[u8]) {
        memory[at..at + 4].copy_from_slice(signature);
        memory[at + 4..at + 8].copy_from_slice(&((HEADER + content.len()) as u32).to_le_bytes());
        memory[at + HEADER..at + HEADER + content.len()].copy_from_slice(content);
    }

    fn look(memory: &[u8], rsdp: &[u8], signature: &[u8; 4]) -> Option<Range<Hpa>> {
        find(rsdp, *signature, reader(memory)).next()
    }

    fn reader(memory: &[u8]) -> impl Fn(Hpa, &mut [u8]) -> bool {
        |from, to| {
            let Some(bytes) = memory.get(from.0 as usize..).and_then(|rest| rest.get(..to.len())) else {
                return false;
            };
            to.copy_from_slice(bytes);
            true
        }
    }

    #[test]
    fn dsdt_is_found_by_either_pointer_of_the_fadt() {
        let mut memory = vec![0; 0x1000];
        put(&mut memory, 0x100, b"DSDT", &[0; 4]);
        put(&mut memory, 0x200, b"DSDT", &[0; 8]);
        put(&mut memory, 0x300, b"SSDT", &[0; 8]);
        let mut fadt = [0; 148];
        assert_eq!(dsdt(&fadt, reader(&memory)), None);
        fadt[41] = 1;
        assert_eq!(dsdt(&fadt, reader(&memory)), Some(Hpa(0x100)..Hpa(0x128)));
        assert_eq!(
            dsdt(&fadt[..116], reader(&memory)),
            Some(Hpa(0x100)..Hpa(0x128)),
            "the FADT of ACPI 1.0 is shorter"
        );
        fadt[141] = 2;
        assert_eq!(dsdt(&fadt, reader(&memory)), Some(Hpa(0x200)..Hpa(0x22c)));
        fadt[141] = 3;
        assert_eq!(dsdt(&fadt, reader(&memory)), None, "no DSDT is there");
    }

    #[test]
    fn tables_are_found_through_rsdt_and_xsdt() {
        let mut memory = vec![0; 0x1000];
        put(&mut memory, 0x100, b"RSDT", &[0x00, 3, 0, 0, 0x00, 4, 0, 0]);
        put(&mut memory, 0x200, b"XSDT", &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x00, 4, 0, 0, 0, 0, 0, 0]);
        put(&mut memory, 0x300, b"FACP", &[0; 8]);
        put(&mut memory, 0x400, b"APIC", &[0; 8]);
        let mut rsdp = [0u8; 36];
        rsdp[17] = 1;
        assert_eq!(look(&memory, &rsdp[..20], b"APIC"), Some(Hpa(0x400)..Hpa(0x42c)));
        rsdp[15] = 2;
        assert_eq!(
            look(&memory, &rsdp, b"APIC"),
            Some(Hpa(0x400)..Hpa(0x42c)),
            "without an XSDT the RSDT is used"
        );
        rsdp[25] = 2;
        assert_eq!(
            look(&memory, &rsdp, b"APIC"),
            Some(Hpa(0x400)..Hpa(0x42c)),
            "an entry that points nowhere is skipped"
        );
        assert_eq!(look(&memory, &rsdp, b"FACP"), None);
        assert_eq!(look(&memory, &[], b"APIC"), None);
    }
}
