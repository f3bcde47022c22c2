//! What firmware leaves in memory: ACPI tables and the EFI memory map. The parsers here accept any bytes.
//!
//! | file | what it is for |
//! |---|---|
//! | [`acpi`] | Finds ACPI tables from the root pointer, and changes them in their places. |
//! | [`efi_map`] | Reads the EFI memory map: which of it is RAM for the guest, and what the guest is told of it. |
//! | [`madt`] | Lists the CPUs that the MADT names. |
//! | [`rsdp`] | Finds the original of the ACPI root pointer, of which the loader hands over a copy. |
//! | [`sleep`] | Takes the names of the sleep states S2 and S3 out of the tables, since the machine would wake up without Vidar. |

pub mod acpi;
pub mod efi_map;
pub mod madt;
pub mod rsdp;
pub mod sleep;
