//! What the boot loader tells: Multiboot information of both versions.

mod bytes;
pub mod info;
pub mod modules;
pub mod multiboot1;
pub mod multiboot2;
pub mod tags;
pub mod text;
