//! Removing suspend to RAM from the tables of this machine.

use vidar_core::firmware::acpi::ReadOnly;
use vidar_core::firmware::sleep::withdraw;

use super::tables::Tables;

/// Renames the sleep states in which CPUs lose their state in all tables of the machine, so that the guest does not
/// find them. Warns if a table cannot be changed.
pub fn withdraw_all(tables: &Tables<'_>) {
    for table in tables.with_code() {
        match withdraw(&mut tables.in_place(table)) {
            Ok(0) => {}
            Ok(_) => log::debug!("suspend to RAM is not offered to the guest"),
            Err(ReadOnly) => log::warn!(
                "firmware's tables cannot be changed: do not suspend to RAM, since the machine would wake up without Vidar"
            ),
        }
    }
}
