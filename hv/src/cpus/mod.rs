//! The CPUs: makes each of them Vidar's own, starts the further ones, and runs the guest on them.
//!
//! | file | what it is for |
//! |---|---|
//! | [`cpu`] | Gives a CPU its stacks, segments, exceptions and per-CPU block. |
//! | [`further`] | Finds the further CPUs, starts them, compares them with the boot CPU, and puts them under Vidar. |
//! | `ap.S` | The code that a start-up IPI leads to. |
//! | [`ap`] | Copies that code to its page, and fills in what it looks up. |
//! | [`end`] | The end of a guest's CPU: the crash report, and what `on-crash` says. |

pub mod ap;
pub mod cpu;
pub mod end;
pub mod further;
