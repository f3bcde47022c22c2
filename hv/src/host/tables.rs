//! Vidar's own page tables: they map the image with W^X, the direct map without execution, and stacks with guard pages.

#![expect(
    unsafe_code,
    reason = "page tables are built and loaded here, and frames are reached through the direct map"
)]

use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use vidar_core::mem::addr::{Hpa, Hva, PAGE_SIZE, PageSize};
use vidar_core::mem::frame::{FrameMemory, FramePool};
use vidar_core::mem::layout::{self, DEVICES, DIRECT_MAP, SCREEN, STACKS, direct};
use vidar_core::mem::map::MemoryMap;
use vidar_core::mem::mtrr::MemoryType;
use vidar_core::mem::pat::HOST_PAT;
use vidar_core::mem::ranges::RangeSet;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::mapper::{MapToError, Mapper};
use x86_64::structures::paging::{
    FrameAllocator, OffsetPageTable, Page, PageSize as HardwarePageSize, PageTable, PageTableFlags,
    PhysFrame, Size1GiB, Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::image;

/// The frames of Vidar's own memory, which is accessed through the direct map.
pub type Frames = FramePool<Direct>;

/// The direct map as [`FrameMemory`]. Only frames of Vidar's own memory are accessed through it.
#[derive(Debug)]
pub struct Direct(());

impl Direct {
    /// Returns the address of the word at `index` of a frame.
    fn word(frame: Hpa, index: usize) -> *mut u64 {
        (direct(frame).0 as *mut u64).wrapping_add(index & 511)
    }
}

/// A range of Vidar's own memory that nothing uses, for the pool of frames.
#[derive(Debug)]
pub struct FreeRange(Range<Hpa>);

impl FreeRange {
    /// Returns the range as a free one.
    ///
    /// # Safety
    /// The direct map has the range writable, and nothing uses it or will be given it in another way.
    pub const unsafe fn new(range: Range<Hpa>) -> Self {
        Self(range)
    }
}

impl From<FreeRange> for Range<Hpa> {
    fn from(free: FreeRange) -> Self {
        free.0
    }
}

impl FrameMemory for Direct {
    type Free = FreeRange;

    fn zero(&mut self, frame: Hpa) {
        // SAFETY: the frame comes from a pool of Vidar's own memory, which the direct map has writable.
        unsafe { Self::word(frame, 0).write_bytes(0, 512) };
    }

    fn read(&self, frame: Hpa, index: usize) -> u64 {
        // SAFETY: the frame is in the direct map, as in `zero`. The CPU may read page tables at the same time, but only
        // Vidar writes to them.
        unsafe { Self::word(frame, index).read_volatile() }
    }

    fn write(&mut self, frame: Hpa, index: usize, word: u64) {
        // SAFETY: the frame is in the direct map, as in `zero`, and the CPU reads each word as a whole.
        unsafe { Self::word(frame, index).write_volatile(word) };
    }
}

/// The pool of frames as the allocator of the mapper.
struct Allocator<'a>(&'a mut Frames);

// SAFETY: the pool hands out no frame that is in use.
unsafe impl FrameAllocator<Size4KiB> for Allocator<'_> {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        self.0.allocate().map(|frame| PhysFrame::containing_address(PhysAddr::new(frame.0)))
    }
}

/// Returns the pool of all frames that are free while the trampoline's page tables are still in use. Panics at a second
/// call, since two pools would hand out the same frames.
pub fn frames() -> Frames {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    assert!(!TAKEN.swap(true, Ordering::Relaxed), "the free frames are in a pool already");
    // SAFETY: the frames are the rest of Vidar's region, which nothing has used so far, and only this call takes them.
    FramePool::new(Direct(()), unsafe { FreeRange::new(image::free_frames()) })
}

/// Adds the frames of the trampoline's page tables and stack to `pool`.
///
/// # Safety
/// This CPU runs on Vidar's own page tables and on another stack, and this is the first call.
pub unsafe fn reclaim_boot_frames(pool: &mut Frames) {
    // SAFETY: the caller promises that this CPU has left the trampoline's page tables and stack, and that this is the
    // first call.
    pool.add_first(unsafe { FreeRange::new(image::boot_frames()) });
}

/// Vidar's memory has too few free frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfFrames;

impl<S: HardwarePageSize + core::fmt::Debug> From<MapToError<S>> for OutOfFrames {
    fn from(error: MapToError<S>) -> Self {
        match error {
            MapToError::FrameAllocationFailed => Self,
            other => panic!("cannot map Vidar's own memory: {other:?}"),
        }
    }
}

/// The flags of memory that may be read and written, but not executed.
const READ_WRITE: PageTableFlags =
    PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE).union(PageTableFlags::NO_EXECUTE);

