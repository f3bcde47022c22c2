//! Memory for second-stage tables that can run out.

use std::cell::Cell;
use std::collections::BTreeMap;

use vidar_core::mem::addr::{Hpa, PAGE_SIZE};
use vidar_core::mem::level::ENTRIES;
use vidar_core::mem::stage2::{Table, TableMemory};

/// Where the tables and the decoy lie: in memory that the guest does not reach by its own address, as Vidar's is.
const FRAMES: Hpa = Hpa(1 << 40);

/// Second-stage tables with a limit on their number. Using a table that does not exist is a failure.
#[derive(Default)]
pub struct Tables {
    pub tables: BTreeMap<u64, Vec<u64>>,
    pub limit: Cell<usize>,
    next: u64,
}

impl Tables {
    pub fn with_limit(limit: usize) -> Self {
        Self { limit: Cell::new(limit), ..Self::default() }
    }
}

impl TableMemory for Tables {
    fn allocate(&mut self) -> Option<Hpa> {
        if self.tables.len() >= self.limit.get() {
            return None;
        }
        let frame = FRAMES + self.next * PAGE_SIZE;
        self.next += 1;
        self.tables.insert(frame.0, vec![0; ENTRIES]);
        Some(frame)
    }

    fn free(&mut self, table: Table) {
        assert!(self.tables.remove(&table.address().0).is_some(), "{table:?} freed twice");
    }

    fn read(&self, table: Table, index: usize) -> u64 {
        self.tables[&table.address().0][index]
    }

    fn write(&mut self, table: Table, index: usize, entry: u64) {
        self.tables.get_mut(&table.address().0).unwrap()[index] = entry;
    }
}
