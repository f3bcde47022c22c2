//! The Linux boot protocol: what a kernel says of itself, where it goes, and what it is told.

pub mod boot_params;
pub mod bzimage;
pub mod handover;
pub mod placement;
