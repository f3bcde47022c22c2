//! The trial of the rules of VMRUN on this CPU, in place of running the guest. It is in the image of its test alone.
//!
//! For each case of [`cases`](vidar_core::svm::rules::cases) the VMCB is changed, the rules are asked, and the guest is
//! entered. The log gets the rules that are broken and the answer of the CPU, or of its emulator. The guest has no
//! memory, so an entry that the CPU accepts comes back at the guest's first access, and all cases can be tried one
//! after the other.

#![expect(unsafe_code, reason = "the guest is entered")]

use alloc::string::String;
use core::fmt::Write;

use vidar_core::mem::addr::{Hva, PAGE_SIZE};
use vidar_core::svm::exit;
use vidar_core::svm::rules::broken;
use vidar_core::svm::rules::cases::{CASES, LEGAL};
use vidar_core::svm::rules::state::{Facts, State};
use vidar_core::svm::vmcb::Clean;
use vidar_core::vmm::exit::Exit;

use super::entry::{EntryBlock, enter};
use super::vmcb::Vmcb;
use crate::arch::{cpuid, instructions};
use crate::debug::log as console;
use crate::host::image;

/// The root of a second stage that maps nothing.
#[repr(align(4096))]
struct Nothing([u8; PAGE_SIZE as usize]);

static NOTHING: Nothing = Nothing([0; PAGE_SIZE as usize]);

/// Tries all cases with the VMCB of `block`, and halts.
pub fn run(vmcb: &mut Vmcb, block: &mut EntryBlock) -> ! {
    console::take_back();
    vmcb.control_mut(Clean::ALL).n_cr3 = image::translate(Hva(NOTHING.0.as_ptr() as u64)).0;
    // With this limit the delivery of an event reads the guest's memory. Bochs 2.7 does not intercept a shutdown.
    vmcb.save_mut(Clean::ALL).idtr.limit = 0xfff;
    let valid = (**vmcb).clone();
    let facts = Facts::new(cpuid::physical_address_bits(), cpuid::cpuid);
    log::info!("trial: begins");
    for (what, change) in LEGAL.iter().chain(CASES).chain(&LEGAL[..1]) {
        change(vmcb, 1 << facts.address_bits);
        let mut named = String::new();
        broken(&State::new(vmcb, &facts), &mut |rule| {
            // Writing to a String cannot fail.
            let _ = write!(named, " {}", rule.id);
        });
        // SAFETY: this is the lab's image. AMD-V is on, and the guest has no memory.
        unsafe { enter(block) };
        match exit::decode(vmcb.control()) {
            Exit::EntryFailed { .. } => log::info!("trial: {what}: rules{named}; refused"),
            _ => log::info!("trial: {what}: rules{named}; entered, exit {:#x}", vmcb.control().exitcode),
        }
        (**vmcb).clone_from(&valid);
    }
    log::info!("trial: done");
    console::drain();
    instructions::halt_forever()
}
