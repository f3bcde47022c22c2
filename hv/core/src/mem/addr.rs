//! Addresses as types, so that host-physical, guest-physical and host-virtual addresses cannot be confused.

use core::fmt;
use core::ops::{Add, Range};

/// Size of a 4 KiB page in bytes.
pub const PAGE_SIZE: u64 = 4096;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Returns the address rounded down to a multiple of `align`, a power of two.
            pub const fn align_down(self, align: u64) -> Self {
                Self(self.0 & !(align - 1))
            }

            /// Returns the address rounded up to a multiple of `align`, a power of two; `None` if that is beyond the
            /// 64-bit space.
            pub const fn align_up(self, align: u64) -> Option<Self> {
                match self.0.checked_add(align - 1) {
                    Some(sum) => Some(Self(sum & !(align - 1))),
                    None => None,
                }
            }

            /// Returns true if the address is a multiple of `align`, a power of two.
            pub const fn is_aligned(self, align: u64) -> bool {
                self.0 & (align - 1) == 0
            }
        }

        impl Add<u64> for $name {
            type Output = Self;
            fn add(self, offset: u64) -> Self {
                Self(self.0 + offset)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A host-physical address, as it appears on the memory bus.
    Hpa
}
address! {
    /// A guest-physical address. The second stage maps it to the [`Hpa`] with the same number, unless that memory is
    /// hidden or moved.
    Gpa
}
address! {
    /// A host-virtual address: a pointer in Vidar's own address space.
    Hva
}

impl Gpa {
    /// Returns the host-physical address with the same number. The second stage maps the address there, unless that
    /// memory is hidden or moved.
    pub const fn identity(self) -> Hpa {
        Hpa(self.0)
    }
}

impl Hpa {
    /// Returns the guest-physical address with the same number. The second stage maps that address here, unless this
    /// memory is hidden or moved.
    pub const fn identity(self) -> Gpa {
        Gpa(self.0)
    }
}

/// Returns true if two half-open ranges have an address in common. An empty range has none.
pub fn overlaps<T: Ord>(a: &Range<T>, b: &Range<T>) -> bool {
    a.start < b.end && b.start < a.end && a.start < a.end && b.start < b.end
}

/// The page sizes of all paging structures that Vidar writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageSize {
    /// 4 KiB.
    Size4K,
    /// 2 MiB.
    Size2M,
    /// 1 GiB.
    Size1G,
}

impl PageSize {
    /// All sizes from the largest to the smallest.
    pub const DESCENDING: [Self; 3] = [Self::Size1G, Self::Size2M, Self::Size4K];

    /// Returns the size in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// Returns the number of low address bits that select a byte in the page.
    pub const fn shift(self) -> u32 {
        match self {
            Self::Size4K => 12,
            Self::Size2M => 21,
            Self::Size1G => 30,
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size4K => "4 KiB",
            Self::Size2M => "2 MiB",
            Self::Size1G => "1 GiB",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_rounded_to_multiples() {
        assert_eq!(Hpa(0x1234).align_down(PAGE_SIZE), Hpa(0x1000));
        assert_eq!(Hpa(0x1234).align_up(PAGE_SIZE), Some(Hpa(0x2000)));
        assert_eq!(Hpa(0x1000).align_up(PAGE_SIZE), Some(Hpa(0x1000)));
        assert_eq!(Hpa(u64::MAX).align_up(PAGE_SIZE), None);
        assert!(Hpa(0x20_0000).is_aligned(PageSize::Size2M.bytes()));
    }

    #[test]
    fn empty_ranges_overlap_nothing() {
        assert!(overlaps(&(0..2), &(1..3)));
        assert!(!overlaps(&(0..2), &(2..3)));
        assert!(!overlaps(&(1..1), &(0..3)));
    }
}
