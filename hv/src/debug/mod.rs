//! What Vidar says: the log, where it goes, the last words of a panic, and how a CPU ends.

pub mod ending;
pub mod line;
pub mod log;
pub mod panic;
pub mod pixels;
pub mod vga;
