//! The machine's remapping units (IOMMUs), which guard Vidar's memory against devices with `dma=guard`.
//!
//! | file | what it is for |
//! |---|---|
//! | [`find`] | Finds the units, has them guard Vidar's memory, and says so, or why they do not. |
//! | [`registers`] | The registers of a unit, and the memory of its queue. |

pub mod find;
pub mod registers;
