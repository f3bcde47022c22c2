//! Taking the right to write from pages of the second stage, and giving it back.

use core::ops::Range;

use super::addr::{Gpa, Hpa, PageSize};
use super::level::{ENTRIES, Level};
use super::locks::Part;
use super::stage2::{Format, MapError, PageAccess, REACH, SecondStage, Table, TableMemory};

impl<F: Format> SecondStage<F> {
    /// Takes the right to write from every page that `part` calls locked, whatever guest-physical addresses it has, and
    /// divides each that is locked in part. Addresses are translated as before, and no table is freed, so CPUs may use
    /// the tables meanwhile. A CPU may write there until it has flushed what it has cached. Returns the number of new
    /// tables.
    ///
    /// # Errors
    /// [`MapError::OutOfTables`] if no frame is left to divide a page. No right has been taken then.
    pub fn lock(
        &mut self,
        memory: &mut impl TableMemory,
        part: &impl Fn(Range<Hpa>) -> Part,
    ) -> Result<usize, MapError> {
        let divided = self.divide_table(memory, self.root, Level::Pml4, part)?;
        self.lock_table(memory, self.root, Level::Pml4, part);
        Ok(divided)
    }

    /// Divides the pages below `table` that are locked in part, and returns their number.
    fn divide_table(
        &self,
        memory: &mut impl TableMemory,
        table: Table,
        level: Level,
        part: &impl Fn(Range<Hpa>) -> Part,
    ) -> Result<usize, MapError> {
        let mut count = 0;
        for index in 0..ENTRIES {
            let entry = memory.read(table, index);
            let Some(below) = level.below().filter(|_| F::is_present(entry)) else { continue };
            let Some((page, size)) = Self::page(entry, level) else {
                count +=
                    self.next(entry).map_or(Ok(0), |next| self.divide_table(memory, next, below, part))?;
                continue;
            };
            if part(page..page + size.bytes()) == Part::Some {
                let divided = Self::divide(memory, entry, level, size).ok_or(MapError::OutOfTables)?;
                memory.write(table, index, F::table(divided.address()));
                count += 1 + self.divide_table(memory, divided, below, part)?;
            }
        }
        Ok(count)
    }

    /// Takes the right to write from the locked pages below `table`.
    fn lock_table(
        &self,
        memory: &mut impl TableMemory,
        table: Table,
        level: Level,
        part: &impl Fn(Range<Hpa>) -> Part,
    ) {
        for index in 0..ENTRIES {
            let entry = memory.read(table, index);
            if !F::is_present(entry) {
                continue;
            }
            if let Some((page, size)) = Self::page(entry, level) {
                let access = F::access(entry);
                if access.contains(PageAccess::WRITE)
                    && matches!(part(page..page + size.bytes()), Part::All(_))
                {
                    let memory_type = F::memory_type(entry, size);
                    memory.write(table, index, F::leaf(page, size, memory_type, access - PageAccess::WRITE));
                }
            } else if let (Some(next), Some(below)) = (self.next(entry), level.below()) {
                self.lock_table(memory, next, below, part);
            }
        }
    }

    /// Returns the address and the size of the page that a present entry of a table of `level` maps; `None` if it
    /// points to a table.
    fn page(entry: u64, level: Level) -> Option<(Hpa, PageSize)> {
        let size = level.page_size().filter(|_| F::is_leaf(entry, level))?;
        Some((F::address(entry).align_down(size.bytes()), size))
    }

    /// Returns the table to which an entry points; `None` for one that translates every address to the same page.
    fn next(&self, entry: u64) -> Option<Table> {
        Some(Table::at(F::address(entry))).filter(|table| !self.fills(*table))
    }

    /// Returns the accesses that are allowed at `gpa`; `None` if nothing is mapped.
    pub fn access(&self, memory: &impl TableMemory, gpa: Gpa) -> Option<PageAccess> {
        self.leaf(memory, gpa).map(|(_, _, entry, _)| F::access(entry))
    }

    /// Gives the guest the right to write to the page around `gpa`, whatever its size. Does nothing if none is mapped.
    pub fn allow_write(&mut self, memory: &mut impl TableMemory, gpa: Gpa) {
        if let Some((table, index, entry, size)) = self.leaf(memory, gpa) {
            let page = F::address(entry).align_down(size.bytes());
            let access = F::access(entry) | PageAccess::WRITE;
            memory.write(table, index, F::leaf(page, size, F::memory_type(entry, size), access));
        }
    }

    /// Returns the entry that maps `gpa`, with its table, its index and the size of the page; `None` if nothing is
    /// mapped.
    pub(super) fn leaf(&self, memory: &impl TableMemory, gpa: Gpa) -> Option<(Table, usize, u64, PageSize)> {
        if gpa.0 >= REACH {
            return None;
        }
        let (mut table, mut level) = (self.root, Level::Pml4);
        loop {
            let index = level.index(gpa);
            let entry = memory.read(table, index);
            if !F::is_present(entry) {
                return None;
            }
            if F::is_leaf(entry, level) {
                return Some((table, index, entry, level.page_size()?));
            }
            table = Table::at(F::address(entry));
            level = level.below()?;
        }
    }
}
