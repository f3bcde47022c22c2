//! The seam to what names places in the guest's code. The names are those of a running kernel, which the virtual
//! machine itself knows nothing of.

use core::fmt;

use crate::policy::control::Controls;

/// Names places in the guest's code, for messages.
pub trait NamePlaces {
    /// Calls `then` with the place at `rip` as text, on a CPU with these control registers.
    fn name(&self, controls: &Controls, rip: u64, then: &mut dyn FnMut(fmt::Arguments<'_>));
}
