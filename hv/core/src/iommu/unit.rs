//! A remapping unit: how Vidar switches its translation on, and what the guest reads and writes at its registers.

use alloc::boxed::Box;
use core::ops::Range;

use super::capability::Capability;
use super::fault::{self, Faults};
use super::plan::Obstacle;
use super::queue::{self, GuestQueue};
use super::register::{
    ALL_CONTEXTS, ALL_TRANSLATIONS, CAP, CCMD, COMPATIBILITY, DRAIN, ECAP, FEADDR, FECTL, FEUADDR,
    FLUSH_BUFFER, FSTS, GCMD, GSTS, ICS, IEADDR, IECTL, IEUADDR, INVALIDATE, IQA, IQH, IQT, IRTA, OVERFLOW,
    PENDING, PMEN, PROTECTED, PROTECTED_STATUS, QUEUE, QUEUE_ERRORS, RECORDED, REMAP_INTERRUPTS, RTADDR,
    SET_INTERRUPTS, SET_ROOT, TABLE_MODE, TRANSLATION,
};
use crate::mem::addr::{Gpa, Hpa, PAGE_SIZE};
use crate::mem::walk::ReadGuest;

/// The registers of a unit, and the memory of Vidar's own invalidation queue.
pub trait Hardware {
    /// Reads the 32 bits at `offset` of the registers.
    fn read(&mut self, offset: usize) -> u32;
    /// Writes the 32 bits at `offset` of the registers.
    fn write(&mut self, offset: usize, value: u32);
    /// Returns the address of the queue, a page.
    fn queue(&self) -> Hpa;
    /// Writes a descriptor to the queue, at an index below [`SLOTS`].
    fn put(&mut self, slot: usize, descriptor: [u64; 2]);
    /// Returns the address of the word in which the unit says how far it is.
    fn progress_at(&self) -> Hpa;
    /// Reads this word.
    fn progress(&mut self) -> u32;
}

/// Number of descriptors in Vidar's own queue.
pub const SLOTS: usize = 256;

/// How many times a register is read before Vidar stops waiting for it. A read takes a tenth of a microsecond or more,
/// and a unit takes microseconds for what it is asked.
const PATIENCE: u32 = 1_000_000;

/// The commands that are the guest's.
const GUESTS: u32 = REMAP_INTERRUPTS | SET_INTERRUPTS | COMPATIBILITY | FLUSH_BUFFER;
/// The commands that stay on until they are switched off.
const LASTING: u32 = REMAP_INTERRUPTS | COMPATIBILITY | QUEUE | TRANSLATION;

/// Interrupts are writes to this MiB. A unit does not translate the address of its own interrupts, so that another one
/// would be a write to memory.
const INTERRUPTS: Range<u32> = 0xfee0_0000..0xfef0_0000;
/// The bits of the upper address of such an interrupt: bits 31:8 of the APIC ID. The others would lead to memory below
/// 1 TiB.
const UPPER_ID: u32 = !0xff;

/// A unit whose translation is Vidar's.
pub struct Unit {
    hardware: Box<dyn Hardware + Send>,
    capability: Capability,
    registers: Range<Hpa>,
    slot: usize,
    sequence: u32,
    guest: GuestQueue,
    /// The guest has asked for a root table.
    root: bool,
    faults: Faults,
}

impl Unit {
    /// Returns the unit whose registers begin at `registers`.
    ///
    /// # Errors
    /// [`Obstacle::NoUnit`] if nothing answers there.
    pub fn find(mut hardware: Box<dyn Hardware + Send>, registers: Hpa) -> Result<Self, Obstacle> {
        let capability = Capability::read(|offset| hardware.read(offset));
        if matches!(capability, Capability { cap: 0, .. } | Capability { cap: u64::MAX, ecap: u64::MAX }) {
            return Err(Obstacle::NoUnit(registers));
        }
        Ok(Self {
            hardware,
            capability,
            registers: registers..registers + capability.bytes(),
            slot: 0,
            sequence: 0,
            guest: GuestQueue::default(),
            root: false,
            faults: Faults::default(),
        })
    }

