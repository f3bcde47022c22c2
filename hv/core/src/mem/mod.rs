//! Memory: addresses, the memory map of the machine, memory types, and the page tables of the second stage.

pub mod addr;
pub mod encryption;
pub mod frame;
pub mod identity;
pub mod layout;
pub mod map;
pub mod moved;
pub mod mtrr;
pub mod pat;
pub mod ranges;
pub mod stage2;
pub mod view;
pub mod walk;
