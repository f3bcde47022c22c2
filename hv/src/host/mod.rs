//! Vidar itself: its image, heap, page tables and exceptions, and access to physical memory.
//!
//! | file | what it is for |
//! |---|---|
//! | [`image`] | Where the image lies in physical memory, by the symbols of the linker script. |
//! | [`heap`] | The heap, which only the boot order and long-lived objects use. Its documentation states the rule that boot takes what it is given. |
//! | [`memory`] | The memory map, the free frames and the page tables together, as the boot order passes them on. |
//! | [`tables`] | Vidar's own page tables: each section with no more rights than it needs, and stacks with guard pages. |
//! | [`physical`] | Reads and writes physical memory through the direct map. |
//! | [`vcpu`] | What a virtual CPU of either extension is made from. |
//! | [`window`] | Maps pages that the direct map does not cover, for one CPU and a short time. |
//! | [`exceptions`] | The IDT and its handlers: pending NMIs, fix-ups, and panics. |

pub mod exceptions;
pub mod heap;
pub mod image;
pub mod memory;
pub mod physical;
pub mod tables;
pub mod vcpu;
pub mod window;
