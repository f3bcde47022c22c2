//! Making a CPU Vidar's own: stacks, segments, exceptions, the per-CPU block.

#![expect(unsafe_code, reason = "a CPU's own tables are changed only by that CPU")]

use alloc::boxed::Box;
use core::cell::UnsafeCell;

use vidar_core::vmm::percpu::PerCpu;

use crate::arch::segments::{IST_STACKS, Segments, Selectors};
use crate::arch::{instructions, pat, percpu};
use crate::host::exceptions;
use crate::host::memory::HostMemory;
use crate::host::tables::OutOfFrames;

/// Pages of the stack that the boot CPU runs on, with all of the boot order.
const BOOT_PAGES: u64 = 8;
/// Pages of that of a further CPU, which only runs the guest.
const MAIN_PAGES: u64 = 4;
/// Pages of each interrupt stack.
const IST_PAGES: u64 = 2;

/// Frames that a further CPU's stacks and its window take, with what page tables they may need.
pub const FRAMES: usize = (MAIN_PAGES + IST_PAGES * IST_STACKS as u64) as usize + 2;

/// The stacks of one CPU, by the addresses where they start to grow down.
#[derive(Debug, Clone, Copy)]
pub struct Stacks {
    /// The one that Vidar runs on.
    pub main: u64,
    interrupt: [u64; IST_STACKS],
}

impl Stacks {
    /// Maps the stacks of the boot CPU, each above a page that is not mapped, and makes its window.
    ///
    /// # Errors
    /// [`OutOfFrames`] where no frame is free.
    pub fn of_boot_cpu(memory: &mut HostMemory) -> Result<Self, OutOfFrames> {
        memory.map_window(0)?;
        Self::map(memory, BOOT_PAGES)
    }

    fn map(memory: &mut HostMemory, main_pages: u64) -> Result<Self, OutOfFrames> {
        let main = memory.map_stack(main_pages)?;
        let mut interrupt = [0; IST_STACKS];
        for stack in &mut interrupt {
            *stack = memory.map_stack(IST_PAGES)?;
        }
        Ok(Self { main, interrupt })
    }
}

/// What Vidar has for one CPU.
pub struct Cpu {
    /// Its stacks.
    pub stacks: Stacks,
    segments: UnsafeCell<Segments>,
    selectors: UnsafeCell<Option<Selectors>>,
    percpu: &'static PerCpu,
}

// SAFETY: segments and selectors are for the CPU itself alone, as `load` demands.
unsafe impl Sync for Cpu {}

impl Cpu {
    /// All that the further CPU `index` needs.
    ///
    /// # Errors
    /// [`OutOfFrames`] where no frame is free.
    pub fn new(index: u32, apic_id: u32, memory: &mut HostMemory) -> Result<Self, OutOfFrames> {
        memory.map_window(index)?;
        Ok(Self::on(Stacks::map(memory, MAIN_PAGES)?, index, apic_id))
    }

    /// As [`Cpu::new`], on stacks that are there already.
    pub fn on(stacks: Stacks, index: u32, apic_id: u32) -> Self {
        Self {
            stacks,
            segments: UnsafeCell::new(Segments::new(stacks.interrupt)),
            selectors: UnsafeCell::new(None),
            percpu: PerCpu::place(Box::leak(Box::new(PerCpu::new(index, apic_id)))),
        }
    }

    /// Its block.
    pub const fn percpu(&self) -> &'static PerCpu {
        self.percpu
    }

    /// Loads segments, IDT, per-CPU block, PAT and control registers. Exceptions are caught from here on.
    ///
    /// # Safety
    /// This is the CPU, and nothing else on it has what [`Cpu::selectors`] gave.
    pub unsafe fn load(&'static self) {
        // SAFETY: the caller's promise.
        unsafe { *self.selectors.get() = Some((*self.segments.get()).load()) };
        exceptions::load();
        instructions::set_known_registers();
        percpu::install(self.percpu);
        self.percpu.set_guest_pat(pat::load());
    }

    /// What its segments are, once they are loaded.
    pub fn selectors(&self) -> &Selectors {
        // SAFETY: only `load` changes it, which asks that nobody has this.
        match unsafe { &*self.selectors.get() } {
            Some(selectors) => selectors,
            None => panic!("the segments of CPU {} are not loaded", self.percpu.index),
        }
    }
}