    /// Returns what the unit can do.
    pub const fn capability(&self) -> Capability {
        self.capability
    }

    /// Returns the addresses of the registers, whole pages.
    pub fn registers(&self) -> Range<Hpa> {
        self.registers.clone()
    }

    /// Has the unit translate by the tables at `root`, from now on. If firmware had it translate before by tables of
    /// the same mode, there is no gap. Whatever firmware has the unit do with interrupts stays.
    ///
    /// # Errors
    /// [`Obstacle::Stuck`] if the unit does not do as it is told.
    pub fn guard(&mut self, root: Hpa) -> Result<(), Obstacle> {
        let status = self.hardware.read(GSTS);
        if status & QUEUE != 0 {
            self.drain();
            self.command(0, QUEUE, false)?;
        }
        // The unit would fetch nothing from Vidar's queue because of an error in firmware's.
        self.hardware.write(FSTS, QUEUE_ERRORS);
        // VT-d specification, 11.4 "Register Descriptions", RTADDR_REG: the mode changes only while translation is off.
        if status & TRANSLATION != 0 && self.hardware.read(RTADDR) & TABLE_MODE != 0 {
            self.command(0, TRANSLATION, false)?;
        }
        if self.capability.needs_buffer_flush() {
            self.command(FLUSH_BUFFER, FLUSH_BUFFER, false)?;
        }
        self.write_64(RTADDR, root.0);
        self.command(SET_ROOT, SET_ROOT, true)?;
        self.forget()?;
        self.command(TRANSLATION, TRANSLATION, true)?;
        // Translation takes the place of the ranges.
        if self.capability.has_protected_ranges() && self.hardware.read(PMEN) & PROTECTED_STATUS != 0 {
            let others = self.hardware.read(PMEN) & !PROTECTED;
            self.hardware.write(PMEN, others);
            self.wait(PMEN, PROTECTED_STATUS, false)?;
        }
        Ok(())
    }

    /// Waits until the unit has executed what is in its queue. Whatever it does not execute is lost.
    fn drain(&mut self) {
        let _ = (0..PATIENCE).any(|_| {
            let [head, tail, status] = [IQH, IQT, FSTS].map(|offset| self.hardware.read(offset));
            head == tail || status & QUEUE_ERRORS != 0
        });
    }

    /// Switches translation and Vidar's queue off again, as far as the unit lets itself be told.
    pub fn release(&mut self) {
        let _ = self.command(0, TRANSLATION, false);
        let _ = self.command(0, QUEUE, false);
    }

    /// Has the unit forget all contexts and translations. Switches Vidar's own queue on, if there is one.
    fn forget(&mut self) -> Result<(), Obstacle> {
        if self.capability.has_queue() {
            let queue = self.hardware.queue();
            self.write_64(IQT, 0);
            self.write_64(IQA, queue.0);
            self.slot = 0;
            self.command(QUEUE, QUEUE, true)?;
            let both =
                [queue::ALL_CONTEXTS, queue::ALL_TRANSLATIONS].map(|descriptor| self.submit(descriptor));
            return if both == [true; 2] { Ok(()) } else { Err(self.stuck(QUEUE)) };
        }
        let iotlb = self.capability.iotlb();
        self.write_64(CCMD, INVALIDATE | ALL_CONTEXTS);
        self.wait(CCMD + 4, (INVALIDATE >> 32) as u32, false)?;
        self.write_64(iotlb, INVALIDATE | ALL_TRANSLATIONS | DRAIN);
        self.wait(iotlb + 4, (INVALIDATE >> 32) as u32, false)
    }

