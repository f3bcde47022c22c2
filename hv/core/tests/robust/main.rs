//! Parsers of what Vidar does not control: the loader's information, the firmware's tables, the user's files, the
//! guest's memory.
//!
//! Whatever bytes a parser is given, it neither panics nor runs for ever, and its result stays within what its type
//! promises. Most modules here have one [`Target`](target::Target): a check of a parser that takes any bytes. The
//! inputs are those of the corpus, mutations of them, and noise.
//!
//! The default run tries some thousand inputs for each parser. `cargo xtask robust` tries a million. A failing input is
//! written into the corpus, so that every later run tries it first.

mod acpi;
mod bzimage;
mod corpus;
mod efi_map;
mod instruction;
mod iommus;
mod kernel;
#[path = "../kernel_image/mod.rs"]
mod kernel_image;
mod madt;
mod mmio;
mod multiboot2;
mod mutation;
mod sleep_states;
mod target;
mod watch;
