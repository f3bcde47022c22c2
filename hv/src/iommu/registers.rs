//! The registers of a remapping unit, and the memory of the queue by which Vidar has it forget translations.

#![expect(unsafe_code, reason = "registers are accessed, and memory that a device reads and writes")]

use core::arch::x86_64::_mm_clflush;

use vidar_core::iommu::unit::{Hardware, SLOTS};
use vidar_core::mem::addr::{Hpa, Hva, PAGE_SIZE};
use vidar_core::mem::layout::direct;

use crate::host::memory::HostMemory;
use crate::host::tables::OutOfFrames;

/// The registers of a unit, mapped for good, and two frames that no one else uses.
pub struct Registers {
    start: Hva,
    mapped: usize,
    queue: Hpa,
    progress: Hpa,
}

impl Registers {
    /// Maps the registers at `base`, as many pages as they may have.
    ///
    /// # Safety
    /// A remapping unit has its registers there, or nothing answers. No memory is there, and all pages are below the
    /// end of physical addresses.
    ///
    /// # Errors
    /// [`OutOfFrames`] if too few frames are free.
    pub unsafe fn map(memory: &mut HostMemory, base: Hpa) -> Result<Self, OutOfFrames> {
        let mapped = MOST;
        let start = memory.map_registers(base, mapped as u64)?;
        let mut frame = || memory.frames.allocate().ok_or(OutOfFrames);
        Ok(Self { start, mapped, queue: frame()?, progress: frame()? })
    }

    /// Returns the address of the 32 bits at `offset`, or `None` if they are not mapped.
    fn at(&self, offset: usize) -> Option<*mut u32> {
        let inside = offset.is_multiple_of(4) && offset < self.mapped;
        inside.then(|| (self.start.0 as *mut u32).wrapping_byte_add(offset))
    }
}

/// The most bytes that the registers of a unit have: the offsets of the last ones have ten bits, in units of 16 bytes,
/// and up to 256 records of faults follow.
pub const MOST: usize = (0x3ff * 16 + 256 * 16_usize).next_multiple_of(PAGE_SIZE as usize);

impl Hardware for Registers {
    fn read(&mut self, offset: usize) -> u32 {
        // SAFETY: the register is mapped, for good. Reading a register of a unit has no side effect.
        self.at(offset).map_or(u32::MAX, |at| unsafe { at.read_volatile() })
    }

    fn write(&mut self, offset: usize, value: u32) {
        if let Some(at) = self.at(offset) {
            // SAFETY: the register is mapped, for good. What it may hold is decided by `vidar_core::iommu`: tables and
            // a queue in Vidar's memory, which keep devices away from it, and the guest's own table of interrupts.
            unsafe { at.write_volatile(value) };
        }
    }

    fn queue(&self) -> Hpa {
        self.queue
    }

    fn put(&mut self, slot: usize, descriptor: [u64; 2]) {
        let at = (direct(self.queue).0 as *mut [u64; 2]).wrapping_add(slot % SLOTS);
        // SAFETY: the slot is in a frame of Vidar's own memory, which the direct map has writable. Only this function
        // writes to it, and the unit reads it after the register of the tail has been written. A unit that does not
        // snoop the caches reads memory, so the line is written back.
        unsafe {
            at.write_volatile(descriptor);
            _mm_clflush(at.cast());
        }
    }

    fn progress_at(&self) -> Hpa {
        self.progress
    }

    fn progress(&mut self) -> u32 {
        // SAFETY: the word is in a frame of Vidar's own memory, which the direct map has. The unit alone writes to it.
        unsafe { (direct(self.progress).0 as *const u32).read_volatile() }
    }
}
