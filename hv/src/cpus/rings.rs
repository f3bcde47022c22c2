//! The memory of the traces: a ring for each CPU.

#![expect(unsafe_code, reason = "frames become the slots of a ring")]

use alloc::boxed::Box;
use core::slice;

use vidar_core::boot::options::TraceSize;
use vidar_core::mem::addr::PAGE_SIZE;
use vidar_core::mem::layout::direct;
use vidar_core::trace::ring::{Ring, Slot};
use vidar_core::vmm::percpu::PerCpu;

use crate::host::tables::Frames;

/// Returns the number of frames of a ring of this size.
pub const fn frames(size: TraceSize) -> usize {
    size.bytes.div_ceil(PAGE_SIZE as usize)
}

/// Gives each of these CPUs a ring of this size out of `pool`, in which `reserve` frames stay free. Where too few are
/// left, the guest runs without a trace of the last CPUs.
pub fn keep(cpus: &[&PerCpu], size: TraceSize, pool: &mut Frames, reserve: usize) {
    for (index, cpu) in cpus.iter().enumerate() {
        let enough = pool.available() >= frames(size) + reserve;
        let Some(start) = enough.then(|| pool.allocate_run(frames(size))).flatten() else {
            log::warn!(
                "too little memory is left for a trace of {} of the {} CPUs, from CPU {} on: boot with a smaller trace=",
                cpus.len() - index,
                cpus.len(),
                cpu.index
            );
            return;
        };
        let first = direct(start).0 as *const Slot;
        // SAFETY: the frames follow each other, are in the direct map, and are this ring's alone from here on. They are
        // zeroed, which makes each slot a valid one, and they are aligned to a page.
        let slots = unsafe { slice::from_raw_parts(first, size.bytes / size_of::<Slot>()) };
        cpu.trace.call_once(|| Box::leak(Box::new(Ring::new(slots))));
    }
}
