//! The second CPU, whose APIC ID is 1: it is started, tells what it found, and does what it is told.

#![expect(unsafe_code, reason = "memory below 1 MiB is written, for the other CPU and by it")]

use core::arch::global_asm;

use crate::apic::Apic;

global_asm!(include_str!("other.S"));

unsafe extern "C" {
    safe static other_begin: [u8; 0];
    safe static other_interrupt: [u8; 0];
    safe static other_nmi: [u8; 0];
    safe static other_end: [u8; 0];
}

/// The APIC ID of the other CPU.
pub const ID: u32 = 1;

/// The page that the start-up IPI names, and the places that other.S has for what both know.
const PAGE: u64 = 0x7000;
const NOTES: u64 = 0x7700;
const COUNT: u64 = 0x7780;
const NMIS: u64 = 0x7788;
const INTERRUPTS: u64 = 0x778c;
const X2APIC: u64 = 0x7794;
const MAIL: u64 = 0x77a0;
const MSRS: u64 = 0x7800;
const VALUES: u64 = 0x7a00;
const IDT: u64 = 0x8000;
const VECTOR: u8 = (PAGE >> 12) as u8;

/// The vector of its interrupts.
pub const INTERRUPT: u8 = 0x45;

/// How long it is waited for, in loops.
const PATIENCE: u32 = 3_000_000;

/// What it can be told, by the numbers that other.S has for it.
#[derive(Clone, Copy)]
pub enum Command {
    Load = 1,
    Store,
    Rdmsr,
    Wrmsr,
    Cr0,
    Cr4,
    /// To put something into CR2, CR3 and the debug registers.
    Fill,
    /// To take interrupts from now on.
    Enable,
    /// To halt with interrupts off; from here on it does nothing else any more.
    Halt,
    /// To halt with interrupts on.
    Wait,
    /// To run in a loop with interrupts off.
    Spin,
    /// To run in a loop with interrupts on.
    SpinEnabled,
}

fn read(address: u64) -> u32 {
    // SAFETY: all below 4 GiB is mapped, and these pages are the probe's.
    unsafe { (address as *const u32).read_volatile() }
}

fn write(address: u64, value: u32) {
    // SAFETY: as in `read`.
    unsafe { (address as *mut u32).write_volatile(value) };
}

/// Waits until `done` says so, or long enough.
fn wait(done: impl Fn() -> bool) -> bool {
    for _ in 0..PATIENCE {
        if done() {
            return true;
        }
        core::hint::spin_loop();
    }
    false
}

/// What it found when it was started: the words that other.S notes, by their offset.
pub fn note(offset: u64) -> u32 {
    read(NOTES + offset)
}

/// What it found in the MSR at this place of the list that [`prepare`] was given.
pub fn found(index: usize) -> u64 {
    let place = VALUES + 8 * index as u64;
    u64::from(read(place + 4)) << 32 | u64::from(read(place))
}

/// Lays out its code and its table of interrupts; when it is started it is to read these MSRs.
pub fn prepare(msrs: &[u32]) {
    let (begin, end) = (other_begin.as_ptr() as u64, other_end.as_ptr() as u64);
    // SAFETY: as in `read`.
    unsafe { core::ptr::copy(begin as *const u8, PAGE as *mut u8, (end - begin) as usize) };
    for place in (NOTES..MSRS).step_by(4) {
        write(place, 0);
    }
    write(MSRS, msrs.len() as u32);
    for (index, msr) in msrs.iter().enumerate() {
        write(MSRS + 4 + 4 * index as u64, *msr);
    }
    for vector in 0..256 {
        let handler = if vector == 2 { other_nmi.as_ptr() } else { other_interrupt.as_ptr() } as u64;
        let handler = (handler - begin + PAGE) as u32;
        // A 32-bit interrupt gate of selector 8.
        write(IDT + 8 * vector, handler & 0xffff | 8 << 16);
        write(IDT + 8 * vector + 4, handler & 0xffff_0000 | 0x8e00);
    }
}

/// Sends it an INIT and two start-up IPIs, as Linux does: how often it was started by the first, and by the second.
pub fn start(apic: &Apic) -> (u32, u32) {
    apic.init(ID);
    start_waiting(apic)
}

/// Sends it two start-up IPIs.
pub fn start_waiting(apic: &Apic) -> (u32, u32) {
    let before = read(COUNT);
    apic.startup(ID, VECTOR);
    wait(|| read(COUNT) != before);
    let first = read(COUNT);
    apic.startup(ID, VECTOR);
    for _ in 0..100_000 {
        core::hint::spin_loop();
    }
    (first - before, read(COUNT) - first)
}

/// Has it do something, and returns what came of it: `None` if it does not answer.
pub fn tell(command: Command, argument: u32, value: u64) -> Option<u64> {
    write(MAIL + 4, argument);
    write(MAIL + 8, value as u32);
    write(MAIL + 12, (value >> 32) as u32);
    write(MAIL, command as u32);
    wait(|| read(MAIL) == 0).then(|| u64::from(read(MAIL + 20)) << 32 | u64::from(read(MAIL + 16)))
}

/// Tells it that its APIC is in x2APIC mode.
pub fn in_x2apic_mode() {
    write(X2APIC, 1);
}

/// How many interrupts and NMIs it has taken.
pub fn taken() -> (u32, u32) {
    (read(INTERRUPTS), read(NMIS))
}

/// Waits until it has taken so many interrupts, or long enough; returns how many.
pub fn interrupts(wanted: u32) -> u32 {
    wait(|| read(INTERRUPTS) >= wanted);
    read(INTERRUPTS)
}

/// Waits until it has taken an NMI.
pub fn nmi() -> bool {
    wait(|| read(NMIS) != 0)
}
