//! The trace: the last exits of each CPU, with their times. It is kept with the boot option `trace=on` alone.
//!
//! | file | what it is for |
//! |---|---|
//! | [`ring`] | The ring of records of one CPU, and how any CPU reads it. |
//! | [`writer`] | Its one writer. |

pub mod ring;
pub mod writer;
