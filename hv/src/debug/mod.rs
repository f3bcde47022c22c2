//! What Vidar says and where it says it.
//!
//! | file | what it is for |
//! |---|---|
//! | [`log`] | The log: always to the ring; to serial line and screen until these are the guest's. |
//! | [`line`](mod@line) | The I/O ports of the serial line. |
//! | [`vga`] | VGA's text memory as a grid of characters. |
//! | [`pixels`] | The memory of a framebuffer. |
//! | [`panic`](mod@panic) | The last words after a bug of Vidar's, or after a fatal machine check. |
//! | [`ending`] | Halts this CPU or resets the machine. |

pub mod ending;
pub mod line;
pub mod log;
pub mod panic;
pub mod pixels;
pub mod vga;
