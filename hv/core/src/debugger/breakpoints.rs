//! The breakpoints and watchpoints that gdb has set: in the four debug registers, and as INT3 in the guest's code.

use gdbstub::target::ext::breakpoints::WatchKind;

use super::memory::{self, Memory};
use super::watch::{MOST_BYTES, Watch, pieces};
use crate::kernel::view::locate;
use crate::mem::addr::Gpa;
use crate::policy::control::Controls;

/// The instruction INT3.
pub const INT3: u8 = 0xcc;

/// The number of software breakpoints that can be set at once.
const MOST: usize = 64;

/// DR7 without any breakpoint: bit 10 is always 1.
pub const NO_BREAKPOINTS: u64 = 1 << 10;

/// The contents of DR0 to DR3, and of DR7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DebugRegisters {
    /// DR0 to DR3.
    pub addresses: [u64; 4],
    /// DR7.
    pub control: u64,
}

/// A byte of the guest's code that INT3 replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Replaced {
    linear: u64,
    physical: Gpa,
    byte: u8,
}

/// Whose an INT3 is that a CPU has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int3 {
    /// gdb's.
    Gdb,
    /// gdb's, in memory that the CPU has met at another address than gdb: another process shares the page. gdb knows
    /// nothing of this address, so the CPU is to execute the instruction that the INT3 hides.
    Shared(Gpa),
    /// The guest's.
    Guest,
}

/// All breakpoints and watchpoints.
#[derive(Debug)]
pub struct Breakpoints {
    hardware: [Option<Watch>; 4],
    software: [Option<Replaced>; MOST],
}

impl Breakpoints {
    /// Returns a set without any breakpoint.
    pub const fn new() -> Self {
        Self { hardware: [None; 4], software: [None; MOST] }
    }

    /// Watches `size` bytes from `address` on, in as many debug registers as that takes. Returns false, and changes
    /// nothing, if too few are free.
    pub fn watch(&mut self, address: u64, size: u64, kind: Option<WatchKind>) -> bool {
        if size == 0 || size > MOST_BYTES {
            return false;
        }
        let mut new = self.hardware;
        let all = pieces(address, size).all(|(address, size)| {
            let free = new.iter_mut().find(|slot| slot.is_none());
            free.map(|slot| *slot = Some(Watch { address, size, kind })).is_some()
        });
        if all {
            self.hardware = new;
        }
        all
    }

    /// Ends what [`Breakpoints::watch`] has begun. Returns false if there was no such watch.
    pub fn unwatch(&mut self, address: u64, size: u64, kind: Option<WatchKind>) -> bool {
        pieces(address, size).fold(true, |all, (address, size)| {
            let watch = Some(Watch { address, size, kind });
            let slot = self.hardware.iter_mut().find(|slot| **slot == watch);
            slot.map(|slot| *slot = None).is_some() && all
        })
    }

    /// Returns the contents of the debug registers, or `None` if gdb has nothing in them.
    pub fn registers(&self) -> Option<DebugRegisters> {
        let set = |index: usize| self.hardware[index];
        if self.hardware.iter().all(Option::is_none) {
            return None;
        }
        let addresses = [0, 1, 2, 3].map(|index| set(index).map_or(0, |watch| watch.address));
        let control = (0..4).filter_map(|index| set(index).map(|watch| (index, watch)));
        // LE, GE, and the global enable bit of each register in use.
        let control = control.fold(NO_BREAKPOINTS | 0b11 << 8, |all, (index, watch)| {
            all | 0b10 << (2 * index) | watch.control() << (16 + 4 * index)
        });
        Some(DebugRegisters { addresses, control })
    }

    /// Returns the watch that bits 3:0 of DR6 name, if it is gdb's.
    pub fn hit(&self, dr6: u64) -> Option<Watch> {
        let hits = self.hardware.iter().enumerate().filter(|(index, _)| dr6 >> index & 1 != 0);
        hits.filter_map(|(_, watch)| *watch).next()
    }

