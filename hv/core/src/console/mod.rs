//! What Vidar writes to: the serial line and the screen. The devices themselves are in the shell's room
//! `debug`.
//!
//! | file | what it is for |
//! |---|---|
//! | [`ending`] | What Vidar does with the machine after a crash report, a panic or a fatal machine check. |
//! | [`framebuffer`] | Draws characters on a linear framebuffer with a bitmap font. |
//! | [`screen`] | Writes text to a grid of characters, and wraps and scrolls it. |
//! | [`serial`] | Programs a UART and sends bytes, without endless waits. |
//! | [`wrap`] | Breaks the long lines of a report. |

pub mod ending;
pub mod framebuffer;
pub mod screen;
pub mod serial;
pub mod wrap;
