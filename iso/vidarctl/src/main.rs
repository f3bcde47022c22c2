//! Asks Vidar, from inside its guest, how it is.

fn main() {}
