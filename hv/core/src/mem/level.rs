//! The levels of page tables.

use super::addr::{Gpa, PageSize};

/// Number of entries in a table of any level.
pub const ENTRIES: usize = 512;

/// A level of tables, by the manuals' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// PML4, the root, whose entries only point to tables.
    Pml4,
    /// Page-directory-pointer table, with 1 GiB for each entry.
    Pdpt,
    /// Page directory, with 2 MiB for each entry.
    Pd,
    /// Page table, with 4 KiB for each entry, all of which map pages.
    Pt,
}

impl Level {
    /// Returns the index of the entry for `gpa` in a table of this level.
    pub const fn index(self, gpa: Gpa) -> usize {
        let shift = match self {
            Self::Pml4 => 39,
            Self::Pdpt => 30,
            Self::Pd => 21,
            Self::Pt => 12,
        };
        (gpa.0 >> shift) as usize % ENTRIES
    }

    /// Returns the size of the page that an entry can map; `None` for the root.
    pub const fn page_size(self) -> Option<PageSize> {
        match self {
            Self::Pml4 => None,
            Self::Pdpt => Some(PageSize::Size1G),
            Self::Pd => Some(PageSize::Size2M),
            Self::Pt => Some(PageSize::Size4K),
        }
    }

    /// Returns the level of the tables that entries can point to; `None` if they can only map pages.
    pub const fn below(self) -> Option<Self> {
        match self {
            Self::Pml4 => Some(Self::Pdpt),
            Self::Pdpt => Some(Self::Pd),
            Self::Pd => Some(Self::Pt),
            Self::Pt => None,
        }
    }
}
