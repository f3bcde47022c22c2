//! Firmware's tables in their places: read and changed there.

pub mod listed;
pub mod sleep;
pub mod tables;
