//! Memory: address types, the machine's memory map, and the page tables of both stages.

pub mod addr;
pub mod identity;
pub mod map;
pub mod mtrr;
pub mod ranges;
pub mod stage2;
