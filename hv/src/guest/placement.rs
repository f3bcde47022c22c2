//! Where the kernel, its initrd and what they are told go in memory.
//!
//! Decided before anything is copied, from the memory map and the modules alone.

use alloc::vec::Vec;
use core::ops::Range;

use super::bzimage::BzImage;
use crate::mem::addr::{Hpa, PAGE_SIZE, overlaps};
use crate::mem::map::MemoryMap;
use crate::mem::ranges::RangeSet;

const MIB: u64 = 1 << 20;
/// The kernel is entered in 32-bit mode, and so has to lie below 4 GiB with all that it is told.
const BELOW_4G: Hpa = Hpa(1 << 32);
/// Conventional memory that neither the BIOS nor a real-mode trampoline uses: Linux,
/// Documentation/arch/x86/boot.rst, "Memory Layout".
const CONVENTIONAL: Range<Hpa> = Hpa(0x1_0000)..Hpa(0xa_0000);

/// What there is to place, and what is in the way.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The machine's memory.
    pub map: &'a MemoryMap,
    /// Vidar's own memory, hidden from the guest.
    pub hidden: Range<Hpa>,
    /// What else must not be overwritten before the guest runs. The modules need not be named here.
    pub keep: &'a [Range<Hpa>],
    /// The kernel.
    pub kernel: &'a BzImage,
    /// Where the kernel file lies.
    pub kernel_module: Range<Hpa>,
    /// Where the initrd lies, if there is one.
    pub initrd_module: Option<Range<Hpa>>,
    /// Bytes for the hand-over block: boot_params, the command line and a GDT.
    pub handover_size: u64,
}

/// One copy. Source and destination may overlap, so it must behave as memmove does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The bytes to copy.
    pub from: Range<Hpa>,
    /// Where the first of them goes.
    pub to: Hpa,
}

/// Where everything goes. All of it is usable RAM outside of Vidar, and nothing overlaps anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Where the kernel is loaded and entered.
    pub kernel: Hpa,
    /// The memory that the kernel uses before it reads the memory map; it begins at `kernel`.
    pub kernel_run: Range<Hpa>,
    /// Where the initrd is in the end, to the byte.
    pub initrd: Option<Range<Hpa>>,
    /// What is to be copied, in this order.
    pub moves: Vec<Move>,
    /// The hand-over block: below 4 GiB, page-aligned. No move reads or writes it, so it may be filled at any time.
    pub handover: Hpa,
}

/// Why there is no placement. Each is a sentence for the user; sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// No piece of memory is large enough for the kernel.
    #[error(
        "too little memory for the kernel: it needs {} MiB in one piece between {} MiB and 4 GiB, and of the machine's \
         {} MiB the largest free piece there has {} MiB: give the machine more memory or use a smaller kernel",
        .needed.div_ceil(MIB), .above.0.div_ceil(MIB), .machine / MIB, .largest / MIB
    )]
    Kernel {
        /// What the kernel needs.
        needed: u64,
        /// The lowest place that it can run at.
        above: Hpa,
        /// The usable memory of the machine.
        machine: u64,
        /// The largest free piece where the kernel could go.
        largest: u64,
    },
    /// The memory that a kernel insists on is not there.
    #[error(
        "the kernel can run only at {at}, where {} MiB are not free: use a relocatable kernel (CONFIG_RELOCATABLE=y), \
         as distributions ship it",
        .needed.div_ceil(MIB)
    )]
    FixedKernel {
        /// Where the kernel has to be.
        at: Hpa,
        /// What it needs there.
        needed: u64,
    },
    /// No piece of memory is large enough for the initrd.
    #[error(
        "too little memory for the initrd: it needs {} MiB in one piece below {} MiB, and of the machine's {} MiB the \
         largest free piece there has {} MiB: give the machine more memory or use a smaller initrd",
        .needed.div_ceil(MIB), .below.0 / MIB, .machine / MIB, .largest / MIB
    )]
    Initrd {
        /// What the initrd needs.
        needed: u64,
        /// Where the kernel wants it to end.
        below: Hpa,
        /// The usable memory of the machine.
        machine: u64,
        /// The largest free piece below `below`.
        largest: u64,
    },
    /// No piece of memory is large enough for the hand-over block.
    #[error(
        "too little memory below 4 GiB: no {} KiB are free for what the kernel is told at its start: give the machine \
         more memory",
        .needed.div_ceil(1024)
    )]
    Handover {
        /// What the block needs.
        needed: u64,
    },
}

