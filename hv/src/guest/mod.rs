//! The Linux boot protocol: what the kernel says of itself, where it goes, and what it is told.

pub mod boot_params;
pub mod bzimage;
pub mod efi_map;
pub mod handover;
pub mod placement;
