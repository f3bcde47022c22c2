//! The guest's invalidation queue. VT-d specification, 6.5.2 "Queued Invalidation Interface".
//!
//! A wait descriptor has the unit write to an address that software chooses, and the unit does not translate it. So the
//! queue that the unit reads is Vidar's: Vidar copies what the guest asks for, and puts in the address at which the
//! guest itself would write. The guest can change its queue at any time, but not Vidar's copy.

use super::register::{IQA, IQH, IQT};
use crate::mem::addr::{Gpa, PAGE_SIZE};
use crate::mem::walk::ReadGuest;

/// Type of the descriptor that invalidates interrupt-remapping entries, and its other bits: the granularity, the mask
/// of the index, and the index.
const INTERRUPT_ENTRIES: u64 = 4;
const INTERRUPT_BITS: u64 = 1 << 4 | 0x1f << 27 | 0xffff << 32;
/// Type of the wait descriptor, and its other bits: the interrupt flag, the fence flag and the data.
const WAIT: u64 = 5;
const WAIT_BITS: u64 = 1 << 4 | 1 << 6 | 0xffff_ffff << 32;
/// Bit of the wait descriptor: the data is written to the address in the upper half.
const WRITES: u64 = 1 << 5;
/// The descriptor that invalidates all contexts.
pub const ALL_CONTEXTS: [u64; 2] = [1 | 1 << 4, 0];
/// The descriptor that invalidates all translations, after reads and writes under way have ended.
pub const ALL_TRANSLATIONS: [u64; 2] = [2 | 1 << 4 | 1 << 6 | 1 << 7, 0];

/// Size in bytes of a descriptor.
const DESCRIPTOR: u64 = 16;
/// Bits of IQA: the address of the queue, and its size as a power of two of pages. Descriptors of 256 bits are not
/// shown.
const ADDRESS: u64 = !0xfff;
const SIZE: u64 = 7;
/// Bits of IQH and IQT.
const POSITION: u64 = 0x7fff0;

/// Returns the wait descriptor that has the unit write `data` at the physical address `to`.
pub const fn wait(data: u32, to: u64) -> [u64; 2] {
    [WAIT | WRITES | (data as u64) << 32, to]
}

/// The registers of the guest's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuestQueue {
    on: bool,
    address: u64,
    head: u64,
    tail: u64,
}

impl GuestQueue {
    /// Returns true if the guest has switched the queue on.
    pub const fn is_on(&self) -> bool {
        self.on
    }

    /// Switches the queue on or off. It begins at its start each time.
    pub const fn switch(&mut self, on: bool) {
        if on != self.on {
            self.on = on;
            self.head = 0;
        }
    }

    /// Returns the 32 bits of a register at `offset`, if it is one of the queue's.
    pub const fn read(&self, offset: usize) -> Option<u32> {
        let register = match offset & !7 {
            IQH => self.head,
            IQT => self.tail,
            IQA => self.address,
            _ => return None,
        };
        // ICS shares eight bytes with no register of the queue.
        Some(if offset & 4 == 0 { register as u32 } else { (register >> 32) as u32 })
    }

    /// Writes 32 bits of a register at `offset`. Returns false if it is none of the queue's.
    pub const fn write(&mut self, offset: usize, value: u32) -> bool {
        let value = value as u64;
        match offset {
            IQT => self.tail = value & POSITION,
            IQA => self.address = self.address & !0xffff_ffff | value & (ADDRESS | SIZE),
            _ if offset == IQA + 4 => self.address = self.address & 0xffff_ffff | value << 32,
            _ => return offset & !7 == IQH || offset == IQT + 4,
        }
        true
    }

    /// Takes the next descriptor, if there is one, as one for Vidar's own queue. `None` within is one that has no
    /// effect.
    fn take(&mut self, guest: &dyn ReadGuest) -> Option<Option<[u64; 2]>> {
        if !self.on || self.head == self.tail {
            return None;
        }
        let bytes = PAGE_SIZE << (self.address & SIZE);
        let at = Gpa((self.address & ADDRESS).wrapping_add(self.head));
        self.head = (self.head + DESCRIPTOR) % bytes;
        let [low, high] = [at, Gpa(at.0.wrapping_add(8))].map(|word| guest.word(word).unwrap_or(0));
        Some(checked(low, high, guest))
    }

    /// Calls `submit` with each descriptor up to the tail, or until it returns false because the unit does not answer.
    pub fn run(&mut self, guest: &dyn ReadGuest, submit: &mut dyn FnMut([u64; 2]) -> bool) {
        let most = (PAGE_SIZE << (self.address & SIZE)) / DESCRIPTOR;
        for _ in 0..most {
            match self.take(guest) {
                Some(descriptor) if descriptor.is_none_or(&mut *submit) => {}
                _ => break,
            }
        }
    }
}