/// The flag that makes a large page write-combining. It is the high bit of the page's index into the PAT, so the index
/// is 4.
const LARGE_WRITE_COMBINING: u64 = 1 << 12;
const _: () = assert!(HOST_PAT >> (4 * 8) & 0xff == MemoryType::WriteCombining as u64);

/// The flags of a page that is not cached, whatever the MTRRs say. They are the low bits of the page's index into the
/// PAT, so the index is 3.
const UNCACHEABLE: PageTableFlags = PageTableFlags::WRITE_THROUGH.union(PageTableFlags::NO_CACHE);
const _: () = assert!(HOST_PAT >> (3 * 8) & 0xff == MemoryType::Uncacheable as u64);

/// Returns the part of the machine's memory that [`HostTables`] has in the direct map: everything below 4 GiB, and
/// above it memory of any kind. Vidar's region is not in the result.
pub fn in_direct_map(map: &MemoryMap<'_>) -> RangeSet {
    let mut covered = map.memory();
    covered.insert(Hpa(0)..Hpa(FOUR_GIB));
    covered.remove(&image::region());
    covered
}

/// The end of the memory that is in the direct map whatever the memory map says.
const FOUR_GIB: u64 = 4 << 30;

/// Vidar's page tables, which are built while the trampoline's are in use, and then loaded.
#[derive(Debug)]
pub struct HostTables {
    mapper: OffsetPageTable<'static>,
    root: Hpa,
    next_stack: u64,
    next_device: u64,
}

impl HostTables {
    /// Builds tables that map the image and the direct map: the first 4 GiB, and above them what `map` says is memory.
    /// `largest` is the largest page that the CPU supports.
    ///
    /// # Errors
    /// [`OutOfFrames`] if `frames` runs out.
    pub fn build(frames: &mut Frames, map: &MemoryMap<'_>, largest: PageSize) -> Result<Self, OutOfFrames> {
        let root = frames.allocate().ok_or(OutOfFrames)?;
        // SAFETY: the frame is zeroed, belongs to the tables for good, and is in the direct map. So are all frames that
        // the mapper will take from the pool.
        let mapper = unsafe {
            let table = &mut *(direct(root).0 as *mut PageTable);
            OffsetPageTable::new(table, VirtAddr::new(DIRECT_MAP))
        };
        let mut tables = Self { mapper, root, next_stack: STACKS, next_device: DEVICES };
        tables.map_direct(frames, map, largest)?;
        for section in image::sections() {
            let mut flags = PageTableFlags::PRESENT;
            flags.set(PageTableFlags::WRITABLE, section.writable);
            flags.set(PageTableFlags::NO_EXECUTE, !section.executable);
            let pages = (section.range.start.0..section.range.end.0).step_by(PAGE_SIZE as usize);
            for (index, frame) in pages.enumerate() {
                let at = section.at.0 + index as u64 * PAGE_SIZE;
                tables.map::<Size4KiB>(frames, at, Hpa(frame), flags)?;
            }
        }
        Ok(tables)
    }

    /// Builds the direct map. It leaves out the sections of the image, so that none can be written through another
    /// mapping.
    fn map_direct(
        &mut self,
        frames: &mut Frames,
        map: &MemoryMap<'_>,
        largest: PageSize,
    ) -> Result<(), OutOfFrames> {
        let region = image::region();
        for page in (0..FOUR_GIB).step_by(PageSize::Size2M.bytes() as usize) {
            if page != region.start.0 {
                self.map::<Size2MiB>(frames, direct(Hpa(page)).0, Hpa(page), READ_WRITE)?;
            }
        }
        for frame in (image::boot_frames().start.0..region.end.0).step_by(PAGE_SIZE as usize) {
            self.map::<Size4KiB>(frames, direct(Hpa(frame)).0, Hpa(frame), READ_WRITE)?;
        }
        let step = largest.max(PageSize::Size2M).bytes();
        let mut next = FOUR_GIB;
        for range in &map.memory() {
            let mut page = range.start.0.max(next) & !(step - 1);
            while page < range.end.0 {
                match largest {
                    PageSize::Size1G => {
                        self.map::<Size1GiB>(frames, direct(Hpa(page)).0, Hpa(page), READ_WRITE)?;
                    }
                    _ => self.map::<Size2MiB>(frames, direct(Hpa(page)).0, Hpa(page), READ_WRITE)?,
                }
                page += step;
                next = page;
            }
        }
        Ok(())
    }