    /// Replaces the byte of code at `linear` by INT3. Returns false if nothing is mapped there, if the memory does not
    /// take it, or if too many are set.
    pub fn insert(&mut self, linear: u64, controls: &Controls, guest: &dyn Memory) -> bool {
        if self.has(linear) {
            return true;
        }
        let Some(physical) = locate(guest, controls, linear) else { return false };
        // With a breakpoint at another address of the same memory, the byte there is an INT3 of gdb's.
        let byte = self.replaced_at(physical).or_else(|| memory::physical(guest, physical));
        let (Some(byte), Some(slot)) = (byte, self.software.iter_mut().find(|slot| slot.is_none())) else {
            return false;
        };
        if !guest.put(physical, INT3) {
            return false;
        }
        *slot = Some(Replaced { linear, physical, byte });
        true
    }

    /// Restores the byte of code at `linear`, unless a breakpoint is left at another address of the same memory.
    /// Returns false if it was not replaced. If the guest has overwritten the INT3 itself, its byte stays.
    pub fn remove(&mut self, linear: u64, guest: &dyn Memory) -> bool {
        let found = self.software.iter_mut().find(|slot| slot.is_some_and(|slot| slot.linear == linear));
        let Some(replaced) = found.and_then(Option::take) else { return false };
        if self.replaced_at(replaced.physical).is_none() {
            restore(replaced, guest);
        }
        true
    }

    /// Returns the byte that an INT3 of gdb's replaces at `physical`, if there is one.
    fn replaced_at(&self, physical: Gpa) -> Option<u8> {
        let mut all = self.software.iter().flatten();
        all.find(|replaced| replaced.physical == physical).map(|replaced| replaced.byte)
    }

    /// Decides whose the INT3 at `linear` is. The page tables of the CPU, by `controls`, say in which memory it is:
    /// another process may have an INT3 of its own at the same address.
    pub fn whose(&self, linear: u64, controls: &Controls, guest: &dyn Memory) -> Int3 {
        let Some(physical) = locate(guest, controls, linear) else {
            // The tables have changed since the CPU has read them.
            return if self.has(linear) { Int3::Gdb } else { Int3::Guest };
        };
        let here = || self.software.iter().flatten().filter(|replaced| replaced.physical == physical);
        if here().any(|replaced| replaced.linear == linear) {
            return Int3::Gdb;
        }
        match here().next() {
            // What gdb has replaced is an INT3 as well. Lifted or not, the CPU finds one there.
            Some(replaced) if replaced.byte != INT3 => Int3::Shared(physical),
            _ => Int3::Guest,
        }
    }

    /// Lifts gdb's INT3 that a CPU `wants` to pass, so that it can execute the instruction that it hides, and puts the
    /// one back that it has `lifted` before. The instruction there may not have been executed, if its exception has a
    /// handler with an INT3 of gdb's as well: then the CPU comes back to it. While an INT3 is lifted, other CPUs pass
    /// it too. If the guest has written there meanwhile, its byte stays.
    pub fn lift(&self, lifted: &mut Option<Gpa>, wanted: Option<Gpa>, guest: &dyn Memory) {
        if let Some(before) = lifted.take().filter(|before| Some(*before) != wanted) {
            self.exchange(before, false, guest);
        }
        if let Some(physical) = wanted {
            self.exchange(physical, true, guest);
            *lifted = wanted;
        }
    }

    /// Has gdb's INT3 at `physical` in memory, or what it replaces if `lifted` is true.
    fn exchange(&self, physical: Gpa, lifted: bool, guest: &dyn Memory) {
        let here = |replaced: &&Replaced| replaced.physical == physical;
        let Some(replaced) = self.software.iter().flatten().find(here) else { return };
        let (from, to) = if lifted { (INT3, replaced.byte) } else { (replaced.byte, INT3) };
        if memory::physical(guest, physical) == Some(from) {
            guest.put(physical, to);
        }
    }

    /// Returns true if gdb has set a breakpoint at `linear`.
    pub fn has(&self, linear: u64) -> bool {
        self.software.iter().flatten().any(|replaced| replaced.linear == linear)
    }

    /// Returns true if any INT3 is gdb's.
    pub fn has_any(&self) -> bool {
        self.software.iter().any(Option::is_some)
    }

