//! Firmware's tables in their places: read and changed there.
//!
//! | file | what it is for |
//! |---|---|
//! | [`tables`] | Reaches the ACPI tables by the direct map. |
//! | [`listed`] | The CPUs that firmware lists in its MADT. |
//! | [`sleep`] | Takes suspend to RAM out of the tables of this machine. |

pub mod listed;
pub mod sleep;
pub mod tables;
