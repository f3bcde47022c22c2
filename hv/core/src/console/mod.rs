//! What Vidar writes to: the log ring, the serial line, and characters on a screen.

pub mod ending;
pub mod framebuffer;
pub mod ring;
pub mod screen;
pub mod serial;
