//! The text of a crash report.
//!
//! | file | what it is for |
//! |---|---|
//! | [`others`] | What the report says of the CPUs that another one has stopped. |
//! | [`state`] | The state of a CPU. |

pub mod others;
pub mod state;
