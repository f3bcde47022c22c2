//! Memory while Vidar boots: the machine's, and Vidar's own, which is free frames and the page tables made from them.

use vidar_core::boot::memory_plan::MemoryPlan;
use vidar_core::loader::info::BootInfo;
use vidar_core::mem::addr::{Hpa, Hva, PageSize};
use vidar_core::mem::map::MemoryMap;

use super::tables::{self, Frames, HostTables, OutOfFrames};

/// The machine's memory while Vidar boots.
pub struct BootMemory<'a> {
    /// What the loader says, and where it has put it.
    pub info: &'a BootInfo<'a>,
    /// What Vidar keeps of the memory.
    pub plan: MemoryPlan<'a>,
    /// Vidar's own part of it.
    pub own: HostMemory,
}

/// The free frames of Vidar's memory, and Vidar's page tables.
#[derive(Debug)]
pub struct HostMemory {
    /// The free frames.
    pub frames: Frames,
    /// The page tables.
    pub tables: HostTables,
}

impl HostMemory {
    /// Builds page tables that map the image and the direct map: the first 4 GiB, and above them what `map` says is
    /// memory. Panics at a second call.
    ///
    /// # Errors
    /// [`OutOfFrames`] if the region has too few frames.
    pub fn build(map: &MemoryMap<'_>, largest: PageSize) -> Result<Self, OutOfFrames> {
        let mut frames = tables::frames();
        let tables = HostTables::build(&mut frames, map, largest)?;
        Ok(Self { frames, tables })
    }

    /// Maps a new stack, as [`HostTables::map_stack`] does.
    ///
    /// # Errors
    /// [`OutOfFrames`] if too few frames are free.
    pub fn map_stack(&mut self, pages: u64) -> Result<u64, OutOfFrames> {
        self.tables.map_stack(&mut self.frames, pages)
    }

    /// Makes the page tables of a CPU's window, as [`HostTables::map_window`] does.
    ///
    /// # Errors
    /// [`OutOfFrames`] if too few frames are free.
    pub fn map_window(&mut self, cpu: u32) -> Result<(), OutOfFrames> {
        self.tables.map_window(&mut self.frames, cpu)
    }

    /// Maps the framebuffer, as [`HostTables::map_screen`] does.
    ///
    /// # Errors
    /// [`OutOfFrames`] if too few frames are free.
    pub fn map_screen(&mut self, base: Hpa, bytes: u64) -> Result<Hva, OutOfFrames> {
        self.tables.map_screen(&mut self.frames, base, bytes)
    }

    /// Maps the registers of a device, as [`HostTables::map_registers`] does.
    ///
    /// # Errors
    /// [`OutOfFrames`] if too few frames are free.
    pub fn map_registers(&mut self, base: Hpa, bytes: u64) -> Result<Hva, OutOfFrames> {
        self.tables.map_registers(&mut self.frames, base, bytes)
    }

    /// Maps a page at its own address, as [`HostTables::map_identity`] does.
    ///
    /// # Errors
    /// [`OutOfFrames`] if too few frames are free.
    pub fn map_identity(&mut self, page: Hpa) -> Result<(), OutOfFrames> {
        self.tables.map_identity(&mut self.frames, page)
    }
}
