//! From GRUB's first instruction to the guest's.

pub mod options;
