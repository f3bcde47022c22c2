//! The trial of the rules of VM entry on this CPU, in place of running the guest. It is in the image of its test alone.
//!
//! For each case of [`CASES`] the VMCS is changed, the rules are asked, and the guest is entered. The log gets the
//! rules that are broken and the answer of the CPU, or of its emulator. The preemption timer with the value 0 makes an
//! entry that the CPU accepts come back before the guest's first instruction, so all cases can be tried one after the
//! other.

#![expect(unsafe_code, reason = "fields are written that Vidar depends on, and the guest is entered")]

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use vidar_core::mem::addr::Hpa;
use vidar_core::mem::layout::direct;
use vidar_core::vmx::field::*;
use vidar_core::vmx::rules::cases::{CASES, LEGAL};
use vidar_core::vmx::rules::change::{self, Case, Change};
use vidar_core::vmx::rules::facts::Facts;
use vidar_core::vmx::rules::state::State;
use vidar_core::vmx::rules::{OTHERS, OWN, broken};

use super::entry::{EntryBlock, enter, status};
use super::rules;
use super::vmcs::{Vmcs, vmread, vmwrite};
use crate::arch::instructions;
use crate::debug::log as console;
use crate::host::physical;

/// Tries all cases with the current VMCS, which is at `region` and to which `block` belongs, and halts.
pub fn run(vmcs: &mut Vmcs, block: &mut EntryBlock, region: Hpa) -> ! {
    console::take_back();
    vmcs.write(PREEMPTION_TIMER, 0);
    vmcs.use_timer(true);
    let fields = ALL.iter().map(|(_, encoding)| *encoding).filter(|encoding| can_be_written(*encoding));
    let trial = Trial {
        facts: Facts { current: region, ..rules::facts() },
        valid: fields.filter_map(|encoding| Some((encoding, vmread(encoding)?))).collect(),
    };
    log::info!("trial: begins");
    // The VMCS is launched by the first entry, so that all others are made by VMRESUME.
    for case in LEGAL.iter().chain(CASES).chain(&LEGAL[..1]) {
        trial.attempt(vmcs, block, case);
    }
    log::info!("trial: done");
    console::drain();
    instructions::halt_forever()
}

/// Returns true for all fields but read-only ones, and HOST_RSP, which is kept up by the entry assembly.
fn can_be_written(encoding: u32) -> bool {
    encoding >> 10 & 3 != 1 && encoding != HOST_RSP.encoding()
}

/// What all attempts have in common.
struct Trial {
    facts: Facts,
    /// The values of the fields of a VMCS that breaks no rule.
    valid: Vec<(u32, u64)>,
}

impl Trial {
    /// Tries one case.
    fn attempt(&self, vmcs: &Vmcs, block: &mut EntryBlock, (what, change): &Case) {
        let mut live = Live { before: Vec::new(), lacks: None };
        let beyond = 1 << self.facts.address_bits;
        change(&mut change::State { change: &mut live, vmcs: self.facts.current, beyond });
        if let Some(field) = live.lacks {
            log::info!("trial: {what}: the CPU has no field {field:#x}");
        } else {
            let mut named = String::new();
            for sections in [&OWN[..], &OTHERS] {
                broken(sections, &State::new(vmcs, &word, &self.facts), &mut |rule| {
                    // Writing to a String cannot fail.
                    let _ = write!(named, " {}", rule.id);
                });
            }
            // SAFETY: this is the lab's image. The guest executes no instruction, and the host state leads back to here
            // unless the CPU accepts one that breaks a rule.
            let status = unsafe { enter(block) };
            let reason = vmcs.exit_reason();
            match status {
                status::LEFT if reason >> 31 == 0 => {
                    log::info!("trial: {what}: rules{named}; entered, exit {reason}");
                }
                status::LEFT => {
                    let qualification = vmcs.read(EXIT_QUALIFICATION).0;
                    log::info!("trial: {what}: rules{named}; exit {} {qualification}", reason & 0xffff);
                }
                status::FAILED_VALID => {
                    log::info!("trial: {what}: rules{named}; error {}", vmcs.read(VM_INSTRUCTION_ERROR));
                }
                _ => log::info!("trial: {what}: rules{named}; VMfailInvalid"),
            }
        }
        for (encoding, value) in live.before.iter().rev().chain(&self.valid) {
            write(*encoding, *value);
        }
    }
}

/// Changes the current VMCS and memory.
struct Live {
    /// The fields that have been written, with what they held before.
    before: Vec<(u32, u64)>,
    /// A field that the CPU lacks.
    lacks: Option<u32>,
}

impl Change for Live {
    fn field(&mut self, encoding: u32, clear: u64, set: u64) {
        let Some(before) = vmread(encoding) else {
            self.lacks = Some(encoding);
            return;
        };
        self.before.push((encoding, before));
        write(encoding, before & !clear | set);
    }

    fn store(&mut self, address: u64, value: u32) {
        // SAFETY: memory below 64 KiB is RAM in the direct map, and it is the guest's, which does not run.
        unsafe { physical::write(Hpa(address), &value.to_le_bytes()) };
    }
}

/// Returns the 32 bits at an address in the first 16 MiB.
fn word(address: Hpa) -> Option<u32> {
    let place = direct(address).0 as *const u32;
    // SAFETY: this is RAM or firmware's ROM in the direct map, and the address is a multiple of 4.
    (address.0 < 1 << 24 && address.0.is_multiple_of(4)).then(|| unsafe { place.read_volatile() })
}

/// Sets the field with this encoding, which the CPU has.
fn write(encoding: u32, value: u64) {
    // SAFETY: this is the lab's image, and the CPU judges the value at the next entry.
    unsafe { vmwrite(encoding, value) };
}