    /// Gives the command `bits` beside what is on, except for `which`, and waits until the status of `which` is `on`.
    fn command(&mut self, bits: u32, which: u32, on: bool) -> Result<(), Obstacle> {
        let lasting = self.hardware.read(GSTS) & LASTING & !which;
        self.hardware.write(GCMD, lasting | bits);
        self.wait(GSTS, which, on)
    }

    /// Waits until the bit `which` of the register is `set`.
    fn wait(&mut self, offset: usize, which: u32, set: bool) -> Result<(), Obstacle> {
        let done = (0..PATIENCE).any(|_| (self.hardware.read(offset) & which != 0) == set);
        if done { Ok(()) } else { Err(self.stuck(which)) }
    }

    fn stuck(&self, which: u32) -> Obstacle {
        Obstacle::Stuck(self.registers.start, which)
    }

    fn write_64(&mut self, offset: usize, value: u64) {
        self.hardware.write(offset, value as u32);
        self.hardware.write(offset + 4, (value >> 32) as u32);
    }

    /// Has the unit execute a descriptor, and waits for its end. Returns false if it does not end.
    fn submit(&mut self, descriptor: [u64; 2]) -> bool {
        submit(&mut *self.hardware, &mut self.slot, &mut self.sequence, descriptor)
    }

    /// Reads the 32 bits at `offset` for the guest. `guest` reads its queue.
    pub fn read(&mut self, offset: usize, guest: &dyn ReadGuest) -> u32 {
        // A guest that waits for its queue reads these. If the unit was slow, the rest of the queue is still to be run.
        if offset == FSTS || offset & !7 == IQH || offset & !7 == IQT {
            self.run(guest);
        }
        let half = |register: u64| if offset & 4 == 0 { register as u32 } else { (register >> 32) as u32 };
        let shown = self.capability.shown();
        if let Some(value) = self.guest.read(offset) {
            return value;
        }
        match offset {
            GSTS => {
                let real = self.hardware.read(GSTS) & GUESTS;
                real | if self.root { SET_ROOT } else { 0 } | if self.guest.is_on() { QUEUE } else { 0 }
            }
            _ if offset & !7 == CAP => half(shown.cap),
            _ if offset & !7 == ECAP => half(shown.ecap),
            _ if offset == 0 || passes(offset) || self.record(offset).is_some() => self.hardware.read(offset),
            _ => 0,
        }
    }

    /// Writes the 32 bits at `offset` for the guest, as far as they are the guest's. `guest` reads its queue.
    pub fn write(&mut self, offset: usize, value: u32, guest: &dyn ReadGuest) {
        if self.guest.write(offset, value) {
            self.run(guest);
            return;
        }
        match offset {
            GCMD => {
                let mut own = TRANSLATION;
                if self.capability.has_queue() {
                    own |= QUEUE;
                    self.guest.switch(value & QUEUE != 0);
                }
                self.root |= value & SET_ROOT != 0;
                let taken = value & SET_INTERRUPTS == 0 || self.interrupts_are_guests(guest);
                let refused = if taken { 0 } else { SET_INTERRUPTS };
                self.hardware.write(GCMD, value & GUESTS & !refused | own);
                self.run(guest);
            }
            FEADDR | IEADDR if !INTERRUPTS.contains(&value) => {}
            FEUADDR | IEUADDR => self.hardware.write(offset, value & UPPER_ID),
            _ if passes(offset) => self.hardware.write(offset, value),
            _ => {
                if let Some(record) = self.record(offset) {
                    // This is the write that frees the record.
                    if offset == record + 12 && value & RECORDED != 0 {
                        self.note(record);
                    }
                    self.hardware.write(offset, value);
                }
            }
        }
    }

