//! The CPUs that firmware lists, in the ACPI table MADT.

use alloc::vec::Vec;
use core::ops::Range;

use super::acpi::Table;
use super::madt::{self, Madt};
use super::tables::Tables;
use crate::arch::percpu::PerCpu;
use crate::mem::addr::Hpa;

/// The CPUs of the machine, as far as the list is whole.
#[derive(Debug)]
pub struct Listed {
    /// The one that booted.
    pub boot: &'static PerCpu,
    /// APIC IDs of all but the one that booted.
    pub others: Vec<u32>,
    /// There are CPUs on it that may be added while the guest runs.
    pub later: bool,
    /// Something is wrong with the list, or it is too long, so there may be others.
    pub damaged: bool,
    table: Option<Range<Hpa>>,
}

impl Listed {
    /// Reads the list, on the CPU that booted. What is wrong with it is said in the log.
    pub fn read(tables: &Tables<'_>, boot: &'static PerCpu) -> Self {
        let table = tables.find(*b"APIC").next();
        let madt = match &table {
            Some(table) => madt::parse(tables.in_place(table.clone()).bytes()),
            None => Madt { damage: Some("it is missing"), ..Madt::default() },
        };
        let others: Vec<u32> =
            madt.cpus.iter().map(|cpu| cpu.apic_id).filter(|id| *id != boot.apic_id).collect();
        if let Some(damage) = madt.damage {
            log::warn!(
                "the firmware's list of CPUs (ACPI table MADT) is damaged: {damage}; the guest gets {} of them: update \
                 the firmware",
                others.len() + 1
            );
        }
        if madt.beyond > 0 {
            log::warn!("the firmware lists more than {} CPUs; the guest gets no more of them", madt::MOST);
        }
        Self { boot, others, later: madt.later, damaged: madt.damage.is_some() || madt.beyond > 0, table }
    }

    /// Whether the guest could start a CPU that is not running: now, or once it has been added.
    pub fn has_further(&self) -> bool {
        !self.others.is_empty() || self.later
    }

    /// Whether any of them is `lost`.
    pub fn any(&self, lost: impl Fn(u32) -> bool) -> bool {
        self.others.iter().any(|id| lost(*id))
    }

    /// Takes those CPUs off firmware's list that are `lost`, so that the guest does not wait for them.
    pub fn withdraw(&self, tables: &Tables<'_>, lost: impl Fn(u32) -> bool) {
        if let Some(table) = &self.table
            && (self.damaged || self.any(&lost))
            && madt::withdraw(&mut tables.in_place(table.clone()), lost).is_err()
        {
            log::warn!(
                "the firmware's list of CPUs (ACPI table MADT) cannot be changed; the guest will wait for some"
            );
        }
    }
}
