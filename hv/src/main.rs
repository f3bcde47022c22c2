//! The image that GRUB loads.

fn main() {}
