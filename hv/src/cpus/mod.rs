//! The CPUs: sets each of them up for Vidar, starts the further ones, and runs the guest on them.
//!
//! | file | what it is for |
//! |---|---|
//! | [`cpu`] | Gives a CPU its stacks, segments, exceptions and per-CPU block. |
//! | [`further`] | Finds the further CPUs, starts them, compares them with the boot CPU, and puts them under Vidar. |
//! | `ap.S` | The code at which a further CPU begins after a start-up IPI. |
//! | [`ap`] | Copies that code to its page, and fills in the fields that it reads. |
//! | [`low_memory`] | Moves the guest's low memory, where code that leads CPUs to Vidar takes its place. |
//! | [`inside`] | Runs the guest on a CPU, and watches it as the boot options want. |
//! | [`rings`] | Gives each CPU the memory of its trace. |
//! | [`end`] | Ends the guest on a CPU: with a crash report, and then as `on-crash` says. |
//! | [`stopped`] | The states of CPUs that have stopped, for the report. |

pub mod ap;
pub mod cpu;
pub mod end;
pub mod further;
pub mod inside;
pub mod low_memory;
pub mod rings;
pub mod stopped;
