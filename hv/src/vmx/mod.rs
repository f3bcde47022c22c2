//! The VT-x backend.

pub mod ept;
