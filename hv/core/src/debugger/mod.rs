//! A debugger for the guest: gdb, over a serial line, below the guest's kernel.
//!
//! | file | what it is for |
//! |---|---|
//! | [`observer`] | Watches the guest on one CPU: stops it, steps it, and tells gdb's exceptions from the guest's. |
//! | [`desk`] | Where the CPUs stop, and wait until gdb has them go on. |
//! | [`session`] | The conversation with gdb, through the crate gdbstub. |
//! | [`packet`] | The packets of the protocol, as they come over the line. |
//! | [`answers`] | What is said to gdb, which is sent again if it has not come whole. |
//! | [`target`] | What gdb asks, answered by the other files. |
//! | [`port`] | The I/O ports of the line, at which the guest finds nothing. |
//! | [`cpus`] | The CPUs: stopped or not, why, and with which registers. |
//! | [`registers`] | The registers, as gdb numbers and describes them. |
//! | [`memory`] | The guest's memory by linear addresses. |
//! | [`breakpoints`] | Breakpoints and watchpoints. |
//! | [`watch`] | What one debug register watches. |
//! | [`monitor`] | The commands of `monitor`. |
//! | [`structure`] | The VMCS or the VMCB of a CPU that is stopped. |
//! | [`debuggable`] | What a virtual CPU must be able to do for a debugger. |
//! | [`debug_registers`] | The debug registers as the guest sees them. |
//! | [`exceptions`] | Whose a debug exception is: gdb's, or the guest's. |
//! | [`step`] | What a step by RFLAGS.TF leaves behind in the guest, and must not. |

pub mod answers;
pub mod breakpoints;
pub mod cpus;
pub mod debug_registers;
pub mod debuggable;
pub mod desk;
pub mod exceptions;
pub mod memory;
pub mod monitor;
pub mod observer;
pub mod packet;
pub mod port;
pub mod registers;
pub mod session;
pub mod step;
pub mod structure;
pub mod target;
pub mod watch;