    /// Maps the page at `at` to the memory at `to`. Panics if the page is mapped already.
    fn map<S>(
        &mut self,
        frames: &mut Frames,
        at: u64,
        to: Hpa,
        flags: PageTableFlags,
    ) -> Result<(), OutOfFrames>
    where
        S: HardwarePageSize + core::fmt::Debug,
        OffsetPageTable<'static>: Mapper<S>,
    {
        let page = Page::<S>::containing_address(VirtAddr::new(at));
        let frame = PhysFrame::<S>::containing_address(PhysAddr::new(to.0));
        // SAFETY: the mapper refuses a page that is mapped already, so no existing reference changes its meaning.
        unsafe { self.mapper.map_to(page, frame, flags, &mut Allocator(frames)) }?.ignore();
        Ok(())
    }

    /// Maps a new stack of `pages` pages, above a page that is not mapped. Returns the address at which the stack
    /// starts to grow down.
    ///
    /// # Errors
    /// [`OutOfFrames`] if `frames` runs out.
    pub fn map_stack(&mut self, frames: &mut Frames, pages: u64) -> Result<u64, OutOfFrames> {
        self.next_stack += PAGE_SIZE;
        for _ in 0..pages {
            let frame = frames.allocate().ok_or(OutOfFrames)?;
            self.map::<Size4KiB>(frames, self.next_stack, frame, READ_WRITE)?;
            self.next_stack += PAGE_SIZE;
        }
        Ok(self.next_stack)
    }

    /// Makes the page tables for the window of `cpu`, and maps nothing in the window.
    ///
    /// # Errors
    /// [`OutOfFrames`] if `frames` runs out.
    pub fn map_window(&mut self, frames: &mut Frames, cpu: u32) -> Result<(), OutOfFrames> {
        let at = layout::window(cpu).0;
        self.map::<Size4KiB>(frames, at, self.root, READ_WRITE)?;
        let page = Page::<Size4KiB>::containing_address(VirtAddr::new(at));
        self.mapper.unmap(page).expect("the page has just been mapped").1.flush();
        Ok(())
    }

    /// Maps the framebuffer, `bytes` bytes at `base`, as write-combining, and returns its address. The MTRRs make
    /// framebuffers uncached, so that each write would be slow otherwise.
    ///
    /// # Errors
    /// [`OutOfFrames`] if `frames` runs out.
    pub fn map_screen(&mut self, frames: &mut Frames, base: Hpa, bytes: u64) -> Result<Hva, OutOfFrames> {
        let flags = READ_WRITE | PageTableFlags::from_bits_retain(LARGE_WRITE_COMBINING);
        let size = PageSize::Size2M.bytes();
        let first = base.align_down(size);
        for offset in (0..base.0 - first.0 + bytes).step_by(size as usize) {
            self.map::<Size2MiB>(frames, SCREEN + offset, first + offset, flags)?;
        }
        Ok(Hva(SCREEN + base.0 - first.0))
    }

    /// Maps the registers of a device, `bytes` bytes at `base`, a page's start, as uncacheable. Returns their address.
    ///
    /// # Errors
    /// [`OutOfFrames`] if `frames` runs out.
    pub fn map_registers(&mut self, frames: &mut Frames, base: Hpa, bytes: u64) -> Result<Hva, OutOfFrames> {
        let start = self.next_device;
        for offset in (0..bytes).step_by(PAGE_SIZE as usize) {
            self.map::<Size4KiB>(frames, self.next_device, base + offset, READ_WRITE | UNCACHEABLE)?;
            self.next_device += PAGE_SIZE;
        }
        Ok(Hva(start))
    }

    /// Returns the address of the root table.
    pub const fn root(&self) -> Hpa {
        self.root
    }

    /// Maps the page at `page`, below 1 MiB, at its own address as well, executable and read-only. A CPU that enables
    /// paging in that page can so continue there.
    ///
    /// # Errors
    /// [`OutOfFrames`] if `frames` runs out.
    pub fn map_identity(&mut self, frames: &mut Frames, page: Hpa) -> Result<(), OutOfFrames> {
        self.map::<Size4KiB>(frames, page.0, page, PageTableFlags::PRESENT)
    }

    /// Removes all that [`HostTables::map_identity`] has mapped. No CPU may be executing there.
    pub fn unmap_identity(&mut self) {
        self.mapper.level_4_table_mut()[0].set_unused();
        x86_64::instructions::tlb::flush_all();
    }

    /// Makes this CPU use these tables.
    pub fn load(&self) {
        // SAFETY: the tables map the image and the direct map at the same addresses as those in use. They also map the
        // stack in use: the trampoline's in the direct map, and any later one among the stacks.
        unsafe { Cr3::write(PhysFrame::containing_address(PhysAddr::new(self.root.0)), Cr3Flags::empty()) };
    }
}
