//! The boot loader's information: Multiboot2, and the framebuffer of Multiboot 1.
//!
//! | file | what it is for |
//! |---|---|
//! | [`info`] | Holds the boot loader's information, whatever protocol the loader uses. |
//! | [`multiboot2`] | Parses Multiboot2 information into `BootInfo`. |
//! | [`tags`] | Iterates over the tags of Multiboot2 information. |
//! | [`multiboot1`] | Reads the framebuffer of a Multiboot 1 loader, to show the refusal of that loader on it. |
//! | [`modules`] | Lists the files that the boot loader has put into memory. |
//! | [`text`] | Holds text from a user or a firmware, and displays it safely. |
//! | `bytes` | Reads numbers from byte slices that may be too short. |

mod bytes;
pub mod info;
pub mod modules;
pub mod multiboot1;
pub mod multiboot2;
pub mod tags;
pub mod text;
