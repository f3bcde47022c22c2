//! What firmware leaves in memory: ACPI tables and the EFI memory map. The parsers here accept any bytes.
//!
//! | file | what it is for |
//! |---|---|
//! | [`acpi`] | Finds ACPI tables from the root pointer, and changes them in place. |
//! | [`dmar`] | Lists the Intel IOMMUs that the DMAR names, and the memory that firmware's devices need. |
//! | [`efi_map`] | Turns the EFI memory map into an e820 map, and copies it for the guest with Vidar's memory reserved. |
//! | [`io_apic`] | Finds the pin of an I/O APIC to which the line of an ISA device leads, in the MADT. |
//! | [`ivrs`] | Lists the AMD IOMMUs that the IVRS names. |
//! | [`madt`] | Lists the CPUs that the MADT names. |
//! | `remapping` | What the DMAR and the IVRS have in common. |
//! | [`rsdp`] | Finds the original of the ACPI root pointer, of which the boot loader hands over a copy. |
//! | [`sleep`] | Hides the sleep states S2 and S3 from the guest, because the machine would wake up without Vidar. |

pub mod acpi;
pub mod dmar;
pub mod efi_map;
pub mod io_apic;
pub mod ivrs;
pub mod madt;
mod remapping;
pub mod rsdp;
pub mod sleep;
