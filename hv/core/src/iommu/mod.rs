//! The guard of Vidar's memory against devices, by the remapping units (IOMMUs) of VT-d.
//!
//! With `dma=guard` the translation of the units is Vidar's: devices reach all of memory at its own addresses, except
//! for the memory that Vidar keeps. Interrupt remapping stays the guest's. The guest is shown units that can translate
//! no address width, so that it uses them for interrupts alone. `hv/doc/dma.md` says what this stops.
//!
//! | file | what it is for |
//! |---|---|
//! | [`guard`] | All units of the machine, and whether they guard Vidar's memory. |
//! | [`capability`] | What a unit can do, and which part of that the guest sees. |
//! | [`plan`] | Decides how the units translate, or why they cannot. |
//! | [`tables`] | Builds the tables that the units translate by. |
//! | [`unit`](mod@unit) | A unit: switches its translation on, and answers the guest's accesses to its registers. |
//! | [`queue`] | The guest's invalidation queue, which Vidar reads and copies into its own. |
//! | [`fault`] | Accesses that the units have refused. |
//! | [`register`] | The numbers of the registers, and what their bits mean. |
//!
//! The manual is: Intel Virtualization Technology for Directed I/O Architecture Specification (D51397).

pub mod capability;
pub mod fault;
pub mod guard;
pub mod plan;
pub mod queue;
pub mod register;
pub mod tables;
pub mod unit;