    /// Returns true if the interrupt-remapping table at IRTA is memory that the guest sees at its own address. Entries
    /// in Vidar's memory would become interrupts, whose vectors tell the guest what is there.
    fn interrupts_are_guests(&mut self, guest: &dyn ReadGuest) -> bool {
        let [low, high] = [IRTA, IRTA + 4].map(|offset| u64::from(self.hardware.read(offset)));
        let start = (high << 32 | low) & !(PAGE_SIZE - 1);
        // An entry has 16 bytes, and their number is 2 to the power of the lowest four bits and one.
        let pages = (32u64 << (low & 0xf)).div_ceil(PAGE_SIZE);
        let mut all = (0..pages).map(|page| start.wrapping_add(page * PAGE_SIZE));
        all.all(|page| guest.page(Gpa(page)) == Some(Hpa(page)))
    }

    /// Has the unit execute what is in the guest's queue, unless it still has not executed the last descriptor of
    /// Vidar's.
    fn run(&mut self, guest: &dyn ReadGuest) {
        let Self { hardware, slot, sequence, guest: queue, .. } = self;
        if !queue.is_on() || hardware.progress() != *sequence {
            return;
        }
        queue.run(guest, &mut |descriptor| submit(&mut **hardware, slot, sequence, descriptor));
    }

    /// Returns the offset of the record of a fault that has a register at `offset`.
    fn record(&self, offset: usize) -> Option<usize> {
        let (first, count) = self.capability.fault_records();
        (first..first + count * 16).contains(&offset).then_some(offset & !15)
    }

    /// Notes the fault in the record at offset `record`. Returns true if there is one and it is not the guest's.
    fn note(&mut self, record: usize) -> bool {
        let words = [0, 4, 8, 12].map(|word| self.hardware.read(record + word));
        let fault = Some(words).filter(|words| words[3] & RECORDED != 0).and_then(fault::decode);
        fault.into_iter().for_each(|fault| self.faults.add(fault));
        fault.is_some()
    }

    /// Notes all faults that the unit has recorded and the guest has not seen, makes room for others, and returns the
    /// faults so far.
    pub fn faults(&mut self) -> &Faults {
        let (first, count) = self.capability.fault_records();
        let pending = self.hardware.read(FSTS) & PENDING != 0;
        for record in (0..count).filter(|_| pending).map(|index| first + index * 16) {
            if self.note(record) {
                self.hardware.write(record + 12, RECORDED);
            }
        }
        if self.hardware.read(FSTS) & OVERFLOW != 0 {
            self.hardware.write(FSTS, OVERFLOW);
        }
        &self.faults
    }
}

/// Returns true if the 32 bits at `offset` are the guest's: the interrupts of faults and of the queue, their status,
/// and the table of interrupts.
const fn passes(offset: usize) -> bool {
    match offset {
        FSTS | ICS => true,
        _ => {
            matches!(offset & !15, 0x30 | 0xa0) && offset >= FECTL
                || offset & !7 == IRTA
                || matches!(offset, FEADDR | FEUADDR)
        }
    }
}

const _: () =
    assert!(passes(FECTL) && passes(FEUADDR) && passes(IECTL) && passes(IEUADDR) && passes(IRTA + 4));
const _: () = assert!(!passes(GCMD) && !passes(RTADDR) && !passes(CCMD) && !passes(PMEN) && !passes(0x58));
const _: () = assert!(!passes(IQH) && !passes(IQT) && !passes(IQA) && !passes(0xc0) && !passes(0x30));

/// Has the unit execute a descriptor of Vidar's own queue, and waits for its end. Returns false if it does not end.
fn submit(hardware: &mut dyn Hardware, slot: &mut usize, sequence: &mut u32, descriptor: [u64; 2]) -> bool {
    *sequence = sequence.wrapping_add(1);
    hardware.put(*slot, descriptor);
    hardware.put((*slot + 1) % SLOTS, queue::wait(*sequence, hardware.progress_at().0));
    *slot = (*slot + 2) % SLOTS;
    hardware.write(IQT, *slot as u32 * 16);
    (0..PATIENCE).any(|_| {
        // The word is in the cache until the unit writes to it. Reading a register takes time.
        hardware.read(IQH);
        hardware.progress() == *sequence
    })
}