/// Returns what Vidar has the unit do for the guest's descriptor; `None` if that is nothing. All other invalidations
/// are of translations, and the guest has none.
fn checked(low: u64, high: u64, guest: &dyn ReadGuest) -> Option<[u64; 2]> {
    match low & 0xf {
        INTERRUPT_ENTRIES => Some([INTERRUPT_ENTRIES | low & INTERRUPT_BITS, 0]),
        WAIT => {
            let to = Gpa(high & !3);
            // In place of Vidar's memory this is the page that the guest sees there.
            let place = if low & WRITES != 0 { guest.page(to) } else { None };
            let place = place.map(|page| page.0 + to.0 % PAGE_SIZE);
            Some([WAIT | low & WAIT_BITS | place.map_or(0, |_| WRITES), place.unwrap_or(0)])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::addr::Hpa;

    /// A guest whose queue is at 64 KiB. Vidar keeps the page at 2 MiB, in place of which the guest sees that at 3 MiB.
    struct Guest(Vec<[u64; 2]>);

    const BASE: u64 = 0x1_0000;

    impl ReadGuest for Guest {
        fn word(&self, address: Gpa) -> Option<u64> {
            let index = address.0.checked_sub(BASE)? / 8;
            self.0.as_flattened().get(index as usize).copied()
        }

        fn page(&self, address: Gpa) -> Option<Hpa> {
            match address.align_down(PAGE_SIZE).0 {
                0x20_0000 => Some(Hpa(0x30_0000)),
                page if page >> 40 == 0 => Some(Hpa(page)),
                _ => None,
            }
        }
    }

    fn of_pages(size: u64) -> GuestQueue {
        let mut queue = GuestQueue::default();
        assert!(queue.write(IQA, (BASE | size) as u32) && queue.write(IQA + 4, 0));
        queue.switch(true);
        queue
    }

    fn run(queue: &mut GuestQueue, guest: &Guest) -> Vec<[u64; 2]> {
        let mut all = Vec::new();
        queue.run(guest, &mut |descriptor| {
            all.push(descriptor);
            true
        });
        all
    }

    #[test]
    fn interrupt_entries_and_waits_are_passed_on_and_nothing_else() {
        let entry = [4 | 1 << 4 | 3 << 27 | 77 << 32, 0];
        let contexts = [1 | 1 << 4, 0];
        let translations = [2 | 1 << 4, 0x20_0000];
        let devices = [3, 0x20_0000];
        let guest =
            Guest(vec![contexts, entry, translations, devices, [0, 0], [0xf, 5], [5 | 1 << 4, 0x1234]]);
        let mut queue = of_pages(0);
        assert!(queue.write(IQT, 7 * 16));
        assert_eq!(run(&mut queue, &guest), [entry, [5 | 1 << 4, 0]]);
        assert_eq!((queue.read(IQH), queue.read(IQT)), (Some(7 * 16), Some(7 * 16)));
        assert_eq!(run(&mut queue, &guest), Vec::<[u64; 2]>::new());
    }

    #[test]
    fn unit_writes_where_the_guest_would() {
        for (to, descriptor) in [
            (0x5008, wait(9, 0x5008)),
            (0x20_0ffc, wait(9, 0x30_0ffc)),
            (0x20_0003, wait(9, 0x30_0000)),
            (1 << 40, [5 | 9 << 32, 0]),
            (u64::MAX, [5 | 9 << 32, 0]),
        ] {
            let guest = Guest(vec![wait(9, to)]);
            let mut queue = of_pages(0);
            queue.write(IQT, 16);
            assert_eq!(run(&mut queue, &guest), [descriptor], "{to:#x}");
        }
    }

    #[test]
    fn queue_wraps_and_a_tail_beyond_its_end_is_bounded() {
        let guest = Guest(vec![wait(1, 0x5000); 512]);
        let mut queue = of_pages(0);
        queue.write(IQT, 255 * 16);
        assert_eq!(run(&mut queue, &guest).len(), 255);
        queue.write(IQT, 2 * 16);
        assert_eq!(run(&mut queue, &guest).len(), 3);
        assert_eq!(queue.read(IQH), Some(32));
        queue.write(IQT, 300 * 16);
        assert_eq!(run(&mut queue, &guest).len(), 256);
        let mut large = of_pages(1);
        large.write(IQT, 300 * 16);
        assert_eq!(run(&mut large, &guest).len(), 300);
        large.switch(false);
        large.write(IQT, 3 * 16);
        assert_eq!(run(&mut large, &guest).len(), 0, "it is off");
        large.switch(true);
        assert_eq!(run(&mut large, &guest).len(), 3, "it begins anew");
    }

    #[test]
    fn unit_that_does_not_answer_is_asked_once() {
        let guest = Guest(vec![wait(1, 0x5000); 512]);
        let (mut queue, mut asked) = (of_pages(0), 0);
        queue.write(IQT, 100 * 16);
        queue.run(&guest, &mut |_| {
            asked += 1;
            false
        });
        assert_eq!((asked, queue.read(IQH)), (1, Some(16)));
    }

    #[test]
    fn only_registers_of_the_queue_are_taken() {
        let mut queue = of_pages(3);
        assert_eq!((queue.read(IQA), queue.read(IQA + 4)), (Some(0x1_0003), Some(0)));
        assert!(queue.write(IQA, 0xffff_ffff) && queue.write(IQA + 4, 7));
        assert_eq!((queue.read(IQA), queue.read(IQA + 4)), (Some(0xffff_f007), Some(7)));
        for offset in [0x98, 0x9c, 0xb8, 0x78] {
            assert_eq!((queue.write(offset, 1), queue.read(offset)), (false, None), "{offset:#x}");
        }
        assert!(queue.write(IQH, 64) && queue.write(IQT + 4, 64), "they cannot be written");
        assert_eq!((queue.read(IQH), queue.read(IQT), queue.read(IQT + 4)), (Some(0), Some(0), Some(0)));
    }
}
