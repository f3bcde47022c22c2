//! From GRUB's first instruction to the guest's. This room runs once.
//!
//! | file | what it is for |
//! |---|---|
//! | `header.S` | The Multiboot headers, by which GRUB loads the image. |
//! | `trampoline.S` | The first instructions: from 32-bit protected mode to Rust in long mode. |
//! | [`trampoline`] | Includes both, and calls the boot order. |
//! | [`order`] | The boot order: one readable function. |
//! | [`multiboot`] | Finds the loader's information by its address. |
//! | [`consoles`] | Opens the serial line and the screen, and later hands them to the guest. |
//! | [`linux`] | Checks and places the guest's kernel, and writes what it is told. |
//! | [`machine`] | Builds the guest's machine: its memory, and what its CPUs have in common. |

pub mod consoles;
pub mod linux;
pub mod machine;
pub mod multiboot;
pub mod order;
pub mod trampoline;
