//! A tiny guest that does what guests should not, and tells what came of it.

fn main() {}
