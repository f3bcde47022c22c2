//! The local APIC in x2APIC mode, with two CPUs: the destinations of its messages, and the accesses that it refuses.
//! Intel SDM Vol. 3A, 11.12 "Extended XAPIC (x2APIC)".

#![expect(unsafe_code, reason = "assembly turns interrupts on and off")]

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::apic::{Apic, INIT, STARTUP};
use crate::attempt::{Hex, Verdict, rdmsr, wrmsr};
use crate::cpu::cpuid;
use crate::frame::Frame;
use crate::handlers::handling;
use crate::line::Line;
use crate::other::{self, Command, INTERRUPT};

const APIC_BASE: u32 = 0x1b;
const ID: u32 = 0x802;
const END_OF_INTERRUPT: u32 = 0x80b;
const LOGICAL_ID: u32 = 0x80d;
const SPURIOUS: u32 = 0x80f;
const COMMAND: u32 = 0x830;
const SELF: u32 = 0x83f;

const ENABLED_AND_X2APIC: u64 = 0b11 << 10;

const ASSERT: u64 = 1 << 14;
const LOGICAL: u64 = 1 << 11;
const NMI: u64 = 4 << 8;
const VECTOR: u64 = INTERRUPT as u64;
const ALL_OTHERS: u64 = 3 << 18;

static TAKEN: AtomicU32 = AtomicU32::new(0);

fn on_interrupt(_: &mut Frame) {
    TAKEN.fetch_add(1, Relaxed);
    let _ = wrmsr(END_OF_INTERRUPT, 0);
}

/// Sends messages by the interrupt command register. Each item has the outcome of the write, the number of interrupts
/// that this CPU took, and the number that the other CPU took.
pub fn commands(line: &mut Line) {
    if cpuid(1, 0)[2] >> 21 & 1 == 0 {
        return line.item("lacks", "x2APIC");
    }
    let mut apic = Apic::find();
    apic.enable();
    other::prepare(&[]);
    apic.enter_x2apic_mode();
    line.item("started", other::start(&apic).0);
    enter_x2apic_mode();
    other::in_x2apic_mode();
    other::execute(Command::Enable, 0, 0);
    line.item("ids", format_args!("{}/{}", Hex(rdmsr(ID)), Hex(Ok(other::execute(Command::Rdmsr, ID, 0).unwrap_or(u64::MAX)))));
    let other_cpu = u64::from(other::ID) << 32;
    handling(INTERRUPT, on_interrupt, || {
        for (name, command, here, there) in [
            ("physical", other_cpu | ASSERT | VECTOR, 0, 1),
            ("physical-self", ASSERT | VECTOR, 1, 0),
            ("nobody", 9 << 32 | ASSERT | VECTOR, 0, 0),
            ("logical", 2 << 32 | LOGICAL | ASSERT | VECTOR, 0, 1),
            ("logical-both", 3 << 32 | LOGICAL | ASSERT | VECTOR, 1, 1),
            ("other-cluster", 1 << 48 | 3 << 32 | LOGICAL | ASSERT | VECTOR, 0, 0),
            ("all-by-id", 0xffff_ffff << 32 | ASSERT | VECTOR, 1, 1),
            ("self", 1 << 18 | ASSERT | VECTOR, 1, 0),
            ("all", 2 << 18 | ASSERT | VECTOR, 1, 1),
            ("others", ALL_OTHERS | ASSERT | VECTOR, 0, 1),
            ("bit-12", other_cpu | ASSERT | VECTOR | 1 << 12, 0, 0),
            ("bit-13", other_cpu | ASSERT | VECTOR | 1 << 13, 0, 0),
            ("bit-16", other_cpu | ASSERT | VECTOR | 1 << 16, 0, 0),
            ("bit-20", other_cpu | ASSERT | VECTOR | 1 << 20, 0, 0),
            ("bit-31", other_cpu | ASSERT | VECTOR | 1 << 31, 0, 0),
        ] {
            show(line, name, COMMAND, command, here, there);
        }
        show(line, "self-ipi", SELF, VECTOR, 1, 0);
        show(line, "self-ipi-bit-8", SELF, VECTOR | 1 << 8, 0, 0);
    });
    for index in [0x80b, 0x80e, 0x831, 0x83f, 0x840] {
        line.item(format_args!("read-{index:x}"), Verdict(rdmsr(index).map(drop)));
    }
    for (index, value) in [(0x802, 0), (0x80b, 1), (0x80d, 0), (0x831, 0), (0x808, 1 << 8), (0x80f, 1 << 32)] {
        line.item(format_args!("write-{index:x}"), Verdict(wrmsr(index, value)));
    }
    line.item("back", Verdict(wrmsr(APIC_BASE, rdmsr(APIC_BASE).unwrap_or(0) & !(1 << 10))));
    line.item("nmi", format_args!("{}/{}", Verdict(wrmsr(COMMAND, other_cpu | ASSERT | NMI)), other::nmi()));
}