/// Decides where everything goes.
///
/// The kernel goes where it prefers to be if that is free, or else to the lowest place above. The initrd stays where
/// it lies if the kernel can use it there, or else goes as high as it may.
pub fn place(request: &Request<'_>) -> Result<Placement, PlacementError> {
    let kernel = request.kernel;
    let mut free = request.map.usable();
    free.remove(&request.hidden);
    for range in request.keep {
        free.remove(range);
    }

    // A kernel that is loaded below pref_address moves itself up there as it starts (Linux,
    // arch/x86/boot/compressed/head_64.S, LOAD_PHYSICAL_ADDR), so only higher places are other places.
    let preferred = kernel.pref_address.max(Hpa(MIB)).align_up(kernel.alignment).unwrap_or(BELOW_4G);
    let window = preferred..BELOW_4G;
    if !kernel.relocatable {
        let at = kernel.pref_address;
        let run = range(at, kernel.init_size).filter(|run| run.end <= BELOW_4G && free.covers(run));
        let run = run.ok_or(PlacementError::FixedKernel { at, needed: kernel.init_size })?;
        return place_around(request, &free, run);
    }

    let lowest = |free: &RangeSet| free.lowest_fit(kernel.init_size, kernel.alignment, &window);
    let first = lowest(&free).ok_or_else(|| PlacementError::Kernel {
        needed: kernel.init_size,
        above: preferred,
        machine: request.map.usable_bytes(),
        largest: largest_piece(&free, &window),
    })?;
    // If the initrd would have to make way and has nowhere to go, it is the kernel that must.
    let mut beside_initrd = free.clone();
    beside_initrd.remove(&pages(request.initrd_module.as_ref()));
    let attempt = |at| place_around(request, &free, at..at + kernel.init_size);
    attempt(first).or_else(|error| lowest(&beside_initrd).map_or(Err(error), attempt))
}

/// Places the rest around the kernel.
fn place_around(
    request: &Request<'_>,
    free: &RangeSet,
    kernel_run: Range<Hpa>,
) -> Result<Placement, PlacementError> {
    let kernel = request.kernel;
    let source = &request.kernel_module;
    let in_source = |offset: usize| Hpa(source.start.0.saturating_add(offset as u64));
    let payload = in_source(kernel.payload.start)..in_source(kernel.payload.end);

    let initrd = request.initrd_module.clone().filter(|initrd| !initrd.is_empty());
    let initrd_end = Hpa(kernel.initrd_addr_max.0.saturating_add(1));
    let initrd_pages = pages(initrd.as_ref());
    let initrd_stays = initrd.as_ref().is_none_or(|initrd| {
        let mut ram = request.map.usable();
        ram.remove(&request.hidden);
        initrd.start.is_aligned(PAGE_SIZE)
            && initrd_pages.end <= initrd_end
            && ram.covers(&initrd_pages)
            && !overlaps(&initrd_pages, &kernel_run)
    });

    // What is left for the block, and then for the initrd: nothing that is still to be read, nothing that is final.
    let mut left = free.clone();
    left.remove(&kernel_run);
    left.remove(source);
    let mut beside_modules = left.clone();
    beside_modules.remove(&initrd_pages);
    let handover = beside_modules
        .lowest_fit(request.handover_size, PAGE_SIZE, &CONVENTIONAL)
        .or_else(|| beside_modules.lowest_fit(request.handover_size, PAGE_SIZE, &(Hpa(MIB)..BELOW_4G)))
        .ok_or(PlacementError::Handover { needed: request.handover_size })?;
    left.remove(&(handover..handover + request.handover_size));

    let mut moves = Vec::with_capacity(2);
    let initrd = match initrd {
        Some(initrd) if !initrd_stays => {
            let size = initrd.end.0 - initrd.start.0;
            let whole = size.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
            let window = Hpa(MIB)..initrd_end;
            let to = left.highest_fit(whole, PAGE_SIZE, &window).ok_or_else(|| PlacementError::Initrd {
                needed: whole,
                below: initrd_end,
                machine: request.map.usable_bytes(),
                largest: largest_piece(&left, &window),
            })?;
            moves.push(Move { from: initrd, to });
            Some(to..to + size)
        }
        initrd => initrd,
    };
    // Last, because the kernel may well go where the initrd was.
    moves.push(Move { from: payload, to: kernel_run.start });
    Ok(Placement { kernel: kernel_run.start, kernel_run, initrd, moves, handover })
}

/// The pages that a module touches. The kernel gives whole pages back to itself when it is done with an initrd.
fn pages(module: Option<&Range<Hpa>>) -> Range<Hpa> {
    match module {
        Some(module) if !module.is_empty() => {
            let end = module.end.align_up(PAGE_SIZE).unwrap_or(Hpa(u64::MAX));
            module.start.align_down(PAGE_SIZE)..end
        }
        _ => Hpa(0)..Hpa(0),
    }
}

fn range(start: Hpa, size: u64) -> Option<Range<Hpa>> {
    Some(start..Hpa(start.0.checked_add(size)?))
}

/// Bytes in the largest piece of `set` inside `window`.
fn largest_piece(set: &RangeSet, window: &Range<Hpa>) -> u64 {
    let inside =
        |range: &Range<Hpa>| range.end.min(window.end).0.saturating_sub(range.start.max(window.start).0);
    set.iter().map(inside).max().unwrap_or(0)
}
