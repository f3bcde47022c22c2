//! What a remapping unit can do, by its capability registers. VT-d specification, 11.4.2 "Capability Register" and
//! 11.4.3 "Extended Capability Register".

use super::register::{CAP, ECAP};
use crate::mem::addr::{PAGE_SIZE, PageSize};

/// The capability registers of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// CAP.
    pub cap: u64,
    /// ECAP.
    pub ecap: u64,
}

/// CAP.RWBF: the write buffer must be flushed after a change of tables.
const WRITE_BUFFER: u64 = 1 << 4;
/// CAP.AFL, PLMR and PHMR: a log of faults in memory, and two ranges without DMA.
const LOG_AND_RANGES: u64 = 1 << 3 | 1 << 5 | 1 << 6;
/// CAP.PHMR and PLMR.
const RANGES: u64 = 1 << 5 | 1 << 6;
/// CAP.SAGAW: the widths of addresses that can be translated.
const WIDTHS: u64 = 0x1f << 8;
/// CAP.SAGAW: 39 bits, by three levels of tables.
const THREE_LEVELS: u64 = 1 << 9;
/// CAP.SAGAW: 48 bits, by four levels of tables.
const FOUR_LEVELS: u64 = 1 << 10;
/// CAP.SLLPS: pages of 2 MiB, and of 1 GiB.
const PAGES_2M: u64 = 1 << 34;
const PAGES_1G: u64 = 1 << 35;
/// CAP.PI: interrupts can be posted, which writes to memory.
const POSTED_INTERRUPTS: u64 = 1 << 59;
/// CAP from bit 56 on: first-level translation, posted interrupts, and others that the guest cannot have.
const NEWER: u64 = 0xff << 56;

/// ECAP.QI: the unit has an invalidation queue.
const QUEUE: u64 = 1 << 1;
/// The bits of ECAP that the guest is shown: C, QI, IR, EIM, IRO and MHMV.
const SHOWN: u64 = 1 << 0 | QUEUE | 1 << 3 | 1 << 4 | 0x3ff << 8 | 0xf << 20;

impl Capability {
    /// Returns true if the unit can translate by four levels of tables.
    pub const fn has_four_levels(self) -> bool {
        self.cap & FOUR_LEVELS != 0
    }

    /// Returns true if the unit can translate by three levels of tables.
    pub const fn has_three_levels(self) -> bool {
        self.cap & THREE_LEVELS != 0
    }

    /// Returns the number of bits of the widest address that the unit lets pass (MGAW).
    pub const fn address_bits(self) -> u32 {
        (self.cap >> 16 & 0x3f) as u32 + 1
    }

    /// Returns the largest page that the unit's tables can map.
    pub const fn largest_page(self) -> PageSize {
        match (self.cap & PAGES_1G != 0, self.cap & PAGES_2M != 0) {
            (true, true) => PageSize::Size1G,
            (_, true) => PageSize::Size2M,
            _ => PageSize::Size4K,
        }
    }

    /// Returns true if the write buffer must be flushed after a change of tables.
    pub const fn needs_buffer_flush(self) -> bool {
        self.cap & WRITE_BUFFER != 0
    }

    /// Returns true if the unit has protected ranges, which firmware may have switched on.
    pub const fn has_protected_ranges(self) -> bool {
        self.cap & RANGES != 0
    }

    /// Returns true if an entry of the interrupt-remapping table, which is the guest's, can have the unit write to
    /// memory.
    pub const fn posts_interrupts(self) -> bool {
        self.cap & POSTED_INTERRUPTS != 0
    }

    /// Returns true if the unit has an invalidation queue. Without one it cannot remap interrupts.
    pub const fn has_queue(self) -> bool {
        self.ecap & QUEUE != 0
    }

    /// Returns the offset of the first record of faults, and the number of records. Each has 16 bytes.
    pub const fn fault_records(self) -> (usize, usize) {
        ((self.cap >> 24 & 0x3ff) as usize * 16, (self.cap >> 40 & 0xff) as usize + 1)
    }

    /// Returns the offset of the register IOTLB.
    pub const fn iotlb(self) -> usize {
        (self.ecap >> 8 & 0x3ff) as usize * 16 + 8
    }

    /// Returns the size in bytes of all registers, in whole pages.
    pub const fn bytes(self) -> u64 {
        let (first, count) = self.fault_records();
        let (faults, iotlb) = (first + count * 16, self.iotlb() + 8);
        let end = if faults > iotlb { faults } else { iotlb };
        (end as u64).next_multiple_of(PAGE_SIZE)
    }

    /// Returns what the guest is shown: a unit that remaps interrupts, but translates no width of address, has no
    /// protected ranges, and never writes to memory but for the guest's queue.
    pub const fn shown(self) -> Self {
        Self { cap: self.cap & !(WIDTHS | LOG_AND_RANGES | NEWER), ecap: self.ecap & SHOWN }
    }

    /// Reads the capability registers of a unit, of which `read` reads 32 bits.
    pub fn read(mut read: impl FnMut(usize) -> u32) -> Self {
        let mut both = |at| u64::from(read(at)) | u64::from(read(at + 4)) << 32;
        Self { cap: both(CAP), ecap: both(ECAP) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The unit of QEMU's machine q35 with `aw-bits=48`.
    const QEMU: Capability = Capability { cap: 0x00d2_008c_222f_0686, ecap: 0xf00_f4a };
    /// The unit of the graphics device of a client of 2019.
    const GRAPHICS: Capability = Capability { cap: 0x01c0_000c_4066_0462, ecap: 0x019e_2ff0_505e };

    #[test]
    fn capabilities_are_decoded() {
        assert!(QEMU.has_four_levels() && QEMU.has_three_levels() && QEMU.has_queue());
        assert_eq!((QEMU.address_bits(), QEMU.largest_page()), (48, PageSize::Size1G));
        assert_eq!((QEMU.fault_records(), QEMU.iotlb(), QEMU.bytes()), ((0x220, 1), 0xf8, 0x1000));
        assert!(!QEMU.needs_buffer_flush() && !QEMU.has_protected_ranges() && !QEMU.posts_interrupts());
        assert!(GRAPHICS.has_four_levels() && !GRAPHICS.has_three_levels());
        assert_eq!((GRAPHICS.address_bits(), GRAPHICS.largest_page()), (39, PageSize::Size1G));
        assert!(GRAPHICS.has_protected_ranges());
        let records_on_another_page = Capability { cap: 0xff << 40 | 0x3ff << 24, ecap: 0 };
        assert_eq!(records_on_another_page.bytes(), 0x5000);
    }

    #[test]
    fn guest_is_shown_interrupt_remapping_and_no_translation() {
        for unit in [QEMU, GRAPHICS, Capability { cap: u64::MAX, ecap: u64::MAX }] {
            let shown = unit.shown();
            assert!(!shown.has_four_levels() && !shown.has_three_levels());
            assert_eq!(shown.cap >> 8 & 0x1f, 0, "SAGAW");
            assert!(!shown.has_protected_ranges() && !shown.posts_interrupts());
            assert_eq!(shown.ecap & 0x1b, unit.ecap & 0x1b, "C, QI, IR and EIM");
            assert_eq!((shown.fault_records(), shown.iotlb()), (unit.fault_records(), unit.iotlb()));
            assert_eq!(shown.ecap & !0xf3ff1b, 0);
        }
    }

    #[test]
    fn registers_are_read_in_halves() {
        let read = Capability::read(|at| at as u32);
        assert_eq!(read, Capability { cap: 0xc_0000_0008, ecap: 0x14_0000_0010 });
    }
}
