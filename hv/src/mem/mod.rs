//! Memory: address types, the machine's memory map, and the page tables of both stages.

pub mod addr;
pub mod encryption;
pub mod frame;
pub mod heap;
#[cfg(target_os = "none")]
pub mod host;
pub mod identity;
pub mod layout;
pub mod map;
pub mod moved;
pub mod mtrr;
pub mod pat;
#[cfg(target_os = "none")]
pub mod physical;
pub mod ranges;
pub mod stage2;
pub mod view;
pub mod walk;
#[cfg(target_os = "none")]
pub mod window;
