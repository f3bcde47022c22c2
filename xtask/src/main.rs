//! The front door of the project: `cargo xtask`.

fn main() {}
