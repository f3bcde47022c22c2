//! Names of the kernel's functions, for the guard's messages.

use core::fmt;

use super::kernel::{Guest, GuestKernel};
use crate::policy::control::Controls;
use crate::vmm::cpu_state::CpuState;

/// The names of the functions of the kernel that runs on a CPU.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    kernel: &'a dyn GuestKernel,
    guest: Guest<'a>,
    controls: &'a Controls,
}

impl<'a> Names<'a> {
    /// Returns the names on a CPU that has these control registers. The kernel is looked for here, and not in a message
    /// that other CPUs wait for.
    pub fn new(kernel: &'a dyn GuestKernel, guest: Guest<'a>, controls: &'a Controls) -> Self {
        kernel.prepare(guest, controls);
        Self { kernel, guest, controls }
    }

    /// Fills `chain` with the address of the next instruction of a CPU in the state `state` and those of its callers,
    /// and with zeros after them.
    pub fn fill(self, state: &CpuState, chain: &mut [u64]) {
        chain.fill(0);
        self.kernel.chain(self.guest, state, chain);
    }

    /// Returns the function at `address` and the distance from its start, if it has a name, and the address.
    pub fn place(self, address: u64) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| match self.write(address, f) {
            Some(result) => result.and_then(|()| write!(f, " ({address:#x})")),
            None => write!(f, "{address:#x}"),
        })
    }

    /// Returns the function at `address`, and the distance from its start.
    pub fn name(self, address: u64) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| self.write(address, f).unwrap_or_else(|| f.write_str("code without a name")))
    }

    /// Returns the functions of a call chain up to the first 0, the innermost first.
    pub fn chain(self, chain: &'a [u64]) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            for (index, address) in chain.iter().take_while(|address| **address != 0).enumerate() {
                let between = if index == 0 { "" } else { " from " };
                write!(f, "{between}{}", self.name(*address))?;
            }
            Ok(())
        })
    }

    fn write(self, address: u64, f: &mut fmt::Formatter<'_>) -> Option<fmt::Result> {
        self.kernel.write_name(self.guest, self.controls, address, f)
    }
}
