//! What Vidar reports, and where it reports it.
//!
//! | file | what it is for |
//! |---|---|
//! | [`log`] | The log, which goes to memory, and until the guest runs also to the serial line and the screen. |
//! | [`line`](mod@line) | The I/O ports of the serial line. |
//! | [`vga`] | VGA's text memory as a grid of characters. |
//! | [`pixels`] | The memory of a framebuffer. |
//! | [`panic`](mod@panic) | The report after a bug in Vidar, or after a fatal machine check. |
//! | [`ending`] | Halts this CPU or resets the machine. |
//! | [`version`] | The version and the commit of this Vidar. |

pub mod ending;
pub mod line;
pub mod log;
pub mod panic;
pub mod pixels;
pub mod version;
pub mod vga;
