//! Multiboot2 boot information as a loader builds it, for several tests.

/// Returns boot information with `tags`, each a type and what follows the header of the tag. Multiboot2 Specification
/// 2.0, 3.6 "Boot information".
pub fn information(tags: &[(u32, Vec<u8>)]) -> Vec<u64> {
    let mut bytes = vec![0; 8];
    for (kind, payload) in tags.iter().chain([&(0, Vec::new())]) {
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&(payload.len() as u32 + 8).to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let size = bytes.len() as u32;
    bytes[..4].copy_from_slice(&size.to_le_bytes());
    bytes.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect()
}