/// Sends INIT and start-up IPIs as Linux does, first by the ID of the other CPU, and then to all other CPUs at once.
/// The local APIC of that CPU is in x2APIC mode as well, and must stay in this mode after INIT. Last, that CPU sends
/// itself an interrupt by the SELF IPI register.
pub fn start_up(line: &mut Line) {
    if cpuid(1, 0)[2] >> 21 & 1 == 0 {
        return line.item("lacks", "x2APIC");
    }
    let mut apic = Apic::find();
    apic.enter_x2apic_mode();
    other::prepare(&[]);
    let (first, second) = other::start(&apic);
    line.item("started", format_args!("{first}{second}"));
    enter_x2apic_mode();
    let (first, second) = other::start(&apic);
    line.item("by-id", format_args!("{first}{second}"));
    state(line, "by-id");
    let others = |command: u32| {
        let _ = wrmsr(COMMAND, ALL_OTHERS | ASSERT | u64::from(command));
    };
    others(INIT);
    for _ in 0..100_000 {
        core::hint::spin_loop();
    }
    let (first, second) = other::started_by(|| others(STARTUP | u32::from(other::VECTOR)));
    line.item("to-others", format_args!("{first}{second}"));
    state(line, "to-others");
    other::in_x2apic_mode();
    other::execute(Command::Enable, 0, 0);
    other::execute(Command::Wrmsr, SELF, VECTOR);
    line.item("self-ipi", other::interrupts(1));
}

/// Makes the other CPU enter x2APIC mode and enable its local APIC.
fn enter_x2apic_mode() {
    let base = other::execute(Command::Rdmsr, APIC_BASE, 0).unwrap_or(0);
    other::execute(Command::Wrmsr, APIC_BASE, base | ENABLED_AND_X2APIC);
    other::execute(Command::Wrmsr, SPURIOUS, 0x1ff);
}

/// Shows the state of the other CPU's local APIC after INIT, and enables it again.
fn state(line: &mut Line, name: &str) {
    let base = other::execute(Command::Rdmsr, APIC_BASE, 0).unwrap_or(0);
    line.item(format_args!("{name}-base"), Hex(Ok(base)));
    if base & ENABLED_AND_X2APIC == ENABLED_AND_X2APIC {
        for (register, index) in [("id", ID), ("logical", LOGICAL_ID), ("spurious", SPURIOUS)] {
            let found = other::execute(Command::Rdmsr, index, 0);
            line.item(format_args!("{name}-{register}"), Hex(Ok(found.unwrap_or(u64::MAX))));
        }
    }
    enter_x2apic_mode();
}

/// Writes a command, and waits until this CPU has taken `here` interrupts and the other CPU `there`.
fn show(line: &mut Line, name: &str, register: u32, command: u64, here: u32, there: u32) {
    TAKEN.store(0, Relaxed);
    let before = other::taken().0;
    let wrote = wrmsr(register, command);
    for _ in 0..1000 {
        // SAFETY: the handler returns, and then interrupts are turned off again.
        unsafe { asm!("sti", "nop", "nop", "cli") };
        if TAKEN.load(Relaxed) >= here && there == 0 {
            break;
        }
        core::hint::spin_loop();
    }
    let there = other::interrupts(before + there) - before;
    line.item(name, format_args!("{}/{}/{there}", Verdict(wrote), TAKEN.load(Relaxed)));
}
