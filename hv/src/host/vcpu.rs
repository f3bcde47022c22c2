//! What a virtual CPU of either extension is made from, besides the capabilities of the physical CPU.

use vidar_core::mem::addr::Hpa;
use vidar_core::vmm::percpu::PerCpu;

use super::physical::GuestReader;
use super::tables::Frames;
use crate::arch::segments::Selectors;

/// What all virtual CPUs of the guest have in common.
#[derive(Clone, Copy)]
pub struct Common {
    /// The root of the second stage, which never moves and does not map Vidar's memory.
    pub second_stage: Hpa,
    /// The MSR map: which accesses to MSRs exit.
    pub msr_map: Hpa,
    /// Reads the guest's memory.
    pub reader: GuestReader,
}

/// What a virtual CPU has for itself.
pub struct Own<'a, F> {
    /// The frames, which nothing else uses.
    pub frames: F,
    /// The selectors and tables that the physical CPU has loaded.
    pub selectors: &'a Selectors,
    /// The per-CPU block of the physical CPU.
    pub percpu: &'static PerCpu,
}

/// The frames of a virtual CPU. The type itself says how many there are, so the backend that names them and the boot
/// order that counts them cannot disagree.
pub trait FrameSet: Copy + Send + Sync {
    /// The number of frames.
    const COUNT: usize;

    /// Takes the frames, zeroed. Returns `None` if too few are free.
    fn allocate(frames: &mut Frames) -> Option<Self>;
}

impl<const N: usize> FrameSet for [Hpa; N] {
    const COUNT: usize = N;

    fn allocate(frames: &mut Frames) -> Option<Self> {
        let mut set = [Hpa(0); N];
        for frame in &mut set {
            *frame = frames.allocate()?;
        }
        Some(set)
    }
}
