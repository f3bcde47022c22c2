//! What a virtual CPU of either extension is made from, besides the capabilities of the physical CPU.

#![expect(unsafe_code, reason = "only the caller knows what a CPU has loaded")]

use core::marker::PhantomData;

use vidar_core::mem::addr::Hpa;
use vidar_core::policy::guard::Guard;
use vidar_core::vmm::percpu::PerCpu;

use super::physical::GuestReader;
use super::tables::Frames;
use crate::arch::segments::Selectors;

/// What all virtual CPUs of the guest have in common.
#[derive(Clone, Copy)]
pub struct Common {
    /// The root of the second stage, which never moves and does not map Vidar's memory.
    pub second_stage: Hpa,
    /// The maps that say which accesses to MSRs and ports exit.
    pub maps: Maps,
    /// Reads the guest's memory.
    pub reader: GuestReader,
    /// What Vidar guards.
    pub guard: Guard,
    /// True if one CPU may call another out of the guest.
    pub calls: bool,
}

/// The maps that say which accesses exit.
#[derive(Debug, Clone, Copy)]
pub struct Maps {
    /// The MSR map: which accesses to MSRs exit.
    pub msrs: Hpa,
    /// The map of the I/O ports, if accesses to some of them exit.
    pub ports: Option<Hpa>,
}

/// The physical CPU that runs this code, set up for Vidar. A value cannot leave its CPU: it is neither `Send` nor
/// `Sync`.
#[derive(Debug)]
pub struct ThisCpu {
    selectors: Selectors,
    percpu: &'static PerCpu,
    not_send: PhantomData<*const ()>,
}

impl ThisCpu {
    /// Returns the CPU that runs this code.
    ///
    /// # Safety
    /// This CPU has loaded the segments of `selectors`, and `percpu` is its per-CPU block.
    pub const unsafe fn new(selectors: Selectors, percpu: &'static PerCpu) -> Self {
        Self { selectors, percpu, not_send: PhantomData }
    }

    /// Returns the selectors and the addresses of the tables that this CPU has loaded.
    pub const fn selectors(&self) -> &Selectors {
        &self.selectors
    }

    /// Returns the per-CPU block of this CPU.
    pub const fn percpu(&self) -> &'static PerCpu {
        self.percpu
    }
}

/// What a virtual CPU has for itself.
pub struct Own<'a, F> {
    /// The frames, which nothing else uses.
    pub frames: F,
    /// The physical CPU.
    pub cpu: &'a ThisCpu,
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
