//! From GRUB's first instruction to the guest's. This room runs once.
//!
//! | file | what it is for |
//! |---|---|
//! | `header.S` | The Multiboot headers, by which GRUB loads the image. |
//! | `trampoline.S` | The first instructions: from 32-bit protected mode to Rust in long mode. |
//! | [`trampoline`] | Includes both, and calls the boot order. |
//! | [`order`] | The boot order, with one line for each step. |
//! | [`multiboot`] | Finds the loader's information by its address. |
//! | [`consoles`] | Opens the serial line and the screen for the log, as the loader and the options say. |
//! | [`linux`] | Checks and places the guest's kernel, and fills in its boot parameters. |
//! | [`machine`] | Builds the guest's machine: its memory, and what its CPUs share. |

pub mod consoles;
pub mod linux;
pub mod machine;
pub mod multiboot;
pub mod order;
pub mod trampoline;
