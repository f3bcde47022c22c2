//! The text of a crash report.
//!
//! | file | what it is for |
//! |---|---|
//! | [`names`] | What the guest's running kernel tells: call chains, and the end of its log. |
//! | [`others`] | What the report says of the CPUs that another one has stopped. |
//! | [`state`] | The state of a CPU. |

pub mod names;
pub mod others;
pub mod state;
