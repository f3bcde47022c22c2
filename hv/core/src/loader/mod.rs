//! The boot loader's information: Multiboot2, and the framebuffer of Multiboot 1.
//!
//! | file | what it is for |
//! |---|---|
//! | [`info`] | Holds what the loader tells, whatever protocol it speaks. |
//! | [`multiboot2`] | Makes Multiboot2 information into `BootInfo`. |
//! | [`tags`] | Walks over the tags of Multiboot2 information. |
//! | [`multiboot1`] | Reads the little of Multiboot 1 that Vidar needs to refuse such a loader on the screen. |
//! | [`modules`] | Lists the files that the loader has put into memory. |
//! | [`text`] | Holds text that a user or a firmware wrote, and prints it safely. |
//! | `bytes` | Reads numbers from bytes that may end too early. |

mod bytes;
pub mod info;
pub mod modules;
pub mod multiboot1;
pub mod multiboot2;
pub mod tags;
pub mod text;
