//! Finding an ACPI table from the root pointer. ACPI Specification 6.5, 5.2.7 "Root System Description Table (RSDT)" and
//! 5.2.8 "Extended System Description Table (XSDT)".

use core::ops::Range;

use super::madt::HEADER;
use crate::mem::addr::Hpa;

/// Bytes of a table that Vidar believes in.
const PLAUSIBLE: u32 = 1 << 20;

/// Where the table with this signature is. `rsdp` are the root pointer's bytes, and `read` fills a buffer from memory, or
/// says that nothing can be read there.
pub fn find(rsdp: &[u8], signature: [u8; 4], read: impl Fn(Hpa, &mut [u8]) -> bool) -> Option<Range<Hpa>> {
    let old = || rsdp.get(16..20).map(|bytes| (number(bytes), 4));
    let new = || rsdp.get(24..32).map(|bytes| (number(bytes), 8)).filter(|(address, _)| *address != 0);
    let (root, width) =
        if rsdp.get(15).is_some_and(|revision| *revision >= 2) { new().or_else(old) } else { old() }?;
    let root = table(Hpa(root), &read)?.1;
    (root.start.0 + HEADER as u64..root.end.0).step_by(width).find_map(|at| {
        let mut pointer = [0; 8];
        let entry = pointer.get_mut(..width)?;
        if at + width as u64 > root.end.0 || !read(Hpa(at), entry) {
            return None;
        }
        table(Hpa(u64::from_le_bytes(pointer)), &read)
            .filter(|(name, _)| *name == signature)
            .map(|(_, range)| range)
    })
}

/// Signature and extent of the table at `at`.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn put(memory: &mut [u8], at: usize, signature: &[u8; 4], content: &[u8]) {
        memory[at..at + 4].copy_from_slice(signature);
        memory[at + 4..at + 8].copy_from_slice(&((HEADER + content.len()) as u32).to_le_bytes());
        memory[at + HEADER..at + HEADER + content.len()].copy_from_slice(content);
    }

    fn look(memory: &[u8], rsdp: &[u8], signature: &[u8; 4]) -> Option<Range<Hpa>> {
        find(rsdp, *signature, |from, to| {
            let Some(bytes) = memory.get(from.0 as usize..).and_then(|rest| rest.get(..to.len())) else {
                return false;
            };
            to.copy_from_slice(bytes);
            true
        })
    }

    #[test]
    fn through_either_root() {
        let mut memory = vec![0; 0x1000];
        put(&mut memory, 0x100, b"RSDT", &[0x00, 3, 0, 0, 0x00, 4, 0, 0]);
        put(&mut memory, 0x200, b"XSDT", &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x00, 4, 0, 0, 0, 0, 0, 0]);
        put(&mut memory, 0x300, b"FACP", &[0; 8]);
        put(&mut memory, 0x400, b"APIC", &[0; 8]);
        let mut rsdp = [0u8; 36];
        rsdp[17] = 1;
        assert_eq!(look(&memory, &rsdp[..20], b"APIC"), Some(Hpa(0x400)..Hpa(0x42c)));
        rsdp[15] = 2;
        assert_eq!(look(&memory, &rsdp, b"APIC"), Some(Hpa(0x400)..Hpa(0x42c)), "no new root: the old one");
        rsdp[25] = 2;
        assert_eq!(
            look(&memory, &rsdp, b"APIC"),
            Some(Hpa(0x400)..Hpa(0x42c)),
            "behind an entry that leads nowhere"
        );
        assert_eq!(look(&memory, &rsdp, b"FACP"), None);
        assert_eq!(look(&memory, &[], b"APIC"), None);
    }
}
