//! Valid and invalid hypercalls, from CPL 0 and from CPL 3.

#![expect(unsafe_code, reason = "the code that runs at CPL 3 is assembly")]

use core::arch::naked_asm;

use vidar_abi::{Call, ExitKind, LOG_CHUNK, MAGIC, Status};

use crate::attempt::{Hex, Outcome, Verdict};
use crate::line::Line;
use crate::registers::{ChangedNames, Instruction, RAX, RBX, RCX, execute};
use crate::serial::{Serial, say};
use crate::{gdt, user, vidar};

/// Numbers of no hypercall.
const UNKNOWN: [u64; 4] = [0x3f, 0xffff_ffff, 1 << 32, u64::MAX];

#[unsafe(naked)]
extern "C" fn vmcall_at_cpl3() {
    naked_asm!("vmcall", "int 0x80")
}

#[unsafe(naked)]
extern "C" fn vmmcall_at_cpl3() {
    naked_asm!("vmmcall", "int 0x80")
}

/// Makes a call, and returns the name of its status.
fn status(number: u64, rbx: u64, rcx: u64) -> &'static str {
    match vidar::call(number, rbx, rcx, 0).ok().and_then(|answer| Status::from_raw(answer.rax)) {
        Some(Status::Ok) => "ok",
        Some(Status::UnknownCall) => "unknown-call",
        Some(Status::BadArgument) => "bad-argument",
        Some(Status::NotPermitted) => "not-permitted",
        Some(Status::Off) => "off",
        Some(Status::NotFound) => "not-found",
        Some(Status::NoMemory) => "no-memory",
        None => "nonsense",
    }
}

/// Makes the call `number` at CPL 3, and returns RAX.
fn from_cpl3(number: u64) -> Outcome<u64> {
    let code = if vidar::amd() { vmmcall_at_cpl3 as *const () } else { vmcall_at_cpl3 as *const () };
    // SAFETY: both functions use no stack, write only registers and end with INT 0x80.
    unsafe { user::visit(code as u64, number) }
}

/// Makes every valid call, and a call with every possible error. On a bare machine the instruction raises #UD.
pub fn hypercall(line: &mut Line) {
    let version = match vidar::call(Call::Version as u64, 0, 0, 0) {
        Ok(answer) => answer,
        Err(fault) => {
            line.word(fault);
            line.item("cpl3", Hex(from_cpl3(Call::Version as u64)));
            return;
        }
    };
    line.item("version", if version.rbx == MAGIC { "ok" } else { "nonsense" });
    line.item("abi", format_args!("{:#x}", version.rcx));
    line.item("status", status(Call::Status as u64, 0, 0));
    line.item("exits", status(Call::Exits as u64, 0, ExitKind::Hypercall as u64));
    line.item("log", status(Call::Log as u64, 0, 0));
    line.item("memory", status(Call::Memory as u64, 0, 0));
    line.item("commit", status(Call::Commit as u64, 0, 0));
    line.item("trace", status(Call::Trace as u64, 0, 0));
    line.item("lock", status(Call::Lock as u64, 0, 0));
    line.item("audit", status(Call::Audit as u64, 0, 0));
    line.item("trace-of-no-cpu", status(Call::Trace as u64, u64::MAX, 0));

    let cpus = vidar::call(Call::Status as u64, 0, 0, 0).map_or(0, |answer| answer.rsi);
    line.item("exits-of-no-cpu", status(Call::Exits as u64, cpus, 0));
    line.item("exits-of-cpu-max", status(Call::Exits as u64, u64::MAX, 0));
    line.item("exits-of-no-kind", status(Call::Exits as u64, 0, ExitKind::COUNT as u64));
    line.item("exits-of-kind-max", status(Call::Exits as u64, 0, u64::MAX));
    let end = vidar::call(Call::Log as u64, u64::MAX, 0, 0).ok();
    let end = end.is_some_and(|answer| answer.rcx == 0 || answer.rcx <= LOG_CHUNK as u64);
    line.item("log-at-max", if end { "ok" } else { "nonsense" });
    for number in UNKNOWN {
        line.item(format_args!("{number:#x}"), status(number, 0, 0));
    }

    let instruction = if vidar::amd() { Instruction::Vmmcall } else { Instruction::Vmcall };
    let unknown = [(RAX, u64::MAX), (RBX, 1), (RCX, 2)];
    // The number of this call equals the status that it returns, so not even RAX changes.
    let bad = [(RAX, Call::Exits as u64), (RBX, u64::MAX), (RCX, u64::MAX)];
    for (name, inputs) in [("unknown-changes", unknown), ("bad-changes", bad)] {
        line.item(name, ChangedNames(execute(instruction, &inputs)));
    }
    line.item("cpl3", Hex(from_cpl3(Call::Version as u64)));
    line.item("cpl3-unknown", Hex(from_cpl3(u64::MAX)));
    for (name, call) in [
        ("cpl3-crash", Call::Crash),
        ("cpl3-log", Call::Log),
        ("cpl3-trace", Call::Trace),
        ("cpl3-guard", Call::Guard),
    ] {
        line.item(name, Hex(from_cpl3(call as u64)));
    }
    line.item("after", Verdict(vidar::call(Call::Version as u64, 0, 0, 0).map(drop)));
}

/// Asks Vidar from CPL 3 to end the guest: first without the right to reset the machine, and then with it.
pub fn crash(line: &mut Line) {
    /// The reset control register of the chip set.
    const RESET_PORT: u16 = 0xcf9;
    for port in [0xcf8, RESET_PORT] {
        gdt::open_port(port);
        say!("probe crash: now with port {port:#x}");
        Serial::drain();
        line.item(format_args!("{port:#x}"), Hex(from_cpl3(Call::Crash as u64)));
        say!("probe crash: survived");
    }
}
