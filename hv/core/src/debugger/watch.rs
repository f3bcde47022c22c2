//! What one debug register watches, and a range as such pieces.

use gdbstub::target::ext::breakpoints::WatchKind;

/// The number of bytes that the four debug registers watch together at most.
pub const MOST_BYTES: u64 = 32;

/// What a debug register watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// The linear address.
    pub address: u64,
    /// The size in bytes: 1, 2, 4 or 8, to which the address is aligned. It is 1 for instructions.
    pub size: u64,
    /// The accesses, or `None` for the execution of an instruction.
    pub kind: Option<WatchKind>,
}

impl Watch {
    /// Returns bits 3:0 of the field of DR7 for this watch: R/W, and LEN. Intel SDM Vol. 3B, 18.2.4 "Debug Control
    /// Register (DR7)". No CPU watches reads alone.
    pub const fn control(&self) -> u64 {
        let access = match self.kind {
            None => 0b00,
            Some(WatchKind::Write) => 0b01,
            Some(WatchKind::Read | WatchKind::ReadWrite) => 0b11,
        };
        let length = match self.size {
            2 => 0b01,
            4 => 0b11,
            8 => 0b10,
            _ => 0b00,
        };
        length << 2 | access
    }
}

/// Returns the address and the size of each aligned piece of a range.
pub fn pieces(address: u64, size: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = address.saturating_add(size);
    let mut at = address;
    core::iter::from_fn(move || {
        let fits = |size: &u64| at.is_multiple_of(*size) && end - at >= *size;
        let size = [8, 4, 2, 1].into_iter().find(fits).filter(|_| at < end)?;
        let piece = (at, size);
        at += size;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_cover_the_range_and_are_aligned(address in any::<u64>(), size in 0u64..40) {
            let mut at = address;
            for (start, size) in pieces(address, size) {
                prop_assert_eq!(start, at);
                prop_assert!(start % size == 0);
                at += size;
            }
            prop_assert_eq!(at, address.saturating_add(size));
        }
    }
}
