//! What Vidar writes to: the log ring, the serial line and the screen.
//!
//! | file | what it is for |
//! |---|---|
//! | [`ending`] | How the machine ends after a crash report, a panic or a fatal machine check. |
//! | [`framebuffer`] | Draws characters into a linear framebuffer with a bitmap font. |
//! | [`ring`] | The log in memory, which `vidarctl log` reads. |
//! | [`screen`] | A teletype over a grid of characters: new lines, scrolling, wrapping. |
//! | [`serial`] | Programs a UART and sends bytes, without ever waiting for ever. |

pub mod ending;
pub mod framebuffer;
pub mod ring;
pub mod screen;
pub mod serial;
