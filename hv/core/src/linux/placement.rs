//! Where the kernel, its initrd and the hand-over block go in memory.
//!
//! [`place`] decides this from the memory map and the modules alone, before anything is copied.

use core::ops::Range;

use super::bzimage::BzImage;
use crate::mem::addr::{Hpa, PAGE_SIZE, overlaps};
use crate::mem::map::MemoryMap;
use crate::mem::ranges::RangeSet;

const MIB: u64 = 1 << 20;
/// The kernel is entered in 32-bit mode, so the kernel and the hand-over block must lie below 4 GiB.
const BELOW_4G: Hpa = Hpa(1 << 32);
/// Conventional memory that neither the BIOS nor a real-mode trampoline uses. Linux, Documentation/arch/x86/boot.rst,
/// "Memory Layout".
const CONVENTIONAL: Range<Hpa> = Hpa(0x1_0000)..Hpa(0xa_0000);

/// Each part of an initrd begins at a multiple of this many bytes, counted from the initrd's start; zero bytes fill the
/// gaps. Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
pub const ALIGNMENT: u64 = 4;

/// What is to be placed, and what must not be overwritten.
#[derive(Debug, Clone)]
pub struct Request<'a, K, I> {
    /// The machine's memory.
    pub map: &'a MemoryMap<'a>,
    /// Vidar's region, which is hidden from the guest.
    pub hidden: Range<Hpa>,
    /// Memory that must not be overwritten at all, neither now nor while the kernel starts.
    pub keep: K,
    /// The boot loader's information. It is read until the last part of the initrd has been moved; after that the
    /// kernel may be placed there.
    pub information: Range<Hpa>,
    /// The kernel.
    pub kernel: &'a BzImage,
    /// Where the kernel file lies.
    pub kernel_module: Range<Hpa>,
    /// Where the parts of the initrd lie, in order.
    pub initrds: I,
    /// Size of the hand-over block in bytes.
    pub handover_size: u64,
}

/// One copy of bytes. Source and destination may overlap, so it must work like memmove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The bytes to copy.
    pub from: Range<Hpa>,
    /// Destination of the first byte.
    pub to: Hpa,
    /// Number of zero bytes to write after the copied ones.
    pub zeros: u64,
}

/// Where everything goes. Every place is usable RAM outside of Vidar's region, and no two places overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Address at which the kernel is loaded and entered.
    pub kernel: Hpa,
    /// The memory that the kernel uses before it reads the memory map; it begins at `kernel`.
    pub kernel_run: Range<Hpa>,
    /// Where the initrd lies once its parts have been moved together, exact to the byte; `None` without one.
    pub initrd: Option<Range<Hpa>>,
    /// Where the kernel's code lies in its file.
    payload: Range<Hpa>,
    /// Address of the hand-over block: below 4 GiB and page-aligned. No move reads or writes the block.
    pub handover: Hpa,
}

impl Placement {
    /// Returns the copies to make, in order, once the hand-over block has been written. `initrds` are those of the
    /// [`Request`].
    pub fn moves(&self, initrds: impl Iterator<Item = Range<Hpa>>) -> impl Iterator<Item = Move> {
        let start = self.initrd.as_ref().map_or(Hpa(0), |initrd| initrd.start);
        let end = self.initrd.as_ref().map_or(Hpa(0), |initrd| initrd.end);
        let steps = parts(initrds).map(move |(offset, from)| {
            let to = start + offset;
            let after = to + size(&from);
            let zeros = after.align_up(ALIGNMENT).map_or(0, |next| next.min(end).0.saturating_sub(after.0));
            Move { from, to, zeros }
        });
        let steps = steps.filter(|step| step.from.start != step.to || step.zeros > 0);
        // The kernel comes last, because its destination may overlap the place where the initrd was.
        steps.chain([Move { from: self.payload.clone(), to: self.kernel, zeros: 0 }])
    }
}

