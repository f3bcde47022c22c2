//! Numbers at offsets of bytes that may be too short for them.

/// Returns the little-endian number at `offset`, or `None` beyond the end.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

/// Returns the little-endian number at `offset`, or `None` beyond the end.
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}
