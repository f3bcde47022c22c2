//! Updates of the CPU's microcode by the guest: they are loaded as on a bare machine.
//!
//! The guest writes the linear address of an update to an MSR, and the CPU reads the update from there. Intel SDM Vol. 3A,
//! 10.11.6 "Microcode Update Loader". After the exit that address is one of Vidar's; so Vidar maps the guest's pages into
//! its own address space and writes the address that the update has there.
//!
//! Nothing is copied or checked. The CPU takes nothing that its maker has not signed, so a damaged update does what it does
//! on a bare machine, and so does one that another CPU changes meanwhile. How long it is the CPU knows; a header could lie.
//!
//! It may lie wherever the guest can read: in memory that was added while the machine runs, and in the memory of a device,
//! whose type the MTRRs give here as they do there. Where Vidar's own memory would be, the CPU is shown the same page as the
//! guest. So Vidar need not know what is memory and what is not.
//!
//! After an update the guest reads the revision as always: it clears IA32_BIOS_SIGN_ID, executes CPUID, for which Vidar
//! executes CPUID with the same leaf, and reads the MSR. A feature that comes with an update shows in CPUID from then on,
//! as on a bare machine, but for those that need a control of the extension: what Vidar found at its start holds.

use super::fetch;
use super::machine::Machine;
use super::outcome::{Outcome, REFUSE};
use super::update::Update;
use super::vcpu::Vcpu;
use crate::mem::addr::{Gpa, PAGE_SIZE};
use crate::mem::layout::WINDOW_RUN;
use crate::mem::stage2::{Format, TableMemory};
use crate::mem::walk::{self, Paging};
use crate::x86::msr::Fault;

/// What becomes of a write of `address` to `msr`, which loads the update that begins `before` bytes below that.
///
/// The guest gets #GP where a bare CPU gives #PF: where its tables map nothing at the address, or not enough. An update that
/// does not fit into a window, of nearly 2 MiB, ends in the same way.
#[cold]
pub fn load<V: Vcpu, F: Format, T: TableMemory>(
    vcpu: &mut V,
    machine: &Machine<F, T>,
    msr: u32,
    address: u64,
    before: u64,
) -> Outcome {
    let controls = vcpu.controls();
    let start = address.wrapping_sub(before);
    let first = start & !(PAGE_SIZE - 1);
    let read = |address| machine.guest.word(address);
    let pages = pages(fetch::paging(&controls), controls.cr3, first, read);
    let mut pages = pages.map_while(|page| machine.guest.page(page)).peekable();
    if pages.peek().is_none() {
        return REFUSE;
    }
    let update =
        Update { cpu: vcpu.percpu().index, msr, offset: address.wrapping_sub(first), pages: &mut pages };
    match (machine.load_microcode)(update) {
        Ok(()) => Outcome::Advance,
        Err(Fault) => REFUSE,
    }
}

/// The guest's pages from the linear address `first` on, to the first that is not mapped or does not fit into a window.
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
    /// The last page below an address whose tables are others.
    const BORDER: u64 = 0xffff_8000_0020_0000;

    /// Tables that map three pages: two below [`BORDER`] and one at it, none beside another in memory.
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
    fn there_are_no_more_than_a_window_holds() {
        // One page of 1 GiB.
        let read = |address: Gpa| Some(if address.0 < 0x2000 { 0x2001 } else { 0x4000_0081 });
        let all: Vec<_> = pages(LONG, ROOT, 0x3f_f000, read).collect();
        assert_eq!((all.len(), all[0], all[1]), (WINDOW_RUN, Gpa(0x403f_f000), Gpa(0x4040_0000)));
        // Without paging, up to where memory ends for the caller.
        assert_eq!(pages(Paging::Off, 0, 0x1000, |_| None).next(), Some(Gpa(0x1000)));
    }
}