/// The reasons why there is no placement. Each is displayed as a sentence for the user; all sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// No free piece of memory is large enough for the kernel.
    #[error(
        "too little memory for the kernel: it needs {} MiB in one piece between {} MiB and 4 GiB, and of the machine's \
         {} MiB the largest free piece there has {} MiB: give the machine more memory or use a smaller kernel",
        .needed.div_ceil(MIB), .above.0.div_ceil(MIB), .machine / MIB, .largest / MIB
    )]
    Kernel {
        /// Size that the kernel needs.
        needed: u64,
        /// Lowest address at which the kernel can run.
        above: Hpa,
        /// Usable memory of the machine.
        machine: u64,
        /// Largest free piece where the kernel could go.
        largest: u64,
    },
    /// The only address at which the kernel can run is not free.
    #[error(
        "the kernel can run only at {at}, where {} MiB are not free: use a relocatable kernel (CONFIG_RELOCATABLE=y), \
         as distributions ship it",
        .needed.div_ceil(MIB)
    )]
    FixedKernel {
        /// The address at which the kernel must be loaded.
        at: Hpa,
        /// Size that the kernel needs there.
        needed: u64,
    },
    /// No free piece of memory is large enough for the initrd.
    #[error(
        "too little memory for the initrd: it needs {} MiB in one piece below {} MiB, and of the machine's {} MiB the \
         largest free piece there has {} MiB: give the machine more memory or use a smaller initrd",
        .needed.div_ceil(MIB), .below.0 / MIB, .machine / MIB, .largest / MIB
    )]
    Initrd {
        /// Size that the initrd needs.
        needed: u64,
        /// Address at which the initrd must end, as the kernel's header demands.
        below: Hpa,
        /// Usable memory of the machine.
        machine: u64,
        /// Largest free piece below `below`.
        largest: u64,
    },
    /// No free piece of memory is large enough for the hand-over block.
    #[error(
        "too little memory below 4 GiB: there are no {} KiB free for the data that the kernel is handed at its start: \
         give the machine more memory",
        .needed.div_ceil(1024)
    )]
    Handover {
        /// Size that the block needs.
        needed: u64,
    },
}

