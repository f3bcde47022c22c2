//! Decisions of the boot order: options, refusals, who starts CPUs, and how much memory Vidar takes.

pub mod annex;
pub mod conventional;
pub mod landing;
pub mod options;
pub mod refusal;
pub mod startup;
