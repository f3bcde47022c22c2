//! Attacks on the protections of the CPU that the kernel has switched on: each is switched on, and then off or to
//! another value.

#![expect(unsafe_code, reason = "page tables are written, and CR3")]

use core::arch::asm;
use core::fmt;

use vidar_abi::{Call, Protection, Status};

use crate::apic::Apic;
use crate::attempt::{Hex, Verdict, rdmsr, set_cr0, set_cr4, wrmsr};
use crate::cpu::{cpuid, cr0, cr3, cr4};
use crate::line::Line;
use crate::other::{self, Command, is_refused};
use crate::vidar;

const CR0_PE: u64 = 1 << 0;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const EFER: u32 = 0xc000_0080;
const NXE: u64 = 1 << 11;
const SCE: u64 = 1 << 0;
const LSTAR: u32 = 0xc000_0082;

/// The bits of CR4: the name, the number of the bit, and the register and the number of the bit of CPUID leaf 7 that
/// reports it. CET comes last: it needs CR0.WP, which cannot be cleared after it. Intel SDM Vol. 3A, 2.5 "Control
/// Registers".
const CR4: [(&str, u32, usize, u32); 4] = [("umip", 11, 2, 2), ("smep", 20, 1, 7), ("smap", 21, 1, 20), ("cet", 23, 2, 7)];

/// The MSRs, with a value and another one.
const MSRS: [(&str, u32, u64, u64); 7] = [
    ("star", 0xc000_0081, 0x0013_0008_0000_0000, 0x0023_0008_0000_0000),
    ("lstar", LSTAR, 0xffff_8000_1111_2222, 0xffff_8000_1111_3333),
    ("cstar", 0xc000_0083, 0xffff_8000_2222_1111, 0xffff_8000_2222_3333),
    ("sfmask", 0xc000_0084, 0x4_7700, 0),
    ("sysenter-cs", 0x174, 0x10, 0),
    ("sysenter-esp", 0x175, 0xffff_8000_3333_1111, 0xffff_8000_3333_2222),
    ("sysenter-eip", 0x176, 0xffff_8000_4444_1111, 0x1000),
];

/// What Vidar has counted for each protection.
#[derive(Clone, Copy)]
struct Counts([Option<u64>; Protection::COUNT]);

impl Counts {
    fn now() -> Self {
        Self(core::array::from_fn(|number| {
            let answer = vidar::call(Call::Guard as u64, number as u64, 0, 0).ok()?;
            // The last RIP is known exactly if something was refused.
            let sound = (answer.rcx == 0) == (answer.rdx == 0);
            (answer.rax == Status::Ok as u64 && sound).then_some(answer.rcx)
        }))
    }

    /// Returns true if there is a guard that counts.
    fn are_kept(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }

    /// Returns what has been counted since `before`.
    fn since(self, before: Self) -> Self {
        let pairs: [_; Protection::COUNT] = core::array::from_fn(|number| self.0[number].zip(before.0[number]));
        Self(pairs.map(|pair| pair.map(|(after, before)| after - before)))
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.are_kept() {
            return f.write_str("off");
        }
        let mut any = false;
        for (protection, count) in Protection::ALL.iter().zip(self.0) {
            if let Some(count) = count.filter(|count| *count != 0) {
                write!(f, "{}{}:{count}", if any { "," } else { "" }, protection.name())?;
                any = true;
            }
        }
        if any { Ok(()) } else { f.write_str("none") }
    }
}

/// Returns the number of CPUs on which Vidar keeps LSTAR, or 0 if it keeps nothing.
fn holders() -> u64 {
    // KVM has another call of this number, which succeeds.
    if !vidar::present() {
        return 0;
    }
    let answer = vidar::call(Call::Guard as u64, Protection::Lstar as u64, 0, 0);
    answer.map_or(0, |answer| if answer.rax == Status::Ok as u64 { answer.rbx } else { 0 })
}

/// Takes the pages of the probe from programs, so that SMEP and SMAP do not stop the probe itself.
fn keep_pages_from_programs() {
    const USER: u64 = 1 << 2;
    let tables = cr3() & !0xfff;
    for entry in [0, 511] {
        let place = (tables + 8 * entry) as *mut u64;
        // SAFETY: the top table of the probe is below 4 GiB, which is mapped at its own addresses. The probe runs at
        // CPL 0.
        unsafe { place.write_volatile(place.read_volatile() & !USER) };
    }
    // SAFETY: the value is the same, and only translations are flushed.
    unsafe { asm!("mov cr3, {}", in(reg) cr3(), options(nostack, preserves_flags)) };
}