/// Decides where everything goes.
///
/// The kernel goes to its preferred address if that is free, and otherwise to the lowest suitable address above it. The
/// initrd stays in its place if the kernel can use it there, and otherwise goes as high as the kernel allows.
///
/// # Errors
/// A [`PlacementError`] that says which part does not fit.
pub fn place<K, I>(request: &Request<'_, K, I>) -> Result<Placement, PlacementError>
where
    K: Iterator<Item = Range<Hpa>> + Clone,
    I: Iterator<Item = Range<Hpa>> + Clone,
{
    let kernel = request.kernel;
    let mut free = request.map.usable();
    free.remove(&request.hidden);
    request.keep.clone().for_each(|range| free.remove(&range));

    // A kernel that is loaded below pref_address moves itself up there as it starts (Linux,
    // arch/x86/boot/compressed/head_64.S, LOAD_PHYSICAL_ADDR), so only addresses above it are tried.
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
    // If the initrd would have to move for the kernel and has nowhere to go, the kernel goes elsewhere instead.
    let mut beside_initrd = free.clone();
    request.initrds.clone().for_each(|module| beside_initrd.remove(&pages(&module)));
    let attempt = |at| place_around(request, &free, at..at + kernel.init_size);
    attempt(first).or_else(|error| lowest(&beside_initrd).map_or(Err(error), attempt))
}

/// Places the initrd and the hand-over block around a kernel that will use `kernel_run`.
fn place_around<K, I>(
    request: &Request<'_, K, I>,
    free: &RangeSet,
    kernel_run: Range<Hpa>,
) -> Result<Placement, PlacementError>
where
    K: Iterator<Item = Range<Hpa>> + Clone,
    I: Iterator<Item = Range<Hpa>> + Clone,
{
    let kernel = request.kernel;
    let source = &request.kernel_module;
    let in_source = |offset: usize| Hpa(source.start.0.saturating_add(offset as u64));
    let payload = in_source(kernel.payload.start)..in_source(kernel.payload.end);

    let initrd_end = Hpa(kernel.initrd_addr_max.0.saturating_add(1));
    let initrd_size =
        parts(request.initrds.clone()).last().map(|(offset, last)| offset.saturating_add(size(&last)));
    let stays = in_place(request, &kernel_run, initrd_end);

    // The hand-over block, and after it the initrd, may go where nothing is that is still to be read, and nothing that
    // has its final place.
    let mut left = free.clone();
    left.remove(&kernel_run);
    left.remove(source);
    left.remove(&request.information);
    let mut beside_modules = left.clone();
    request.initrds.clone().for_each(|module| beside_modules.remove(&pages(&module)));
    beside_modules.remove(&stays.as_ref().map_or(Hpa(0)..Hpa(0), pages));
    let handover = beside_modules
        .lowest_fit(request.handover_size, PAGE_SIZE, &CONVENTIONAL)
        .or_else(|| beside_modules.lowest_fit(request.handover_size, PAGE_SIZE, &(Hpa(MIB)..BELOW_4G)))
        .ok_or(PlacementError::Handover { needed: request.handover_size })?;
    left.remove(&(handover..handover + request.handover_size));

    let initrd = match (stays, initrd_size) {
        (None, Some(size)) => {
            // A part may overlap its own destination, but not the source of a part that is moved later.
            if parts(request.initrds.clone()).nth(1).is_some() {
                request.initrds.clone().for_each(|module| left.remove(&pages(&module)));
            }
            let whole = size.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
            let window = Hpa(MIB)..initrd_end;
            let to = left.highest_fit(whole, PAGE_SIZE, &window).ok_or_else(|| PlacementError::Initrd {
                needed: whole,
                below: initrd_end,
                machine: request.map.usable_bytes(),
                largest: largest_piece(&left, &window),
            })?;
            Some(to..to + size)
        }
        (stays, _) => stays,
    };
    Ok(Placement { kernel: kernel_run.start, kernel_run, initrd, payload, handover })
}

/// Returns where the initrd lies if its first part stays in its place and the others move down to it. Returns `None` if
/// it cannot be there, or if there is no initrd.
fn in_place<K, I>(request: &Request<'_, K, I>, kernel_run: &Range<Hpa>, end: Hpa) -> Option<Range<Hpa>>
where
    K: Iterator<Item = Range<Hpa>> + Clone,
    I: Iterator<Item = Range<Hpa>> + Clone,
{
    let (_, first) = parts(request.initrds.clone()).next()?;
    // Each part moves down or stays, so it overlaps no part that is moved later.
    let mut before = first.start;
    let mut initrd = first.start..first.start;
    for (offset, part) in parts(request.initrds.clone()) {
        let to = Hpa(first.start.0.checked_add(offset)?);
        if part.start < before || part.start < to {
            return None;
        }
        before = part.end;
        initrd.end = to + size(&part);
    }
    let whole = pages(&initrd);
    let mut ram = request.map.usable();
    ram.remove(&request.hidden);
    let fits = initrd.start.is_aligned(PAGE_SIZE)
        && whole.end <= end
        && ram.covers(&whole)
        && !overlaps(&whole, kernel_run)
        && !overlaps(&initrd, &request.kernel_module)
        && !overlaps(&initrd, &request.information)
        && !request.keep.clone().any(|kept| overlaps(&initrd, &kept));
    fits.then_some(initrd)
}

/// Returns the non-empty parts of an initrd, each with its offset in the whole.
fn parts(initrds: impl Iterator<Item = Range<Hpa>>) -> impl Iterator<Item = (u64, Range<Hpa>)> {
    initrds.filter(|part| !part.is_empty()).scan(0u64, |next, part| {
        let offset = *next;
        *next = offset.saturating_add(size(&part)).checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX);
        Some((offset, part))
    })
}

fn size(range: &Range<Hpa>) -> u64 {
    range.end.0.saturating_sub(range.start.0)
}

/// Returns the pages that a module touches: the kernel frees the initrd's memory in whole pages once it has unpacked
/// it.
fn pages(module: &Range<Hpa>) -> Range<Hpa> {
    if module.is_empty() {
        return Hpa(0)..Hpa(0);
    }
    module.start.align_down(PAGE_SIZE)..module.end.align_up(PAGE_SIZE).unwrap_or(Hpa(u64::MAX))
}

fn range(start: Hpa, size: u64) -> Option<Range<Hpa>> {
    Some(start..Hpa(start.0.checked_add(size)?))
}

/// Returns the size in bytes of the largest piece of `set` inside `window`.
fn largest_piece(set: &RangeSet, window: &Range<Hpa>) -> u64 {
    let inside =
        |range: &Range<Hpa>| range.end.min(window.end).0.saturating_sub(range.start.max(window.start).0);
    set.iter().map(inside).max().unwrap_or(0)
}
