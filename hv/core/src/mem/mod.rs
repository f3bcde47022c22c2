//! Memory: addresses, the machine's memory map, memory types, frames, and the page tables of the second stage.
//!
//! | file | what it is for |
//! |---|---|
//! | [`addr`] | Gives each kind of address a type of its own. |
//! | [`ranges`] | Sets of physical addresses: what is left when some of it is taken, and where something fits. |
//! | [`map`] | The machine's memory map as its firmware describes it, and as the guest is told of it. |
//! | [`frame`] | Hands out the 4 KiB frames that Vidar's tables and stacks are made of. |
//! | [`stage2`] | The second-stage page table, written once for both vendors. |
//! | [`identity`] | Decides what the second stage maps at each address: the machine as it is, except for Vidar's memory. |
//! | [`moved`] | The guest's pages that lie elsewhere, because something of Vidar's is at their addresses. |
//! | [`encryption`] | Finds the address bits that only say how memory is encrypted: the same memory answers at several addresses. |
//! | [`mtrr`] | Computes memory types from the MTRRs. |
//! | [`pat`] | The memory types that page tables choose from while Vidar runs. |
//! | [`walk`] | Walks the guest's own page tables, to find the bytes of an instruction. |
//! | [`view`] | Reads the guest's physical memory as its CPUs see it. |
//! | [`layout`] | The map of Vidar's own address space. |

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
