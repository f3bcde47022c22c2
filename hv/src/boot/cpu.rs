//! Making a CPU Vidar's own: stacks, segments, exceptions, the per-CPU block.

use alloc::boxed::Box;

use crate::arch::exceptions;
use crate::arch::percpu::PerCpu;
use crate::arch::segments::{IST_STACKS, Segments, Selectors};
use crate::mem::host::{Frames, HostTables, OutOfFrames};

/// Pages of the stack that Vidar runs on.
const MAIN_PAGES: u64 = 8;
/// Pages of each interrupt stack.
const IST_PAGES: u64 = 2;

/// The stacks of one CPU, by the addresses where they start to grow down.
#[derive(Debug, Clone, Copy)]
pub struct Stacks {
    /// The one that Vidar runs on.
    pub main: u64,
    interrupt: [u64; IST_STACKS],
}

impl Stacks {
    /// Maps the stacks of one CPU, each above a page that is not mapped.
    ///
    /// # Errors
    /// [`OutOfFrames`] where `frames` runs out.
    pub fn map(tables: &mut HostTables, frames: &mut Frames) -> Result<Self, OutOfFrames> {
        let main = tables.map_stack(frames, MAIN_PAGES)?;
        let mut interrupt = [0; IST_STACKS];
        for stack in &mut interrupt {
            *stack = tables.map_stack(frames, IST_PAGES)?;
        }
        Ok(Self { main, interrupt })
    }
}

/// Loads this CPU's segments, IDT and per-CPU block. Exceptions are caught from here on.
pub fn take(index: u32, stacks: &Stacks) -> (Selectors, &'static PerCpu) {
    let selectors = Box::leak(Box::new(Segments::new(stacks.interrupt))).load();
    exceptions::load();
    let percpu = PerCpu::install(Box::leak(Box::new(PerCpu::new(index))));
    (selectors, percpu)
}
