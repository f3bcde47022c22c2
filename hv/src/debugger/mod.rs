//! The machine's side of the debugger: the serial line to gdb, the guest's memory, and what `monitor` shows. What gdb
//! is answered is decided in [`vidar_core::debugger`].
//!
//! | file | what it is for |
//! |---|---|
//! | [`start`] | Makes the debugger that the boot options want, before the guest runs. |
//! | [`line`](mod@line) | The serial line. |
//! | [`pin`] | The pin of an I/O APIC by which the line interrupts the boot CPU. |
//! | [`ports`] | The map by which the guest's accesses to the line's I/O ports exit. |
//! | [`memory`] | Writes the guest's memory. |
//! | [`around`] | What `monitor` shows of Vidar. |

pub mod around;
pub mod line;
pub mod memory;
pub mod pin;
pub mod ports;
pub mod start;
