//! The bytes of the guest's next instruction.

use crate::mem::addr::Gpa;
use crate::mem::walk::{Bytes, Paging};
use crate::policy::control::{CR0_PG, CR4_LA57, CR4_PAE, CR4_PSE, Controls};
use crate::x86::msr::EFER_LMA;

/// The location of the guest's next instruction, and what decides how it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// RIP.
    pub rip: u64,
    /// Base address of CS.
    pub base: u64,
    /// CS.D: operands and addresses have 32 bits by default, not 16.
    pub default_32: bool,
}

/// The default sizes of operands and addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// Both 16 bits.
    Bits16,
    /// Both 32 bits.
    Bits32,
    /// 64-bit mode: operands of 32 bits, addresses of 64.
    Bits64,
}

impl Code {
    /// Returns the default sizes with which the code is decoded.
    pub const fn width(&self, controls: &Controls) -> Width {
        match (is_64_bit(controls), self.default_32) {
            (true, _) => Width::Bits64,
            (_, true) => Width::Bits32,
            _ => Width::Bits16,
        }
    }

    /// Returns RIP after an instruction of `length` bytes: 64 bits in 64-bit mode, and otherwise 32.
    pub const fn after(&self, controls: &Controls, length: u8) -> u64 {
        self.rip.wrapping_add(length as u64) & Self::mask(controls)
    }

    /// Returns the largest address, at which addresses wrap.
    const fn mask(controls: &Controls) -> u64 {
        if is_64_bit(controls) { u64::MAX } else { 0xffff_ffff }
    }

    /// Returns the bytes from the instruction on, read through the guest's page tables. They end where memory is not
    /// mapped or cannot be read. `read` is that of [`walk::translate`](crate::mem::walk::translate).
    #[inline(always)] // most of an exit's time on a CPU without nrip_save
    pub fn bytes(
        &self,
        controls: &Controls,
        read: impl FnMut(Gpa) -> Option<u64>,
    ) -> impl Iterator<Item = u8> {
        let base = if is_64_bit(controls) { 0 } else { self.base };
        let mask = Self::mask(controls);
        Bytes::new(paging(controls), controls.cr3, base.wrapping_add(self.rip) & mask, mask, read)
    }
}

/// Returns true if the CPU executes 64-bit code.
pub const fn is_64_bit(controls: &Controls) -> bool {
    controls.efer & EFER_LMA != 0 && controls.cs_l
}

/// Returns the mode of the guest's own paging.
pub const fn paging(controls: &Controls) -> Paging {
    let Controls { cr0, cr4, efer, .. } = *controls;
    match (cr0 & CR0_PG != 0, efer & EFER_LMA != 0, cr4 & CR4_PAE != 0) {
        (false, ..) => Paging::Off,
        (_, true, _) => Paging::Long { levels: if cr4 & CR4_LA57 != 0 { 5 } else { 4 } },
        (_, _, true) => Paging::Pae,
        (..) => Paging::Bits32 { large_pages: cr4 & CR4_PSE != 0 },
    }
}
