//! The trampoline of the further CPUs: its page below 1 MiB, and the table in which each CPU finds its stack.

#![expect(unsafe_code, reason = "this is the assembly, and its page is written")]

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::mem::{offset_of, size_of};
use core::ops::Range;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use vidar_core::boot::conventional;
use vidar_core::mem::addr::{Hpa, PAGE_SIZE};
use vidar_core::mem::layout::DIRECT_MAP;
use vidar_core::vmm::waiting::ROOM;

use crate::host::memory::BootMemory;
use crate::host::physical;

/// An entry of the table in which the assembly finds the stack of its CPU.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Slot {
    /// The ID of the CPU's local APIC.
    pub apic_id: u32,
    /// The address at which the CPU's stack starts to grow down.
    pub stack: u64,
}

/// The table of slots, for the assembly.
static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(core::ptr::null_mut());
/// The number of slots, for the assembly.
static COUNT: AtomicU64 = AtomicU64::new(0);
/// The function that the assembly calls on the CPU's stack.
static MAIN: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

global_asm!(
    include_str!("ap.S"),
    slots = sym SLOTS,
    count = sym COUNT,
    main = sym MAIN,
    slot_size = const size_of::<Slot>(),
    slot_stack = const offset_of!(Slot, stack),
    direct_map = const DIRECT_MAP,
);

unsafe extern "C" {
    safe static vidar_ap_start: [u8; 0];
    safe static vidar_ap_long: [u8; 0];
    safe static vidar_ap_gdtr: [u8; 0];
    safe static vidar_ap_far: [u8; 0];
    safe static vidar_ap_cr3: [u8; 0];
    safe static vidar_ap_end: [u8; 0];
}

/// The trampoline, and the page that was chosen for it.
#[derive(Debug)]
pub struct Trampoline {
    page: Hpa,
    /// The code, with its fields filled in for `page`.
    code: Vec<u8>,
    /// What the page held before.
    kept: Vec<u8>,
}

impl Trampoline {
    /// Writes the trampoline to a free page below 640 KiB, and publishes `slots` and `main` to it. Returns `None` if no
    /// page is free.
    ///
    /// # Safety
    /// Before a CPU gets to the page, the page tables of `memory` must map it at its own address, executable. For each
    /// slot, `main` may be called with the slot's index and any vector, on that slot's stack.
    pub unsafe fn install(
        memory: &BootMemory<'_>,
        slots: Vec<Slot>,
        main: unsafe extern "C" fn(usize, u8) -> !,
    ) -> Option<Self> {
        let info = memory.info;
        let mut free = memory.plan.beside_region().usable();
        info.occupied().for_each(|range| free.remove(&range));
        // SAFETY: the BIOS data area is in the direct map, and only the BIOS changes it.
        let end = conventional::bios_start(unsafe { physical::bytes(&conventional::BIOS_DATA) });
        let page = conventional::page(free, info.boot_services(), end)?;
        COUNT.store(slots.len() as u64, Ordering::Relaxed);
        SLOTS.store(Box::leak(slots.into_boxed_slice()).as_mut_ptr(), Ordering::Relaxed);
        MAIN.store(main as *mut (), Ordering::Relaxed);
        let start = vidar_ap_start.as_ptr() as usize;
        let offset = |symbol: &[u8; 0]| symbol.as_ptr() as usize - start;
        // SAFETY: the template lies between the two symbols, and the page is free RAM that the direct map covers.
        let (mut code, kept) = unsafe {
            let template = core::slice::from_raw_parts(vidar_ap_start.as_ptr(), offset(&vidar_ap_end));
            (template.to_vec(), physical::bytes(&(page..page + template.len() as u64)).to_vec())
        };
        let mut patch = |at: usize, value: u64| {
            code[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
        };
        let gdt = offset(&vidar_ap_gdtr) - 16;
        patch(offset(&vidar_ap_gdtr) + 2, page.0 + gdt as u64);
        patch(offset(&vidar_ap_far), page.0 + offset(&vidar_ap_long) as u64);
        patch(offset(&vidar_ap_cr3), memory.own.tables.root().0);
        let trampoline = Self { page, code, kept };
        // SAFETY: the page is free, and what it held before has been copied.
        unsafe { trampoline.lay() };
        Some(trampoline)
    }

    /// Writes the trampoline to its page.
    ///
    /// # Safety
    /// Nothing in the page is in use.
    pub unsafe fn lay(&self) {
        // SAFETY: the page is RAM in the direct map, and the caller promises that nothing in it is in use.
        unsafe { physical::write(self.page, &self.code) };
    }

    /// Returns the addresses of the trampoline's page.
    pub fn page(&self) -> Range<Hpa> {
        self.page..self.page + PAGE_SIZE
    }

    /// Returns the vector of the start-up IPI that starts a CPU in the trampoline's page.
    pub const fn vector(&self) -> u8 {
        (self.page.0 / PAGE_SIZE) as u8
    }

    /// Has the page hold what CPUs execute that wait there for a start-up IPI. No CPU may be about to execute the
    /// trampoline.
    pub fn become_room(&self) {
        let mut content = vec![0; self.code.len()];
        content[..ROOM.len()].copy_from_slice(&ROOM);
        // SAFETY: as in `remove`.
        unsafe { physical::write(self.page, &content) };
    }

    /// Restores what the page held before. No CPU may be about to execute the trampoline.
    pub fn remove(&self) {
        // SAFETY: the page is RAM in the direct map, and it has held nothing but the trampoline since `install`.
        unsafe { physical::write(self.page, &self.kept) };
    }
}