/// Attacks the protections on this CPU, from 64-bit code. Each item has the outcome of switching on, of the attack, and
/// what is left of the bit or the value.
pub fn guard(line: &mut Line) {
    keep_pages_from_programs();
    let before = Counts::now();
    let is_set = |value: u64, bit: u64| u8::from(value & bit != 0);
    // The CPU itself refuses these, whatever guards it. QEMU would not, and leave 64-bit mode.
    if !vidar::amd() || before.are_kept() {
        line.item("pe", Verdict(set_cr0(cr0() & !CR0_PE)));
        line.item("pg", Verdict(set_cr0(cr0() & !CR0_PG)));
        line.item("reserved", Verdict(set_cr4(cr4() | 1 << 63)));
    }
    line.item("not-canonical", Verdict(wrmsr(LSTAR, 1 << 60)));
    line.item("counted-of-these", Counts::now().since(before));
    let (on, off) = (set_cr0(cr0() | CR0_WP), set_cr0(cr0() & !CR0_WP));
    line.item("wp", format_args!("{}/{}/{}", Verdict(on), Verdict(off), is_set(cr0(), CR0_WP)));
    for (name, number, register, reported) in CR4 {
        if cpuid(7, 0)[register] >> reported & 1 == 0 {
            line.item(name, "lacks");
            continue;
        }
        let bit = 1 << number;
        let _ = set_cr0(cr0() | CR0_WP);
        let on = set_cr4(cr4() | bit);
        if name == "cet" {
            // The CPU itself refuses this, so it is not counted.
            line.item("wp-with-cet", Verdict(set_cr0(cr0() & !CR0_WP)));
        }
        let off = set_cr4(cr4() & !bit);
        line.item(name, format_args!("{}/{}/{}", Verdict(on), Verdict(off), is_set(cr4(), bit)));
    }
    // Bits that nobody guards change as before.
    let pge = cr4() ^ 1 << 7;
    line.item("pge", format_args!("{}/{}", Verdict(set_cr4(pge)), u8::from(cr4() == pge)));
    let _ = set_cr4(cr4() ^ 1 << 7);
    let efer = || rdmsr(EFER).unwrap_or(0);
    let (on, off) = (wrmsr(EFER, efer() | NXE), wrmsr(EFER, efer() & !NXE));
    line.item("nxe", format_args!("{}/{}/{}", Verdict(on), Verdict(off), is_set(efer(), NXE)));
    let (on, off) = (wrmsr(EFER, efer() | SCE), wrmsr(EFER, efer() & !SCE));
    line.item("sce", format_args!("{}/{}/{}", Verdict(on), Verdict(off), is_set(efer(), SCE)));
    for (name, index, value, other) in MSRS {
        let (on, same, off) = (wrmsr(index, value), wrmsr(index, value), wrmsr(index, other));
        line.item(name, format_args!("{}/{}/{}/{}", Verdict(on), Verdict(same), Verdict(off), Hex(rdmsr(index))));
    }
    line.item("counted", Counts::now().since(before));
    line.item("held", holders());
    // Nothing is left on where nobody guards it.
    let _ = set_cr0(cr0() & !CR0_WP);
    for (_, index, ..) in MSRS {
        let _ = wrmsr(index, 0);
    }
}

/// Attacks the protections on the other CPU, from 32-bit code in long mode, which may switch paging off. Then the CPU
/// gets an INIT, after which it is as free as at first.
pub fn other(line: &mut Line) {
    keep_pages_from_programs();
    let apic = Apic::find();
    let before = Counts::now();
    other::prepare(&[LSTAR]);
    line.item("started", other::start(&apic).0);
    attack_other(line, 0xffff_8000_1111_2222);
    line.item("counted", Counts::now().since(before));
    line.item("held", holders());
    line.item("again", other::start(&apic).0);
    line.item("held", holders());
    // Another value than before INIT.
    attack_other(line, 0xffff_8000_5555_6666);
    line.item("counted", Counts::now().since(before));
}

fn attack_other(line: &mut Line, target: u64) {
    let read = |command| other::execute(command, 0, 0).unwrap_or(0) & 0xffff_ffff;
    // All is free before long mode.
    other::execute(Command::Cr0, 0, read(Command::ReadCr0) | CR0_WP);
    other::execute(Command::Cr0, 0, read(Command::ReadCr0) & !CR0_WP);
    line.item("free-wp", u8::from(read(Command::ReadCr0) & CR0_WP != 0));
    other::execute(Command::Long, cr3() as u32, 0);
    let mut attack = |name: &str, write, look, bit: u64| {
        let on = is_refused(write, 0, read(look) | bit);
        let off = is_refused(write, 0, read(look) & !bit);
        line.item(name, format_args!("{}/{}/{}", u8::from(on), u8::from(off), u8::from(read(look) & bit != 0)));
    };
    attack("wp", Command::Cr0, Command::ReadCr0, CR0_WP);
    for (name, number, register, reported) in CR4 {
        if cpuid(7, 0)[register] >> reported & 1 != 0 {
            other::execute(Command::Cr0, 0, read(Command::ReadCr0) | CR0_WP);
            attack(name, Command::Cr4, Command::ReadCr4, 1 << number);
        }
    }
    let efer = || other::execute(Command::Rdmsr, EFER, 0).unwrap_or(0);
    let (on, off) = (is_refused(Command::Wrmsr, EFER, efer() | NXE), is_refused(Command::Wrmsr, EFER, efer() & !NXE));
    line.item("nxe", format_args!("{}/{}/{}", u8::from(on), u8::from(off), u8::from(efer() & NXE != 0)));
    let set = |value| u8::from(is_refused(Command::Wrmsr, LSTAR, value));
    let (on, off) = (set(target), set(0x1000));
    let left = other::execute(Command::Rdmsr, LSTAR, 0).unwrap_or(0);
    line.item("lstar", format_args!("{on}/{off}/{}", u8::from(left == target)));
    let mut leave = |name: &str, bits: u64| {
        let refused = is_refused(Command::Cr0, 0, read(Command::ReadCr0) & !bits);
        line.item(name, format_args!("{}/{:x}", u8::from(refused), read(Command::ReadCr0) & (CR0_PG | CR0_PE)));
    };
    leave("pg", CR0_PG);
    leave("pe", CR0_PG | CR0_PE);
}
