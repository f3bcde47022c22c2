//! Paging with five levels, where linear addresses have 57 bits. A hypervisor that executes an instruction in the
//! guest's place has to find it through these page tables.

#![expect(unsafe_code, reason = "assembly turns paging off and on, and code is written to unusual addresses and executed there")]

use core::arch::{asm, global_asm};

use crate::apic::Apic;
use crate::attempt::{Hex, Outcome, Verdict, attempt, rdmsr, set_cr4, wrmsr};
use crate::cpu::{cpuid, cr3, cr4};
use crate::image::physical;
use crate::line::Line;
use crate::window::{self, Table};

global_asm!(include_str!("five_levels.S"), options(att_syntax));

unsafe extern "C" {
    static levels_start: u8;
    static levels_end: u8;
}

/// The address that five_levels.S is copied to.
const PLACE: *mut u8 = 0xc000 as *mut u8;
/// The address of a page for the code that is executed through five levels.
const CODE: u64 = 0xd000;

const CR4_LA57: u64 = 1 << 12;
const LSTAR: u32 = 0xc000_0082;
const TASK_PRIORITY: u64 = 0x80;

/// Flags of an entry that refers to a table: present, writable, accessible at CPL 3, accessed.
const TABLE: u64 = 0x27;

/// The table of the fifth level. Its entries 0, 1 and 511 refer to the entry code's top table.
static mut TOP: Table = Table([0; 512]);
/// The first address that entry 1 maps. Added to an address in the lower half of four levels, it gives a second address
/// of the same memory.
const ALIAS: u64 = 1 << 48;

fn read(address: u64) -> Outcome<u64> {
    let value: u32;
    attempt!("mov {value:e}, [{address}]"; value = inout(reg) 0_u32 => value, address = in(reg) address)?;
    Ok(u64::from(value))
}

/// Runs the same cases with four levels, with five, and with four again.
pub fn five_levels(line: &mut Line) {
    if cpuid(7, 0)[2] >> 16 & 1 == 0 {
        return line.item("lacks", "5-level-paging");
    }
    let (start, end) = (&raw const levels_start, &raw const levels_end);
    let (before, top) = (cr3(), &raw mut TOP);
    // SAFETY: one CPU runs, every PC has RAM at these addresses, and only this function uses the table.
    unsafe {
        start.copy_to_nonoverlapping(PLACE, end.offset_from_unsigned(start));
        for index in [0, 1, 511] {
            (*top).0[index] = before & !0xfff | TABLE;
        }
    }
    // SAFETY: interrupts are off. The code is below 4 GiB, mapped to itself, and keeps to the calling convention.
    let switch = unsafe { core::mem::transmute::<*mut u8, extern "C" fn(u64, u64)>(PLACE) };
    cases(line, "four");
    line.item("turn-on", Verdict(set_cr4(cr4() | CR4_LA57)));
    switch(physical(top), cr4() | CR4_LA57);
    line.item("cr4", format_args!("{:#x}", cr4()));
    cases(line, "five");
    line.item("turn-off", Verdict(set_cr4(cr4() & !CR4_LA57)));
    switch(before, cr4() & !CR4_LA57);
    line.item("cr4-after", format_args!("{:#x}", cr4()));
    cases(line, "four-again");
    window::show(0);
}

/// Tries what depends on the width of linear addresses, and instructions that a hypervisor may have to read from
/// memory.
fn cases(line: &mut Line, levels: &str) {
    let apic = Apic::find();
    let old = rdmsr(LSTAR).unwrap_or(0);
    for (name, address) in [("lstar-50", 1 << 50), ("lstar-57", 1 << 57)] {
        line.item(format_args!("{levels}-{name}"), Verdict(wrmsr(LSTAR, address)));
    }
    let _ = wrmsr(LSTAR, old);
    line.item(format_args!("{levels}-alias"), Verdict(read(ALIAS + 0x1000).map(drop)));
    let expected = cpuid(0x8000_0000, 0)[0];
    line.item(format_args!("{levels}-cpuid"), format_args!("{expected:#x}"));
    // SAFETY: the page is the probe's.
    unsafe { (CODE as *mut [u8; 5]).write_volatile([0x53, 0x0f, 0xa2, 0x5b, 0xc3]) }; // push rbx; cpuid; pop rbx; ret
    if read(ALIAS + CODE).is_ok() {
        let eax: u64;
        // SAFETY: the bytes are a function that changes only the registers that are named here.
        unsafe {
            asm!("call {code}", code = in(reg) ALIAS + CODE, inout("rax") 0x8000_0000_u64 => eax, out("rcx") _, out("rdx") _);
        }
        line.item(format_args!("{levels}-cpuid-above"), if eax == u64::from(expected) { "same" } else { "other" });
    }
    // A store to the APIC, which a hypervisor may watch.
    let place = ALIAS + apic.base() + TASK_PRIORITY;
    let stored = attempt!("mov dword ptr [{place}], 0x20"; place = in(reg) place);
    line.item(format_args!("{levels}-apic"), format_args!("{}/{:#x}", Verdict(stored), apic.read(TASK_PRIORITY)));
    let cleared = attempt!("mov dword ptr [{place}], 0"; place = in(reg) place);
    line.item(format_args!("{levels}-apic-cleared"), format_args!("{}/{:#x}", Verdict(cleared), apic.read(TASK_PRIORITY)));
    line.item(format_args!("{levels}-version"), Hex(read(apic.base() + 0x30)));
}
