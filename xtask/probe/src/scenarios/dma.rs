//! Attacks on Vidar's memory by devices: by QEMU's `edu`, whose DMA engine any guest can program, and by the
//! invalidation queue of a remapping unit, which writes where a descriptor says. The target is in the last page of
//! Vidar's region. Vidar has a page table there that it uses to start other CPUs, and the target is a part of it that
//! holds zeros, so that an attack that succeeds does no harm.
//!
//! QEMU, docs/specs/edu.rst; VT-d specification, 6.5.2 "Queued Invalidation Interface".

#![expect(unsafe_code, reason = "registers of devices are accessed")]

use core::hint::spin_loop;

use vidar_abi::{Call, DmaFault};

use crate::attempt::Hex;
use crate::cpu::{inl, outl};
use crate::image::physical;
use crate::line::Line;
use crate::vidar;

/// Where the device is, and its identity.
const EDU: u32 = 4 << 11;
const IDENTITY: u32 = 0x11e8_1234;
/// Offsets in the device: its buffer, and the registers of its DMA engine.
const BUFFER: u64 = 0x4_0000;
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
/// Commands: go, and the direction from the device to memory.
const GO: u32 = 1;
const TO_MEMORY: u32 = 2;

/// The registers of QEMU's remapping unit, and of them capabilities, command, status, and the queue's.
const UNIT: u64 = 0xfed9_0000;
const CAP: u64 = UNIT + 8;
const GCMD: u64 = UNIT + 0x18;
const GSTS: u64 = UNIT + 0x1c;
const IQT: u64 = UNIT + 0x88;
const IQA: u64 = UNIT + 0x90;
const QUEUE_ON: u32 = 1 << 26;

/// What the device writes.
const MARK: u64 = u64::from_le_bytes(*b"attacked");

#[repr(C, align(4096))]
struct Page([u64; 512]);

static mut OWN: Page = Page([0; 512]);
static mut QUEUE: Page = Page([0; 512]);

/// Reads 32 bits of a register.
fn read(at: u64) -> u32 {
    // SAFETY: the caller names a register of a device, and all addresses below 4 GiB are mapped.
    unsafe { (at as *const u32).read_volatile() }
}

/// Writes 32 bits of a register.
fn write(at: u64, value: u32) {
    // SAFETY: as in `read`. What the device does then is the test.
    unsafe { (at as *mut u32).write_volatile(value) };
}

/// Reads or writes the configuration space of a device on the first bus.
fn configuration(device: u32, offset: u32) -> u32 {
    outl(0xcf8, 1 << 31 | device | offset);
    inl(0xcfc)
}

fn configure(device: u32, offset: u32, value: u32) {
    outl(0xcf8, 1 << 31 | device | offset);
    outl(0xcfc, value);
}

/// Has the device at `edu` copy eight bytes, and waits for the end.
fn copy(edu: u64, source: u64, destination: u64, command: u32) {
    for (register, value) in [(SOURCE, source as u32), (DESTINATION, destination as u32), (COUNT, 8), (COMMAND, GO | command)] {
        write(edu + register, value);
    }
    while read(edu + COMMAND) & GO != 0 {
        spin_loop();
    }
}

/// The word at `index` of a page.
fn word(page: *mut Page, index: usize) -> *mut u64 {
    page.cast::<u64>().wrapping_add(index % 512)
}

fn put(page: *mut Page, index: usize, value: u64) {
    // SAFETY: the word is in a page of the probe's, to which there is no reference.
    unsafe { word(page, index).write_volatile(value) };
}

fn get(page: *mut Page, index: usize) -> u64 {
    // SAFETY: as in `put`.
    unsafe { word(page, index).read_volatile() }
}

/// Has the unit write 32 bits at `to`, by a descriptor in the probe's queue.
fn write_by_queue(tail: &mut u32, data: u64, to: u64) {
    put(&raw mut QUEUE, *tail as usize * 2, 5 | 1 << 5 | data << 32);
    put(&raw mut QUEUE, *tail as usize * 2 + 1, to);
    *tail += 1;
    write(IQT, *tail * 16);
}

fn show_faults(line: &mut Line) {
    let Ok(answer) = vidar::call(Call::Dma as u64, 0, 0, 0) else { return };
    line.item("state", answer.rbx);
    line.item("units", answer.rcx);
    line.item("faults", answer.rdx);
    if let Some(fault) = DmaFault::from_words([answer.rsi, answer.rdi]) {
        let access = if fault.write { "write" } else { "read" };
        line.item("first", format_args!("{:#x}/{access}/{:#x}", fault.requester, fault.address));
    }
}

/// Returns true if the fault after the first one is that of a read of the page of `target`.
fn read_was_refused(target: u64) -> bool {
    let answer = vidar::call(Call::Dma as u64, 1, 0, 0).ok();
    let fault = answer.and_then(|answer| DmaFault::from_words([answer.rsi, answer.rdi]));
    fault.is_some_and(|fault| !fault.write && fault.address == target & !0xfff)
}

/// Writes to the probe's own memory and to Vidar's, by both devices, and says what the probe can see of it.
pub fn dma(line: &mut Line) {
    let Some((base, size)) = vidar::region() else {
        return line.word("none");
    };
    if configuration(EDU, 0) != IDENTITY {
        return line.word("no-device");
    }
    let target = base + size - 2048;
    let edu = u64::from(configuration(EDU, 0x10) & !0xf);
    // Memory space, and DMA.
    configure(EDU, 4, configuration(EDU, 4) | 6);
    let own = physical(&raw const OWN);
    put(&raw mut OWN, 0, MARK);
    copy(edu, own, BUFFER, 0);
    copy(edu, BUFFER, own + 8, TO_MEMORY);
    line.item("own", if get(&raw mut OWN, 1) == get(&raw mut OWN, 0) { "written" } else { "kept" });
    line.item("widths", Hex(Ok((u64::from(read(CAP)) >> 8) & 0x1f)));
    line.item("status", Hex(Ok(u64::from(read(GSTS)))));
    // A command that switches translation off, if it can, and the attack.
    write(GCMD, 0);
    copy(edu, BUFFER, target, TO_MEMORY);
    show_faults(line);
    let mut tail = 0;
    write(IQT, 0);
    write(IQA, physical(&raw const QUEUE) as u32);
    write(IQA + 4, 0);
    write(GCMD, QUEUE_ON);
    write_by_queue(&mut tail, 0x1122_3344, own + 16);
    write_by_queue(&mut tail, 0x5566_7788, target + 16);
    let written = (0..1_000_000).any(|_| get(&raw mut OWN, 2) != 0);
    line.item("queue", if written { "written" } else { "kept" });
    line.item("head", Hex(Ok(read(UNIT + 0x80).into())));
    write(GCMD, 0);
    // The device reads Vidar's memory, if it can, and shows it. A read that is refused has it see zeros, and so may one
    // that is not, so that the fault tells them apart.
    copy(edu, target, BUFFER + 8, 0);
    copy(edu, BUFFER + 8, own + 24, TO_MEMORY);
    let is_mark = get(&raw mut OWN, 3) == MARK;
    line.item("read", if is_mark { "mark" } else if read_was_refused(target) { "other" } else { "unnoticed" });
    line.item("target", Hex(Ok(target)));
    line.item("present", if vidar::present() { "yes" } else { "no" });
}
