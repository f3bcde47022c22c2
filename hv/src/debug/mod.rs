//! What Vidar says: the log, where it goes, and the last words of a panic.

pub mod ending;
pub mod framebuffer;
pub mod ring;

#[cfg(target_os = "none")]
pub mod log;
#[cfg(target_os = "none")]
pub mod panic;
pub mod screen;
pub mod serial;
