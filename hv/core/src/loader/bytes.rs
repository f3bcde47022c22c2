//! Little-endian numbers in byte slices that may be too short.

/// Returns the little-endian number at `offset`, or `None` if it does not lie inside `bytes`.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

/// Returns the little-endian number at `offset`, or `None` if it does not lie inside `bytes`.
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}
