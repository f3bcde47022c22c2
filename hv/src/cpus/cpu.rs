//! Setting a CPU up for Vidar: its stacks, segments, exceptions, and per-CPU block.

#![expect(unsafe_code, reason = "a CPU's own tables are changed only by that CPU")]

use alloc::boxed::Box;
use core::cell::UnsafeCell;

use vidar_core::vmm::percpu::PerCpu;

use crate::arch::segments::{IST_STACKS, Segments};
use crate::arch::{instructions, pat, percpu};
use crate::host::exceptions;
use crate::host::memory::HostMemory;
use crate::host::tables::OutOfFrames;
use crate::host::vcpu::ThisCpu;

/// Pages of the main stack of the boot CPU, on which the second half of the boot order runs.
const BOOT_PAGES: u64 = 8;
/// Pages of the main stack of a further CPU, which only runs the guest.
const MAIN_PAGES: u64 = 4;
/// Pages of each interrupt stack.
const IST_PAGES: u64 = 2;

/// The number of frames that a further CPU's stacks and window take, with the page tables that they may need.
pub const FRAMES: usize = (MAIN_PAGES + IST_PAGES * IST_STACKS as u64) as usize + 2;

/// The stacks of one CPU. Each is given by the address at which it starts to grow down.
#[derive(Debug, Clone, Copy)]
pub struct Stacks {
    /// The stack on which Vidar runs.
    pub main: u64,
    interrupt: [u64; IST_STACKS],
}

impl Stacks {
    /// Maps the stacks of the boot CPU, each above a page that is not mapped, and the page tables of its window.
    ///
    /// # Errors
    /// [`OutOfFrames`] if too few frames are free.
    pub fn of_boot_cpu(memory: &mut HostMemory) -> Result<Self, OutOfFrames> {
        memory.map_window(0)?;
        Self::map(memory, BOOT_PAGES)
    }

    /// Maps the stacks of one CPU, with a main stack of `main_pages` pages.
    fn map(memory: &mut HostMemory, main_pages: u64) -> Result<Self, OutOfFrames> {
        let main = memory.map_stack(main_pages)?;
        let mut interrupt = [0; IST_STACKS];
        for stack in &mut interrupt {
            *stack = memory.map_stack(IST_PAGES)?;
        }
        Ok(Self { main, interrupt })
    }
}

/// What Vidar sets up for one CPU.
pub struct Cpu {
    /// The stacks of the CPU.
    pub stacks: Stacks,
    segments: UnsafeCell<Segments>,
    percpu: &'static PerCpu,
}

// SAFETY: `load` alone uses the segments, and its callers promise that it runs on the CPU itself.
unsafe impl Sync for Cpu {}

impl Cpu {
    /// Maps the stacks and the window of the further CPU `index`, and creates its segments and its per-CPU block.
    ///
    /// # Errors
    /// [`OutOfFrames`] if too few frames are free.
    pub fn new(index: u32, apic_id: u32, memory: &mut HostMemory) -> Result<Self, OutOfFrames> {
        memory.map_window(index)?;
        Ok(Self::on(Stacks::map(memory, MAIN_PAGES)?, index, apic_id))
    }

    /// Creates the segments and the per-CPU block of a CPU whose stacks are mapped already.
    pub fn on(stacks: Stacks, index: u32, apic_id: u32) -> Self {
        Self {
            stacks,
            segments: UnsafeCell::new(Segments::new(stacks.interrupt)),
            percpu: PerCpu::place(Box::leak(Box::new(PerCpu::new(index, apic_id)))),
        }
    }

    /// Returns the per-CPU block of the CPU.
    pub const fn percpu(&self) -> &'static PerCpu {
        self.percpu
    }

    /// Loads the segments, the IDT, CR4, DR7, the per-CPU block and the PAT of this CPU. Exceptions are caught from
    /// here on.
    ///
    /// # Safety
    /// This code runs on the CPU that `self` was made for.
    pub unsafe fn load(&'static self) -> ThisCpu {
        // SAFETY: the caller promises that this is the CPU itself, so nothing else uses its segments meanwhile.
        let selectors = unsafe { (*self.segments.get()).load() };
        exceptions::load();
        instructions::set_known_registers();
        // SAFETY: the caller promises that this is the CPU itself, and the block was made for it alone.
        unsafe { percpu::install(self.percpu) };
        self.percpu.set_guest_pat(pat::load());
        // SAFETY: the segments and the block were loaded just now.
        unsafe { ThisCpu::new(selectors, self.percpu) }
    }
}
