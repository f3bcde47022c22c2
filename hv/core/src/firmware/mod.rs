//! What firmware leaves in memory: ACPI tables and the EFI memory map, parsed from bytes that may be anything.

pub mod acpi;
pub mod efi_map;
pub mod madt;
pub mod rsdp;
pub mod sleep;
