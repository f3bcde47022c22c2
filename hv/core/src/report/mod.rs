//! The text of a crash report, and of other messages that name functions of the guest's kernel.
//!
//! | file | what it is for |
//! |---|---|
//! | [`exits`] | The last exits of each CPU. |
//! | [`names`] | Call chains and the end of the log, as read from the guest's running kernel. |
//! | [`others`] | What the report says of the CPUs that another one has stopped. |
//! | [`state`] | The state of a CPU. |

pub mod exits;
pub mod names;
pub mod others;
pub mod state;
