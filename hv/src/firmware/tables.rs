//! The firmware's ACPI tables, as far as the direct map covers them. They are read and changed where they lie, since
//! they may be of any size.

#![expect(unsafe_code, reason = "the firmware's tables are read and changed by their addresses")]

use core::ops::Range;

use vidar_core::firmware::acpi;
use vidar_core::firmware::io_apic::{self, Pin};
use vidar_core::loader::info::BootInfo;
use vidar_core::mem::addr::Hpa;
use vidar_core::mem::ranges::RangeSet;

use crate::host::{physical, tables};

/// The ACPI tables of this machine.
#[derive(Debug)]
pub struct Tables<'a> {
    rsdp: &'a [u8],
    reachable: RangeSet,
}

impl<'a> Tables<'a> {
    /// Returns the tables that the root pointer in `info` leads to.
    pub fn new(info: &BootInfo<'a>) -> Self {
        let rsdp = info.rsdp.unwrap_or_default();
        Self { rsdp, reachable: tables::in_direct_map(&info.memory) }
    }

    /// Leaves out the tables in the memory that Vidar keeps: it has overwritten them.
    pub fn leave_out(&mut self, kept: &[Range<Hpa>]) {
        kept.iter().for_each(|kept| self.reachable.remove(kept));
    }

    /// Returns the addresses of the tables with this signature.
    pub fn find(&self, signature: [u8; 4]) -> impl Iterator<Item = Range<Hpa>> {
        acpi::find(self.rsdp, signature, |from, to| self.read(from, to))
            .filter(|table| self.reachable.covers(table))
    }

    /// Returns the pin to which the ISA interrupt `irq` leads, if the tables list it.
    pub fn pin(&self, irq: u8) -> Option<Pin> {
        let list = self.find(*b"APIC").next()?;
        io_apic::pin(acpi::Table::bytes(&self.in_place(list)), irq)
    }

    /// Returns the addresses of the tables that contain code: the DSDT and every SSDT.
    pub fn with_code(&self) -> impl Iterator<Item = Range<Hpa>> {
        let fadt = self.find(*b"FACP").next().map(|fadt| self.in_place(fadt));
        let dsdt = fadt.and_then(|fadt| {
            acpi::dsdt(acpi::Table::bytes(&fadt), |from, to| self.read(from, to))
                .filter(|table| self.reachable.covers(table))
        });
        dsdt.into_iter().chain(self.find(*b"SSDT"))
    }

    /// Returns the table at the addresses `table`, which one of the other functions must have found.
    pub fn in_place(&self, table: Range<Hpa>) -> InPlace {
        assert!(self.reachable.covers(&table), "the table is not in the direct map");
        InPlace(table)
    }

    /// Copies memory to `to`. Returns false, and copies nothing, if the direct map does not cover it.
    fn read(&self, from: Hpa, to: &mut [u8]) -> bool {
        let range = from..Hpa(from.0.saturating_add(to.len() as u64));
        let readable = self.reachable.covers(&range);
        if readable {
            // SAFETY: the range is in the direct map, and nothing writes to the firmware's tables while they are read.
            to.copy_from_slice(unsafe { physical::bytes(&range) });
        }
        readable
    }
}

/// A table in the direct map. Nothing else reads or writes the firmware's tables before the guest runs.
#[derive(Debug)]
pub struct InPlace(Range<Hpa>);

impl acpi::Table for InPlace {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `in_place` has checked that the table is in the direct map. Only `put` writes to it, and that needs
        // the only reference to the table.
        unsafe { physical::bytes(&self.0) }
    }

    fn put(&mut self, at: usize, byte: u8) -> bool {
        let at = self.0.start + at as u64;
        // SAFETY: the byte is in the table, and so in the direct map, and no reference to it exists while `put` runs.
        self.0.contains(&at) && unsafe { physical::put(at, byte) }
    }
}
