//! The memory of the traces: a ring for each CPU.

#![expect(unsafe_code, reason = "frames become the slots of a ring")]

use alloc::boxed::Box;

use vidar_core::mem::addr::PAGE_SIZE;
use vidar_core::mem::layout::direct;
use vidar_core::trace::ring::{Ring, Slots};
use vidar_core::vmm::percpu::PerCpu;

use crate::host::tables::Frames;

/// The number of frames of a ring.
pub const FRAMES: usize = size_of::<Slots>().div_ceil(PAGE_SIZE as usize);

/// Gives each of these CPUs a ring out of `frames`. Where too few are left, the guest runs without a trace of that CPU.
pub fn keep(cpus: &[&PerCpu], frames: &mut Frames) {
    for cpu in cpus {
        let Some(start) = frames.allocate_run(FRAMES) else {
            log::warn!("too little memory is left for a trace of CPU {}", cpu.index);
            return;
        };
        // SAFETY: the frames are in the direct map and this ring's alone from here on. They are zeroed, which makes each slot a
        // valid one.
        let slots = unsafe { &*(direct(start).0 as *const Slots) };
        cpu.trace.call_once(|| Box::leak(Box::new(Ring::new(slots))));
    }
}
