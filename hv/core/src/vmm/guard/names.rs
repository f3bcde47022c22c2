//! Names of the kernel's functions, for the guard's messages.

use core::fmt;

use super::target::GuestKernel;
use crate::mem::walk::ReadGuest;

/// The names of the functions of a kernel.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// The kernel.
    pub kernel: &'a dyn GuestKernel,
    /// The guest's memory.
    pub memory: &'a dyn ReadGuest,
}

impl<'a> Names<'a> {
    /// Returns the function at `address`, and the distance from its start.
    pub fn name(self, address: u64) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| self.kernel.write_name(self.memory, address, f))
    }

    /// Returns the functions of a call chain up to the first 0, the innermost first.
    pub fn chain(self, chain: &'a [u64]) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            for (index, address) in chain.iter().take_while(|address| **address != 0).enumerate() {
                f.write_str(if index == 0 { "" } else { " from " })?;
                self.kernel.write_name(self.memory, *address, f)?;
            }
            Ok(())
        })
    }
}