    /// Removes all breakpoints and watchpoints.
    pub fn clear(&mut self, guest: &dyn Memory) {
        self.hardware = [None; 4];
        self.software.iter_mut().filter_map(Option::take).for_each(|replaced| restore(replaced, guest));
    }
}

impl Default for Breakpoints {
    fn default() -> Self {
        Self::new()
    }
}

fn restore(replaced: Replaced, guest: &dyn Memory) {
    if memory::physical(guest, replaced.physical) == Some(INT3) {
        guest.put(replaced.physical, replaced.byte);
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::tests::{MAPPED, Words, controls};
    use super::*;
    use crate::mem::walk::ReadGuest;

    #[test]
    fn debug_registers_hold_what_is_watched() {
        let mut breakpoints = Breakpoints::new();
        assert_eq!(breakpoints.registers(), None);
        assert!(breakpoints.watch(0xffff_ffff_8100_0000, 1, None));
        assert!(breakpoints.watch(0x1004, 4, Some(WatchKind::Write)));
        assert!(breakpoints.watch(0x2000, 8, Some(WatchKind::Read)));
        let registers = breakpoints.registers().expect("three are in use");
        assert_eq!(registers.addresses, [0xffff_ffff_8100_0000, 0x1004, 0x2000, 0]);
        assert_eq!(registers.control, 0x0bd0_072a);
        assert_eq!(breakpoints.hit(0b10).map(|watch| watch.address), Some(0x1004));
        assert_eq!(breakpoints.hit(0b1000), None, "nothing of gdb's is in DR3");
        assert!(breakpoints.unwatch(0x1004, 4, Some(WatchKind::Write)));
        assert!(!breakpoints.unwatch(0x1004, 4, Some(WatchKind::Write)));
        assert_eq!(breakpoints.hit(0b10), None);
    }

    #[test]
    fn a_range_that_is_not_aligned_takes_several_registers() {
        let mut breakpoints = Breakpoints::new();
        assert!(breakpoints.watch(0x1003, 6, Some(WatchKind::Write)));
        let sizes: Vec<_> =
            breakpoints.hardware.iter().flatten().map(|watch| (watch.address, watch.size)).collect();
        assert_eq!(sizes, [(0x1003, 1), (0x1004, 4), (0x1008, 1)]);
        assert!(!breakpoints.watch(0x3001, 2, None), "one register is free, and this takes two");
        assert!(breakpoints.watch(0x3000, 2, None));
        assert!(!breakpoints.watch(0x4000, 33, None) && !breakpoints.watch(0x4000, 0, None));
        assert!(breakpoints.unwatch(0x1003, 6, Some(WatchKind::Write)));
        assert_eq!(breakpoints.hardware.iter().flatten().count(), 1);
    }

    #[test]
    fn code_gets_its_byte_back() {
        let (memory, controls) = (Words::with_tables(), controls(0x1000));
        memory.put(Gpa(0x8002), 0x90);
        let mut breakpoints = Breakpoints::new();
        assert!(breakpoints.insert(MAPPED + 2, &controls, &memory));
        assert!(breakpoints.insert(MAPPED + 2, &controls, &memory), "it is there already");
        assert!(!breakpoints.insert(0x5000, &controls, &memory), "nothing is mapped");
        assert_eq!(memory.word(Gpa(0x8000)), Some(0xcc_0000));
        assert!(breakpoints.has(MAPPED + 2) && !breakpoints.has(MAPPED + 3));
        assert!(breakpoints.remove(MAPPED + 2, &memory));
        assert!(!breakpoints.remove(MAPPED + 2, &memory));
        assert_eq!(memory.word(Gpa(0x8000)), Some(0x90_0000));
        breakpoints.insert(MAPPED + 2, &controls, &memory);
        memory.put(Gpa(0x8002), 0x0f);
        breakpoints.clear(&memory);
        assert_eq!(memory.word(Gpa(0x8000)), Some(0x0f_0000), "the guest has written there itself");
        assert!(!breakpoints.has_any());
    }

    #[test]
    fn memory_with_breakpoints_at_two_addresses_keeps_its_int3_until_both_are_gone() {
        let (words, controls) = (Words::with_tables(), controls(0x1000));
        words.put(Gpa(0x8002), 0x90);
        let byte = || memory::physical(&words, Gpa(0x8002));
        // Without paging the address is the physical one.
        let both = [(MAPPED + 2, controls), (0x8002, Controls::default())];
        for [first, second] in [[0, 1], [1, 0]] {
            let mut breakpoints = Breakpoints::new();
            assert!(both.iter().all(|(at, controls)| breakpoints.insert(*at, controls, &words)));
            assert!(breakpoints.remove(both[first].0, &words));
            assert_eq!(byte(), Some(INT3));
            assert!(breakpoints.remove(both[second].0, &words));
            assert_eq!(byte(), Some(0x90));
            assert!(both.iter().all(|(at, controls)| breakpoints.insert(*at, controls, &words)));
            breakpoints.clear(&words);
            assert_eq!(byte(), Some(0x90));
        }
    }

    #[test]
    fn an_int3_is_gdbs_in_the_memory_and_at_the_address_where_gdb_has_set_it() {
        let (words, controls) = (Words::with_tables(), controls(0x1000));
        words.put(Gpa(0x8002), 0x90);
        let mut breakpoints = Breakpoints::new();
        assert!(breakpoints.insert(MAPPED + 2, &controls, &words));
        assert_eq!(breakpoints.whose(MAPPED + 2, &controls, &words), Int3::Gdb);
        assert_eq!(breakpoints.whose(MAPPED + 3, &controls, &words), Int3::Guest);
        // Another process has other memory there, ...
        let mut elsewhere = words.0.borrow().clone();
        elsewhere.iter_mut().for_each(|(_, word)| *word = if *word == 0x8001 { 0x9001 } else { *word });
        let elsewhere = Words(elsewhere.into());
        assert_eq!(breakpoints.whose(MAPPED + 2, &controls, &elsewhere), Int3::Guest);
        // ... or the same memory elsewhere: here without paging, at its physical address.
        let unpaged = Controls::default();
        assert_eq!(breakpoints.whose(0x8002, &unpaged, &words), Int3::Shared(Gpa(0x8002)));
        let byte = || memory::physical(&words, Gpa(0x8002));
        let mut lifted = None;
        breakpoints.lift(&mut lifted, Some(Gpa(0x8002)), &words);
        assert_eq!(byte(), Some(0x90));
        breakpoints.lift(&mut lifted, None, &words);
        assert_eq!(byte(), Some(INT3));
        words.put(Gpa(0x8002), 0x0f);
        breakpoints.lift(&mut lifted, Some(Gpa(0x8002)), &words);
        assert_eq!(byte(), Some(0x0f), "the guest has written there itself");
        // With an INT3 of the guest's own in its place nothing can be lifted.
        words.put(Gpa(0x8004), INT3);
        assert!(breakpoints.insert(MAPPED + 4, &controls, &words));
        assert_eq!(breakpoints.whose(MAPPED + 4, &controls, &words), Int3::Gdb);
        assert_eq!(breakpoints.whose(0x8004, &unpaged, &words), Int3::Guest);
    }

    #[test]
    fn a_cpu_lifts_one_int3_at_a_time() {
        let (words, controls) = (Words::with_tables(), controls(0x1000));
        let mut breakpoints = Breakpoints::new();
        for distance in [2, 4] {
            words.put(Gpa(0x8000 + distance), 0x90);
            assert!(breakpoints.insert(MAPPED + distance, &controls, &words));
        }
        let mut lifted = None;
        let mut lift = |wanted: Option<u64>| {
            breakpoints.lift(&mut lifted, wanted.map(Gpa), &words);
            [0x8002, 0x8004].map(|at| memory::physical(&words, Gpa(at)))
        };
        assert_eq!(lift(Some(0x8002)), [Some(0x90), Some(INT3)]);
        assert_eq!(lift(Some(0x8004)), [Some(INT3), Some(0x90)], "the first one is not forgotten");
        assert_eq!(lift(Some(0x8004)), [Some(INT3), Some(0x90)]);
        assert_eq!(lift(None), [Some(INT3); 2]);
    }
}
