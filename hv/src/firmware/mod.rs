//! The firmware's tables, which are read and changed where they lie.
//!
//! | file | what it is for |
//! |---|---|
//! | [`tables`] | Finds the ACPI tables, and accesses them through the direct map. |
//! | [`cpu_list`] | The CPUs that the firmware lists in its MADT. |
//! | [`sleep`] | Removes suspend to RAM from the tables of this machine. |

pub mod cpu_list;
pub mod sleep;
pub mod tables;
