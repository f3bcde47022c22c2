//! A kernel in memory made by hand, in the layouts of several releases of Linux: finding it, its symbols, its call
//! chains and its log.

mod chains;
mod finding;
mod hostile;
#[path = "../kernel_image/mod.rs"]
mod kernel_image;
mod log;
mod modules;
mod recorded;
mod report;
mod symbols;

use vidar_core::kernel::Kernel;
use vidar_core::vmm::cpu_state::CpuState;

use kernel_image::memory::Memory;
use kernel_image::{Era, TABLES, build};

/// Returns the memory of a guest, and the kernel that is found in it.
fn kernel(era: &Era) -> (Memory, Kernel) {
    let memory = build(era);
    let kernel = Kernel::find(&memory, &memory.ram()).expect(era.release);
    (memory, kernel)
}

/// Returns a CPU that runs a kernel of this era.
fn cpu(era: &Era) -> CpuState {
    let mut cpu = CpuState::default();
    cpu.controls.cr0 = 1 << 31 | 1;
    cpu.controls.cr3 = TABLES;
    cpu.controls.cr4 = 1 << 5 | u64::from(era.levels == 5) << 12;
    cpu.controls.efer = 1 << 10 | 1 << 8;
    cpu.controls.cs_l = true;
    cpu
}
