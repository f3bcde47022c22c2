//! Controls the second CPU, whose APIC ID is 1: starts it, reads the registers that it found, and sends it commands.

#![expect(unsafe_code, reason = "the other CPU's code and data are in memory below 1 MiB")]

use core::arch::global_asm;

use crate::apic::Apic;

global_asm!(include_str!("other.S"));

unsafe extern "C" {
    safe static other_begin: [u8; 0];
    safe static other_interrupt: [u8; 0];
    safe static other_nmi: [u8; 0];
    safe static other_refused: [u8; 0];
    safe static other_look: [u8; 0];
    safe static other_end: [u8; 0];
}

/// The APIC ID of the other CPU.
pub const ID: u32 = 1;

/// The page that the start-up IPI names. It and the addresses that follow are the same as in other.S.
const PAGE: u64 = 0x7000;
const NOTES: u64 = 0x7700;
const COUNT: u64 = 0x7780;
const NMIS: u64 = 0x7788;
const INTERRUPTS: u64 = 0x778c;
/// The number of times that the CPU has looked for a command, in four bytes.
pub const TURNS: u64 = 0x7790;
const X2APIC: u64 = 0x7794;
const LEFT: u64 = 0x7798;
const FAULTS: u64 = 0x779c;
const MAIL: u64 = 0x77a0;
const MSRS: u64 = 0x7800;
const VALUES: u64 = 0x7a00;
const IDT: u64 = 0x8000;
const LONG_IDT: u64 = 0x8800;
/// The offset in the interrupt descriptor table of long mode of the gate of #GP.
const REFUSED: u64 = 16 * 13;
/// The vector of the start-up IPI, which is the number of that page.
pub const VECTOR: u8 = (PAGE >> 12) as u8;

/// The vector of the interrupts that are sent to it.
pub const INTERRUPT: u8 = 0x45;

/// The number of loops that the probe waits for the other CPU.
const PATIENCE: u32 = 3_000_000;

/// A command for the other CPU, by its number in other.S.
#[derive(Clone, Copy)]
pub enum Command {
    /// Read four bytes of memory.
    Load = 1,
    /// Write four bytes of memory.
    Store,
    /// Read an MSR.
    Rdmsr,
    /// Write an MSR.
    Wrmsr,
    /// Write CR0.
    Cr0,
    /// Write CR4.
    Cr4,
    /// Fill CR2, CR3 and the debug registers with values that are not those after reset.
    Fill,
    /// Enable interrupts.
    Enable,
    /// Enter long mode, with page tables that the argument names, and stay in 32-bit code.
    Long,
    /// Read CR0.
    ReadCr0,
    /// Read CR4.
    ReadCr4,
    /// Look for a UART by its interrupt enable register, as Linux does.
    Look,
    /// Halt with interrupts off. The CPU takes no more commands after this one and those below.
    Halt,
    /// Halt with interrupts on.
    Wait,
    /// Run in a loop with interrupts off.
    Spin,
    /// Run in a loop with interrupts on.
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

/// Waits until `done` returns true. Returns false if that takes too long.
fn wait(done: impl Fn() -> bool) -> bool {
    for _ in 0..PATIENCE {
        if done() {
            return true;
        }
        core::hint::spin_loop();
    }
    false
}

/// Returns a word that other.S stored when the CPU was started, by its offset from OTHER_NOTES.
pub fn note(offset: u64) -> u32 {
    read(NOTES + offset)
}

/// Returns the value that the CPU found in an MSR when it was started, by its index in the list that [`prepare`] was
/// given.
pub fn msr(index: usize) -> u64 {
    let place = VALUES + 8 * index as u64;
    u64::from(read(place + 4)) << 32 | u64::from(read(place))
}

/// Writes the CPU's code and its interrupt descriptor table to their places. When it is started, it will read these
/// MSRs.
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
    // In long mode only a #GP is handled, by 64-bit code.
    let handler = (other_refused.as_ptr() as u64 - begin + PAGE) as u32;
    write(LONG_IDT + REFUSED, handler & 0xffff | 0x18 << 16);
    write(LONG_IDT + REFUSED + 4, handler & 0xffff_0000 | 0x8e00);
    write(LONG_IDT + REFUSED + 8, 0);
    write(LONG_IDT + REFUSED + 12, 0);
}

/// Sends the CPU an INIT and two start-up IPIs, as Linux does. Returns how often it was started by the first start-up
/// IPI, and how often by the second.
pub fn start(apic: &Apic) -> (u32, u32) {
    apic.init(ID);
    start_waiting(apic)
}

/// Sends the CPU two start-up IPIs, and returns the same as [`start`].
pub fn start_waiting(apic: &Apic) -> (u32, u32) {
    started_by(|| apic.startup(ID, VECTOR))
}

/// Calls `send`, which sends the CPU a start-up IPI with [`VECTOR`], two times. Returns how often the CPU was started
/// by the first, and how often by the second.
pub fn started_by(send: impl Fn()) -> (u32, u32) {
    let before = read(COUNT);
    send();
    wait(|| read(COUNT) != before);
    let first = read(COUNT);
    send();
    for _ in 0..100_000 {
        core::hint::spin_loop();
    }
    (first - before, read(COUNT) - first)
}

/// Sends the CPU a command, and returns its result. Returns `None` if the CPU does not answer.
pub fn execute(command: Command, argument: u32, value: u64) -> Option<u64> {
    write(MAIL + 4, argument);
    write(MAIL + 8, value as u32);
    write(MAIL + 12, (value >> 32) as u32);
    write(MAIL, command as u32);
    wait(|| read(MAIL) == 0).then(|| u64::from(read(MAIL + 20)) << 32 | u64::from(read(MAIL + 16)))
}

/// Returns the address of the first instruction that [`Command::Look`] has the CPU execute.
pub fn look() -> u64 {
    PAGE + (other_look.as_ptr() as u64 - other_begin.as_ptr() as u64)
}

/// Tells the CPU that its local APIC is in x2APIC mode, so that it ends interrupts by the MSR.
pub fn in_x2apic_mode() {
    write(X2APIC, 1);
}

/// If `leave` is true, the CPU leaves interrupts in service from now on, and keeps interrupts disabled after each.
pub fn leave_in_service(leave: bool) {
    write(LEFT, leave.into());
}

/// Sends the CPU, which is in long mode, a command, and returns true if it raised #GP.
pub fn is_refused(command: Command, argument: u32, value: u64) -> bool {
    let before = read(FAULTS);
    execute(command, argument, value);
    read(FAULTS) != before
}

/// Returns how many interrupts and how many NMIs the CPU has taken.
pub fn taken() -> (u32, u32) {
    (read(INTERRUPTS), read(NMIS))
}

/// Waits until the CPU has taken this number of interrupts, for a limited time. Returns how many it has taken.
pub fn interrupts(wanted: u32) -> u32 {
    wait(|| read(INTERRUPTS) >= wanted);
    read(INTERRUPTS)
}

/// Waits until the CPU has taken an NMI. Returns false if that takes too long.
pub fn nmi() -> bool {
    wait(|| read(NMIS) != 0)
}
