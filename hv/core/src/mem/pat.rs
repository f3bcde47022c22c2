//! The page-attribute table (PAT): the memory types that page-table entries select while Vidar runs. Intel SDM Vol. 3A,
//! 12.12 "Page Attribute Table (PAT)"; AMD APM Vol. 2, 7.8 "Page-Attribute Table Mechanism".

use super::mtrr::MemoryType;

/// The memory types by index. The first four are those after reset, so that page tables which use only these mean the
/// same before this PAT is loaded. Vidar does not use UC-, which is `None` here.
const TYPES: [Option<MemoryType>; 8] = [
    Some(MemoryType::WriteBack),
    Some(MemoryType::WriteThrough),
    None,
    Some(MemoryType::Uncacheable),
    Some(MemoryType::WriteCombining),
    Some(MemoryType::WriteProtected),
    None,
    None,
];

/// The value of IA32_PAT while Vidar runs.
pub const HOST_PAT: u64 = {
    const UNCACHED_MINUS: u8 = 7;
    let mut pat = [UNCACHED_MINUS; 8];
    let mut index = 0;
    while index < pat.len() {
        if let Some(memory_type) = TYPES[index] {
            pat[index] = memory_type as u8;
        }
        index += 1;
    }
    u64::from_le_bytes(pat)
};

/// The PAT after reset begins with WB, WT, UC-, UC.
const _: () = assert!(HOST_PAT as u32 == 0x0007_0406);

/// Returns true if each byte of `pat` is a memory type that the MSR takes: 0, 1, or 4 to 7.
#[cold]
#[inline(never)] // the rules of both extensions use it
pub fn is_valid(pat: u64) -> bool {
    // Bits 7:3 of a byte must be 0, and bit 1 may be 1 only if bit 2 is.
    const RESERVED: u64 = 0xf8f8_f8f8_f8f8_f8f8;
    const BIT_1: u64 = 0x0202_0202_0202_0202;
    pat & RESERVED == 0 && pat & BIT_1 & !(pat >> 1) == 0
}

/// Returns the index of `memory_type` in the PAT.
pub fn index(memory_type: MemoryType) -> u64 {
    TYPES.iter().position(|entry| *entry == Some(memory_type)).unwrap_or(0) as u64
}

/// Returns the memory type at `index`; UC for UC- and for indices that the PAT does not have.
pub fn memory_type(index: u64) -> MemoryType {
    TYPES.get(index as usize).copied().flatten().unwrap_or(MemoryType::Uncacheable)
}

/// Returns true if Vidar can run with this PAT: RAM and the local APIC's page get their types. The framebuffer may get
/// another type, which only makes it slower.
pub const fn serves(pat: u64) -> bool {
    let types = pat.to_le_bytes();
    types[0] == MemoryType::WriteBack as u8 && types[3] == MemoryType::Uncacheable as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pat_must_have_write_back_and_uncacheable_in_place() {
        assert!(serves(HOST_PAT));
        assert!(serves(0x0007_0406_0007_0406), "after reset");
        assert!(serves(0x0407_0506_0007_0106), "the PAT of Linux");
        assert!(!serves(0x0007_0406_0007_0400), "memory would be uncacheable");
        assert!(!serves(0x0007_0406_0607_0406), "the APIC would be cached");
    }

    #[test]
    fn a_pat_is_valid_if_each_byte_is_a_memory_type() {
        for byte in 0..=u8::MAX {
            for shift in (0..64).step_by(8) {
                let pat = u64::from(byte) << shift;
                assert_eq!(is_valid(pat), matches!(byte, 0 | 1 | 4..=7), "{pat:#x}");
            }
        }
        assert!(is_valid(HOST_PAT) && is_valid(0x0705_0600_0401_0007));
    }

    #[test]
    fn types_and_indices_convert_to_each_other() {
        assert_eq!(HOST_PAT, 0x0707_0501_0007_0406);
        for (index_of, entry) in TYPES.iter().enumerate() {
            if let Some(entry) = entry {
                assert_eq!((index(*entry), memory_type(index_of as u64)), (index_of as u64, *entry));
            }
        }
        assert_eq!(memory_type(2), MemoryType::Uncacheable);
    }
}
