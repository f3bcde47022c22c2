//! Microcode updates that the guest loads. They are loaded as on a bare machine.
//!
//! The guest writes the linear address of an update to an MSR, and the CPU reads the update from there. Intel SDM Vol.
//! 3A, 10.11.6 "Microcode Update Loader". After the exit the CPU would read that address in Vidar's address space. So
//! Vidar maps the guest's pages into a window of its own address space, and writes the update's address in the window
//! to the MSR.
//!
//! Vidar neither copies nor checks the update. The CPU loads only what its maker has signed, so a damaged update does
//! what it does on a bare machine, and so does one that another CPU changes in the meantime. Vidar does not read the
//! update's length either, since a header may be wrong: the CPU determines it.
//!
//! The update may be anywhere that the guest can read: also in memory that was added while the machine runs, or in a
//! device's memory, whose type the MTRRs decide in Vidar as in the guest. In place of Vidar's own memory the CPU reads
//! the same decoy that the guest sees. So Vidar need not know which addresses are memory.
//!
//! After an update the guest reads the revision as always: it clears IA32_BIOS_SIGN_ID, executes CPUID, for which Vidar
//! executes CPUID with the same leaf, and reads the MSR. CPUID shows the features that come with an update from then
//! on, as on a bare machine. The exceptions are features that need a control of the extension, which Vidar chooses once
//! at its start.

use super::fetch;
use super::machine::Machine;
use super::outcome::{Outcome, REFUSE};
use super::update::MicrocodeUpdate;
use super::vcpu::Vcpu;
use crate::mem::addr::{Gpa, PAGE_SIZE};
use crate::mem::layout::WINDOW_RUN;
use crate::mem::stage2::TableMemory;
use crate::mem::walk::{self, Paging};
use crate::x86::microcode::Loader;
use crate::x86::msr::Fault;

/// Emulates a write of `address` to the MSR of `loader`, which loads an update.
///
/// The guest gets #GP if its page tables do not map the whole update, where a bare CPU raises #PF. It also gets #GP if
/// the update does not fit into a window, which holds nearly 2 MiB.
#[cold]
pub fn load<V: Vcpu, T: TableMemory>(
    vcpu: &mut V,
    machine: &Machine<V, T>,
    loader: Loader,
    address: u64,
) -> Outcome {
    let controls = vcpu.controls();
    let start = address.wrapping_sub(loader.header());
    let first = start & !(PAGE_SIZE - 1);
    let read = |address| machine.guest.word(address);
    let pages = pages(fetch::paging(&controls), controls.cr3, first, read);
    let mut pages = pages.map_while(|page| machine.guest.page(page)).peekable();
    if pages.peek().is_none() {
        return REFUSE;
    }
    let update = MicrocodeUpdate { loader, offset: address.wrapping_sub(first), pages: &mut pages };
    match (machine.load_microcode)(update) {
        Ok(()) => Outcome::Advance,
        Err(Fault) => REFUSE,
    }
}

/// Returns the guest's pages from the linear address `first` on, up to the first that is not mapped, and no more than a
/// window holds.
fn pages(
    paging: Paging,
    cr3: u64,
    first: u64,
    read: impl Fn(Gpa) -> Option<u64>,
) -> impl Iterator<Item = Gpa> {
    let page = move |index| {
        walk::translate(paging, cr3, first.wrapping_add(index as u64 * PAGE_SIZE), &read)
            .map(|address| address.align_down(PAGE_SIZE))
    };
    (0..WINDOW_RUN).map_while(page)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const LONG: Paging = Paging::Long { levels: 4 };
    const ROOT: u64 = 0x1000;
    /// An address at which another page table begins.
    const BORDER: u64 = 0xffff_8000_0020_0000;

    /// Returns tables that map three pages: two below [`BORDER`] and one at it. No two of them are adjacent in memory.
    fn tables() -> BTreeMap<u64, u64> {
        BTreeMap::from([
            (0x1000 + 256 * 8, 0x2001),
            (0x2000, 0x3001),
            (0x3000, 0x4001),
            (0x3008, 0x5001),
            (0x4000 + 510 * 8, 0x70_0001),
            (0x4000 + 511 * 8, 0x30_0001),
            (0x5000, 0x10_0001),
        ])
    }

    fn from(first: u64) -> Vec<u64> {
        let tables = tables();
        let read = |address: Gpa| Some(tables.get(&address.0).copied().unwrap_or(0));
        pages(LONG, ROOT, first, read).map(|page| page.0).collect()
    }

    #[test]
    fn pages_follow_the_guests_tables() {
        assert_eq!(from(BORDER - 2 * PAGE_SIZE), [0x70_0000, 0x30_0000, 0x10_0000]);
        assert_eq!(from(BORDER - PAGE_SIZE), [0x30_0000, 0x10_0000]);
        assert_eq!(from(BORDER + PAGE_SIZE), []);
        assert_eq!(from(BORDER - 3 * PAGE_SIZE), [], "an update with a hole at its start");
    }

    #[test]
    fn there_are_no_more_pages_than_a_window_holds() {
        // The tables map one page of 1 GiB.
        let read = |address: Gpa| Some(if address.0 < 0x2000 { 0x2001 } else { 0x4000_0081 });
        let all: Vec<_> = pages(LONG, ROOT, 0x3f_f000, read).collect();
        assert_eq!((all.len(), all[0], all[1]), (WINDOW_RUN, Gpa(0x403f_f000), Gpa(0x4040_0000)));
        // Without paging, linear addresses are the guest's physical addresses.
        assert_eq!(pages(Paging::Off, 0, 0x1000, |_| None).next(), Some(Gpa(0x1000)));
    }
}
