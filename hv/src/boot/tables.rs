//! Firmware's ACPI tables, as Vidar reaches them: by the direct map, where that covers them.

#![expect(unsafe_code, reason = "firmware's tables are read and changed by their addresses")]

use alloc::vec::Vec;
use core::ops::Range;

use super::acpi;
use super::info::BootInfo;
use crate::mem::addr::Hpa;
use crate::mem::host;
use crate::mem::physical;
use crate::mem::ranges::RangeSet;

/// The tables of this machine.
#[derive(Debug)]
pub struct Tables<'a> {
    rsdp: &'a [u8],
    reachable: RangeSet,
}

impl<'a> Tables<'a> {
    /// Those that the root pointer of `info` leads to.
    pub fn new(info: &'a BootInfo) -> Self {
        let rsdp = info.rsdp.as_deref().unwrap_or_default();
        Self { rsdp, reachable: host::in_direct_map(&info.memory) }
    }

    /// Where the tables with this signature are.
    pub fn find(&self, signature: [u8; 4]) -> Vec<Range<Hpa>> {
        let mut found = acpi::find(self.rsdp, signature, |from, to| self.read(from, to));
        found.retain(|table| self.reachable.covers(table));
        found
    }

    /// Where the DSDT is, and every SSDT: the tables with code in them.
    pub fn with_code(&self) -> Vec<Range<Hpa>> {
        let read = |from, to: &mut [u8]| self.read(from, to);
        let dsdt = self.find(*b"FACP").first().and_then(|fadt| acpi::dsdt(&self.bytes(fadt), read));
        let mut tables = self.find(*b"SSDT");
        tables.extend(dsdt.filter(|table| self.reachable.covers(table)));
        tables
    }

    /// The bytes of one of them.
    pub fn bytes(&self, table: &Range<Hpa>) -> Vec<u8> {
        assert!(self.reachable.covers(table), "a table that was not found here");
        // SAFETY: the table is in the direct map, and firmware's tables do not change.
        unsafe { physical::bytes(table) }.to_vec()
    }

    /// Puts `bytes` in the place of one of them; whether they are there then, and it was no ROM.
    pub fn replace(&self, table: &Range<Hpa>, bytes: &[u8]) -> bool {
        assert!(bytes.len() as u64 == table.end.0 - table.start.0, "a table keeps its length");
        if self.reachable.covers(table) {
            // SAFETY: the table is in memory that the guest is to find it in, and nothing else reads it now.
            unsafe { physical::write(table.start, bytes) };
        }
        self.bytes(table) == bytes
    }

    fn read(&self, from: Hpa, to: &mut [u8]) -> bool {
        let range = from..Hpa(from.0.saturating_add(to.len() as u64));
        let readable = self.reachable.covers(&range);
        if readable {
            // SAFETY: the range is in the direct map.
            to.copy_from_slice(unsafe { physical::bytes(&range) });
        }
        readable
    }
}
