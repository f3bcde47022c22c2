//! The run loop on a CPU that follows a script: the answer to each exit, and its effects.

mod answers;
mod any;
mod bench;
mod check;
mod controls;
mod cpu;
mod guard;
mod hypercalls;
mod io_apic;
#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "../kernel_image/mod.rs"]
mod kernel_image;
mod locks;
mod memory;
mod microcode;
mod observer;
mod remapping;
mod startup;
mod trace;

use vidar_core::mem::addr::Gpa;
use vidar_core::vmm::exit::{Exit, Violation};
use vidar_core::vmm::outcome::{Exception, Outcome};
use vidar_core::x86::registers::Register::{self, Rax, Rcx, Rdx};

const REFUSED: Outcome = Outcome::Inject(Exception::GeneralProtection);
/// High halves of registers, all ones, which instructions must ignore.
const HIGH: u64 = 0xffff_ffff_0000_0000;
/// An MSR that the guest accesses freely, and one that the CPU lacks.
const TSC: u32 = 0x10;
const ABSENT: u32 = 0x2_0000;
/// The local APIC's page, and a device that no table for RAM covers. The guest has touched neither.
const APIC: Gpa = Gpa(0xfee0_0000);
const FAR: Gpa = Gpa(0xff_1234_5678);

fn touch(address: Gpa) -> Exit {
    Exit::SecondStage(Violation { address, mapped: false })
}

fn denied(address: Gpa) -> Exit {
    Exit::SecondStage(Violation { address, mapped: true })
}

/// Returns the registers of an instruction that takes an index in ECX and a value in EDX:EAX.
fn indexed(index: u32, value: u64) -> [(Register, u64); 3] {
    let (high, low) = (value >> 32, value & 0xffff_ffff);
    [(Rcx, HIGH | u64::from(index)), (Rax, HIGH | low), (Rdx, HIGH | high)]
}
