//! The instructions, in memory that is mapped twice: once to execute them, and once to write them.

#![expect(unsafe_code, reason = "memory is mapped and written by its address")]

use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect};

const PAGE: usize = 4096;
/// The number of pages that hold instructions.
const PAGES: usize = 2;

/// The number of bytes that are written for an instruction.
const PLACE: usize = 8;

/// The opcode of RET, which follows each instruction.
const RET: u8 = 0xc3;

/// CPUID without prefixes.
pub const CPUID: &[u8] = &[0x0f, 0xa2];

/// The instructions that are executed, and their names: CPUID with and without prefixes, VMMCALL, and others.
pub const FORMS: [(&[u8], &str); 12] = [
    (CPUID, "CPUID"),
    (&[0x66, 0x0f, 0xa2], "CPUID with an operand-size prefix"),
    (&[0x48, 0x0f, 0xa2], "CPUID with REX"),
    (&[0xf3, 0x2e, 0x0f, 0xa2], "CPUID with REP and CS"),
    (&[0x67, 0x66, 0xf2, 0x48, 0x0f, 0xa2], "CPUID with four prefixes"),
    (&[0xf0, 0x0f, 0xa2], "LOCK CPUID"),
    (&[0xf0, 0x66, 0x48, 0x0f, 0xa2], "LOCK CPUID with two more prefixes"),
    (&[0x0f, 0x01, 0xd9], "VMMCALL"),
    (&[0xf0, 0x0f, 0x01, 0xd9], "LOCK VMMCALL"),
    (&[0x0f, 0x0b], "UD2"),
    (&[0x66, 0x66, 0x66, 0x66], "prefixes alone"),
    (&[], "RET"),
];

/// Instructions in two pages of memory.
pub struct Code {
    /// The address at which they are executed.
    executed: usize,
    /// The address at which the same memory is written.
    written: usize,
}

impl Code {
    /// Maps the memory, and fills it with RET.
    pub fn map() -> Result<Self, String> {
        let failed = |error| format!("cannot map memory: {error}");
        let file = memfd_create("code", MemfdFlags::CLOEXEC).map_err(failed)?;
        ftruncate(&file, (PAGES * PAGE) as u64).map_err(failed)?;
        let map = |rights| {
            // SAFETY: the mapping is new, and nothing else has its address.
            unsafe { mmap(null_mut(), PAGES * PAGE, rights, MapFlags::SHARED, &file, 0) }
                .map(|start| start as usize)
                .map_err(failed)
        };
        let code = Self {
            executed: map(ProtFlags::READ | ProtFlags::EXEC)?,
            written: map(ProtFlags::READ | ProtFlags::WRITE)?,
        };
        for offset in 0..PAGES * PAGE {
            // SAFETY: the byte is inside of the mapping.
            unsafe { ((code.written + offset) as *mut u8).write_volatile(RET) };
        }
        Ok(code)
    }

    /// Returns the addresses at which instructions are executed: one at the beginning of a page, and one from which
    /// instructions reach into the next page.
    pub const fn places(&self) -> [usize; 2] {
        [self.executed, self.executed + PAGE - 1]
    }

    /// Writes the instruction `form` to `place`, which is one of [`Self::places`], and RET after it.
    pub fn write(&self, place: usize, form: &[u8]) {
        let mut bytes = [RET; PLACE];
        bytes[..form.len()].copy_from_slice(form);
        let to = (self.written + (place - self.executed)) as *mut u64;
        // SAFETY: all bytes of both places are inside of the mapping.
        unsafe { to.write_unaligned(u64::from_le_bytes(bytes)) };
    }

    /// Allows all pages to be read and executed.
    pub fn allow(&self) -> Result<(), String> {
        self.protect(0..PAGES, MprotectFlags::READ | MprotectFlags::EXEC)
    }

    fn protect(&self, pages: std::ops::Range<usize>, rights: MprotectFlags) -> Result<(), String> {
        let start = (self.executed + pages.start * PAGE) as *mut _;
        // SAFETY: the pages hold only these instructions, and the signals that they raise are caught.
        unsafe { mprotect(start, pages.len() * PAGE, rights) }.map_err(|error| format!("mprotect: {error}"))
    }

    /// Changes instructions and the rights of pages until `stop` is true. Returns the number of changes.
    pub fn change_until(&self, stop: &AtomicBool) -> Result<u64, String> {
        let mut changes = 0;
        // A linear congruential generator, whose sequence does not repeat soon.
        let mut random = 1_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize
        };
        while !stop.load(Ordering::Relaxed) {
            let place = self.places()[next() % 2];
            self.write(place, FORMS[next() % FORMS.len()].0);
            if next().is_multiple_of(16) {
                let page = next() % PAGES;
                let rights = [MprotectFlags::empty(), MprotectFlags::READ][next() % 2];
                self.protect(page..page + 1, rights)?;
                self.allow()?;
            }
            changes += 1;
        }
        Ok(changes)
    }
}
