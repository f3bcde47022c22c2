//! The CPUs that the firmware lists in the ACPI table MADT.

use alloc::vec::Vec;
use core::ops::Range;

use vidar_core::firmware::acpi::Table;
use vidar_core::firmware::madt::{self, Madt};
use vidar_core::mem::addr::Hpa;
use vidar_core::vmm::percpu::PerCpu;

use super::tables::Tables;
use crate::arch::apic;

/// The CPUs of the machine, as far as the firmware lists them.
#[derive(Debug)]
pub struct CpuList<'a> {
    /// The per-CPU block of the boot CPU.
    pub boot: &'static PerCpu,
    /// The APIC IDs of all listed CPUs that can be used, except for the boot CPU.
    pub others: Vec<u32>,
    /// True if the list has CPUs that may be added while the guest runs.
    pub later: bool,
    /// True if the machine may have CPUs that are not in `others`, because the list is damaged or too long, or names
    /// CPUs that cannot be started.
    pub damaged: bool,
    tables: &'a Tables<'a>,
    table: Option<Range<Hpa>>,
}

impl<'a> CpuList<'a> {
    /// Reads the list on the boot CPU, and logs what is wrong with it.
    pub fn read(tables: &'a Tables<'a>, boot: &'static PerCpu) -> Self {
        let table = tables.find(*b"APIC").next();
        let madt = match &table {
            Some(table) => madt::parse(tables.in_place(table.clone()).bytes()),
            None => Madt { damage: Some("it is missing"), ..Madt::default() },
        };
        let mut damaged = madt.damage.is_some() || madt.beyond > 0;
        let mut others = madt.others(boot.apic_id).unwrap_or_else(|| {
            log::warn!(
                "the firmware's list of CPUs (ACPI table MADT) lacks the one that has booted (APIC ID {}), so that the others \
                 cannot be told from it; the guest gets no other: update the firmware",
                boot.apic_id
            );
            damaged = true;
            Vec::new()
        });
        // In xAPIC mode a larger ID would be cut to that of another CPU.
        let reached = |id: &u32| apic::mode().is_none_or(|mode| mode.reaches(*id));
        for id in others.iter().filter(|id| !reached(id)) {
            log::warn!(
                "the CPU with APIC ID {id} cannot be started, since the local APICs are in xAPIC mode, which reaches IDs up to \
                 254; the guest runs without it: enable x2APIC in the firmware's setup"
            );
            damaged = true;
        }
        others.retain(reached);
        if madt.wrong_sum {
            log::warn!(
                "the firmware's list of CPUs (ACPI table MADT) has a wrong checksum; it is taken as it is, as Linux takes it: \
                 update the firmware"
            );
        }
        if let Some(damage) = madt.damage {
            log::warn!(
                "the firmware's list of CPUs (ACPI table MADT) is damaged: {damage}; the guest gets {} of them: update \
                 the firmware",
                others.len() + 1
            );
        }
        if madt.beyond > 0 {
            log::warn!(
                "the firmware lists more than {} CPUs; the guest gets those, and Vidar looks at no others",
                madt::MAX_CPUS
            );
        }
        Self { boot, others, later: madt.later, damaged, tables, table }
    }

    /// Returns the addresses of the list, or no addresses if there is none.
    pub fn place(&self) -> Range<Hpa> {
        self.table.clone().unwrap_or(Hpa(0)..Hpa(0))
    }

    /// Returns true if the guest could start a CPU that is not running, now or once it has been added.
    pub fn has_further(&self) -> bool {
        !self.others.is_empty() || self.later
    }

    /// Returns true if `lost` is true for the APIC ID of any of the other CPUs.
    pub fn any(&self, lost: impl Fn(u32) -> bool) -> bool {
        self.others.iter().any(|id| lost(*id))
    }

    /// Removes the CPUs for which `lost` is true from the firmware's list, so that the guest does not wait for them.
    /// Warns if the list cannot be changed.
    pub fn withdraw(&self, lost: impl Fn(u32) -> bool) {
        if let Some(table) = &self.table
            && (self.damaged || self.any(&lost))
            && madt::withdraw(&mut self.tables.in_place(table.clone()), lost).is_err()
        {
            log::warn!(
                "the firmware's list of CPUs (ACPI table MADT) cannot be changed, so Linux will wait 10 s for each \
                 CPU that it cannot have: update the firmware"
            );
        }
    }
}
