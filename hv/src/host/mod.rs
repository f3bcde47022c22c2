//! Vidar itself: where its image is, its heap, frames, page tables and exceptions, and physical memory by its addresses.

pub mod exceptions;
pub mod heap;
pub mod image;
pub mod physical;
pub mod tables;
pub mod window;
