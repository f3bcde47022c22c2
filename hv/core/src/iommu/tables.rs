//! The tables that the units translate by: the root table, one context table for all buses and devices, and the second
//! level, which maps every address to itself except for holes. VT-d specification, 9.1 "Root Entry", 9.3 "Context
//! Entry" and 9.8 "Second-Stage Paging Entries".

use super::plan::{Obstacle, Plan};
use crate::mem::addr::{Gpa, Hpa, PageSize};
use crate::mem::identity::Identity;
use crate::mem::locks::Locks;
use crate::mem::moved::MovedPages;
use crate::mem::mtrr::{MemoryType, Mtrrs};
use crate::mem::ranges::RangeSet;
use crate::mem::stage2::{Format, Level, PageAccess, SecondStage, TableMemory, page_of_pairs};

/// Bit of root and context entries: the entry is present.
const PRESENT: u64 = 1;
/// Bits of entries of the second level: reads, writes, and that an entry above the last level maps a page.
const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
/// Bits of an address in an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The upper half of a context entry: the domain, any number but 0, and the number of levels. The lower half has a
/// translation type of 0, so that the unit translates untranslated requests and refuses all others.
const DOMAIN: u64 = 1 << 8;
const THREE_LEVELS: u64 = 1;
const FOUR_LEVELS: u64 = 2;

/// The encoding of entries of the second level.
#[derive(Debug, Clone, Copy)]
pub struct SecondLevel;

impl Format for SecondLevel {
    fn table(table: Hpa) -> u64 {
        table.0 | READ | WRITE
    }

    fn leaf(page: Hpa, size: PageSize, _: MemoryType, access: PageAccess) -> u64 {
        let write = if access.contains(PageAccess::WRITE) { WRITE } else { 0 };
        page.0 | READ | write | if size == PageSize::Size4K { 0 } else { LARGE }
    }

    fn is_present(entry: u64) -> bool {
        entry & (READ | WRITE) != 0
    }

    fn is_leaf(entry: u64, level: Level) -> bool {
        level == Level::Pt || entry & LARGE != 0
    }

    fn address(entry: u64) -> Hpa {
        Hpa(entry & ADDRESS)
    }

    /// Devices use the memory types of the memory itself.
    fn memory_type(_: u64, _: PageSize) -> MemoryType {
        MemoryType::WriteBack
    }

    fn access(entry: u64) -> PageAccess {
        if entry & WRITE != 0 { PageAccess::all() } else { PageAccess::all() - PageAccess::WRITE }
    }
}

/// Builds the tables: devices reach all addresses up to the end in `plan`, except for `holes`. They find moved pages
/// where the guest finds them. Returns the address of the root table.
///
/// # Errors
/// [`Obstacle::NoMemory`] if `memory` has too few frames.
pub fn build(
    memory: &mut impl TableMemory,
    plan: &Plan,
    holes: RangeSet,
    moved: Option<MovedPages>,
) -> Result<Hpa, Obstacle> {
    let second_level = second_level(memory, plan, holes, moved)?;
    let (root, levels) = if plan.four_levels {
        (second_level.root(), FOUR_LEVELS)
    } else {
        (second_level.first_below_root(memory).ok_or(Obstacle::NoMemory)?, THREE_LEVELS)
    };
    let pages = [root.0 | PRESENT, DOMAIN | levels];
    let context = page_of_pairs(memory, pages).ok_or(Obstacle::NoMemory)?;
    page_of_pairs(memory, [context.0 | PRESENT, 0]).ok_or(Obstacle::NoMemory)
}

fn second_level(
    memory: &mut impl TableMemory,
    plan: &Plan,
    holes: RangeSet,
    moved: Option<MovedPages>,
) -> Result<SecondStage<SecondLevel>, Obstacle> {
    let mut tables = SecondStage::new(memory, plan.largest).map_err(|_| Obstacle::NoMemory)?;
    let map = Identity {
        mtrrs: Mtrrs::write_back(),
        hidden: holes,
        watched: None,
        moved,
        alias: 0,
        locks: Locks::default(),
    };
    map.map_range(&mut tables, memory, Gpa(0)..plan.end.identity()).map_err(|_| Obstacle::NoMemory)?;
    Ok(tables)
}
