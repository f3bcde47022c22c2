//! The CPUs that firmware lists, in the ACPI table MADT.

use alloc::vec::Vec;
use core::ops::Range;

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
    /// Something is wrong with the list, so there may be others.
    pub damaged: bool,
    table: Option<Range<Hpa>>,
}

impl Listed {
    /// Reads the list, on the CPU that booted. What is wrong with it is said in the log.
    pub fn read(tables: &Tables<'_>, boot: &'static PerCpu) -> Self {
        let table = tables.find(*b"APIC").into_iter().next();
        let madt = match &table {
            Some(table) => madt::parse(&tables.bytes(table)),
            None => Madt { cpus: Vec::new(), damage: Some("it is missing") },
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
        Self { boot, others, damaged: madt.damage.is_some(), table }
    }

    /// Whether any of them is `lost`.
    pub fn any(&self, lost: impl Fn(u32) -> bool) -> bool {
        self.others.iter().any(|id| lost(*id))
    }

    /// Takes those CPUs off firmware's list that are `lost`, so that the guest does not wait for them.
    pub fn withdraw(&self, tables: &Tables<'_>, lost: impl Fn(u32) -> bool) {
        if let Some(table) = &self.table
            && self.any(&lost)
        {
            let mut bytes = tables.bytes(table);
            madt::withdraw(&mut bytes, lost);
            if !tables.replace(table, &bytes) {
                log::warn!(
                    "the firmware's list of CPUs (ACPI table MADT) cannot be changed; the guest will wait for some"
                );
            }
        }
    }
}
