//! Memory: addresses, the machine's memory map, memory types, frames, and the page tables of the second stage.
//!
//! | file | what it is for |
//! |---|---|
//! | [`addr`] | Gives each kind of address a type of its own. |
//! | [`ranges`] | Sets of physical addresses: which memory is free, and where something fits. |
//! | [`map`] | The machine's memory map as its firmware describes it, and as the guest gets it. |
//! | [`frame`] | Hands out the 4 KiB frames that hold Vidar's tables and stacks. |
//! | [`level`] | The levels of page tables, by the manuals' names. |
//! | [`stage2`] | The second-stage page table, with the same code for both vendors. |
//! | [`rights`] | Takes the right to write from pages of the second stage, and gives it back. |
//! | [`locks`] | The memory that the guest may not write to. |
//! | [`identity`] | Decides what the second stage maps at each address: the machine as it is, except for hidden and moved memory. |
//! | [`moved`] | The guest pages that lie elsewhere, because something of Vidar's is in their place. |
//! | [`encryption`] | Finds the address bits that only select how memory is encrypted. |
//! | [`mtrr`] | Computes memory types from the MTRRs. |
//! | [`pat`] | The memory types that Vidar's page tables select. |
//! | [`walk`] | Walks the guest's own page tables, to find the bytes of an instruction. |
//! | [`view`] | Finds the guest's physical memory as its CPUs see it. |
//! | [`layout`] | The layout of Vidar's address space. |

pub mod addr;
pub mod encryption;
pub mod frame;
pub mod identity;
pub mod layout;
pub mod level;
pub mod locks;
pub mod map;
pub mod moved;
pub mod mtrr;
pub mod pat;
pub mod ranges;
pub mod rights;
pub mod stage2;
pub mod view;
pub mod walk;
