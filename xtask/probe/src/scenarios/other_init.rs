//! INIT on another CPU: it must arrive whatever that CPU does. It leaves certain values in the registers and in the
//! local APIC.

use crate::apic::{Apic, NMI};
use crate::attempt::{Hex, rdmsr};
use crate::cpu::cpuid;
use crate::line::Line;
use crate::other::{self, Command};
use crate::scenarios::cet::{INTERRUPT_SSP_TABLE, PL0_SSP, S_CET, U_CET, has_shadow_stacks};

/// Puts the other CPU into different states: halted and running, with and without interrupts, and in an NMI handler
/// with another NMI pending. In each state it gets two INITs, since firmware may have sent one before, and then
/// start-up IPIs as from Linux.
pub fn wherever(line: &mut Line) {
    let apic = Apic::find();
    other::prepare(&[]);
    let mut round = |name: &str, state: &dyn Fn()| {
        let (first, second) = other::start(&apic);
        state();
        apic.init(other::ID);
        apic.init(other::ID);
        let (again, once_more) = other::start_waiting(&apic);
        line.item(name, format_args!("{first}{second}{again}{once_more}"));
    };
    let after = |command| {
        move || {
            other::execute(command, 0, 0);
        }
    };
    round("listening", &|| {});
    round("halted", &after(Command::Halt));
    round("waiting", &after(Command::Wait));
    round("spinning", &after(Command::Spin));
    round("spinning-enabled", &after(Command::SpinEnabled));
    round("in-nmi", &|| {
        apic.send(other::ID, NMI | crate::apic::ASSERT);
        other::nmi();
        apic.send(other::ID, NMI | crate::apic::ASSERT);
    });
    line.item("nmis", other::taken().1);
}

/// The MSRs that are read after INIT. Each has its name, its index, and the value that is written before INIT.
const MSRS: [(&str, u32, u64); 12] = [
    ("sysenter-cs", 0x174, 0x10),
    ("sysenter-esp", 0x175, 0x1234),
    ("sysenter-eip", 0x176, 0x5678),
    ("pat", 0x277, 0x0007_0406_0007_0405),
    ("star", 0xc000_0081, 0x8_0000_0000),
    ("lstar", 0xc000_0082, 0x1000),
    ("cstar", 0xc000_0083, 0x2000),
    ("fmask", 0xc000_0084, 0x200),
    ("fs-base", 0xc000_0100, 0x3000),
    ("gs-base", 0xc000_0101, 0x4000),
    ("kernel-gs-base", 0xc000_0102, 0x5000),
    ("tsc-aux", 0xc000_0103, 7),
];

/// Reads registers and MSRs after INIT. For an MSR, the item says if its value was kept.
pub fn registers(line: &mut Line) {
    let apic = Apic::find();
    compare(line, &apic, &MSRS);
    let shown = [
        ("eax", 0x00), ("ebx", 0x04), ("ecx", 0x08), ("esi", 0x10), ("edi", 0x14), ("ebp", 0x18), ("esp", 0x1c),
        ("eflags", 0x20), ("cr0", 0x24), ("cr2", 0x28), ("cr3", 0x2c), ("cr4", 0x30), ("dr0", 0x34), ("dr3", 0x38), ("dr6", 0x3c),
        ("dr7", 0x40), ("cs-ds", 0x44), ("es-fs", 0x48), ("gs-ss", 0x4c), ("gdtr", 0x50), ("gdtr-high", 0x54), ("idtr", 0x58),
        ("idtr-high", 0x5c),
    ];
    for (name, offset) in shown {
        line.item(name, format_args!("{:x}", other::note(offset)));
    }
    let edx = other::note(0x0c);
    if edx == cpuid(1, 0)[0] {
        line.item("edx", "signature");
    } else {
        line.item("edx", format_args!("{edx:x}"));
    }
}

/// Reads the MSRs of CET and CR4 after INIT.
pub fn cet(line: &mut Line) {
    if !has_shadow_stacks() {
        return line.item("lacks", "shadow-stacks");
    }
    let msrs = [
        ("u-cet", U_CET, 3),
        ("s-cet", S_CET, 2),
        ("pl0-ssp", PL0_SSP, 0x1000),
        ("pl1-ssp", PL0_SSP + 1, 0x1100),
        ("pl2-ssp", PL0_SSP + 2, 0x1200),
        ("pl3-ssp", PL0_SSP + 3, 0x1300),
        ("interrupt-ssp-table", INTERRUPT_SSP_TABLE, 0x1400),
    ];
    compare(line, &Apic::find(), &msrs);
    line.item("cr4", format_args!("{:x}", other::note(0x30)));
}

/// Starts the CPU, lets it write these MSRs and other registers, starts it again, and compares the MSRs.
fn compare<const N: usize>(line: &mut Line, apic: &Apic, msrs: &[(&str, u32, u64); N]) {
    other::prepare(&msrs.map(|(_, index, _)| index));
    line.item("started", other::start(apic).0);
    for (_, index, value) in msrs {
        other::execute(Command::Wrmsr, *index, *value);
    }
    other::execute(Command::Fill, 0, 0);
    if has_shadow_stacks() {
        other::execute(Command::Cr0, 0, 0x1_0011);
        other::execute(Command::Cr4, 0, super::cet::CR4_CET);
    }
    line.item("again", other::start(apic).0);
    for (index, (name, _, value)) in msrs.iter().enumerate() {
        match other::msr(index) {
            read if read == *value => line.item(name, "kept"),
            read => line.item(name, format_args!("{read:#x}")),
        }
    }
}

/// The registers of the local APIC, by their offsets.
const APIC: [u64; 16] =
    [0x20, 0x30, 0x80, 0xa0, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x310, 0x320, 0x350, 0x360, 0x370, 0x380, 0x390];
/// Registers that newer local APICs have: the offset, and the smallest "max LVT entry" with which it exists.
const MORE: [(u64, u32); 3] = [(0x340, 4), (0x330, 5), (0x2f0, 6)];

fn read_all(line: &mut Line, when: &str, highest: u32, read: impl Fn(u64) -> Option<u64>) {
    let more = MORE.iter().filter(|(_, from)| highest >= *from).map(|(offset, _)| *offset);
    for offset in APIC.into_iter().chain([0x3e0]).chain(more) {
        line.item(format_args!("{when}{offset:x}"), Hex(Ok(read(offset).unwrap_or(u64::MAX))));
    }
    // The interrupts that are in service, level-triggered and requested.
    for (name, first) in [("isr", 0x100), ("tmr", 0x180), ("irr", 0x200)] {
        let any = (0..8).fold(0, |all, word| all | read(first + 0x10 * word).unwrap_or(0));
        line.item(format_args!("{when}{name}"), format_args!("{any:x}"));
    }
}

/// Writes all writable registers of the other CPU's local APIC and starts its timer, sends INIT, and reads the
/// registers.
pub fn apic(line: &mut Line) {
    let apic = Apic::find();
    let base = apic.base() as u32;
    other::prepare(&[]);
    line.item("started", other::start(&apic).0);
    let read = |offset: u64| other::execute(Command::Load, base + offset as u32, 0).map(|value| value & 0xffff_ffff);
    let write = |offset: u32, value: u32| {
        other::execute(Command::Store, base + offset, value.into());
    };
    let highest = read(0x30).unwrap_or(0) as u32 >> 16 & 0xff;
    for (offset, value) in [
        (0xf0, 0x1ef), (0x80, 0x10), (0xd0, 0x0200_0000), (0xe0, 0x0fff_ffff), (0x3e0, 0xb), (0x320, 0x2_0033), (0x350, 0x1_0700),
        (0x360, 0x1_0400), (0x370, 0x34), (0x310, 0x0200_0000), (0x380, 0x7fff_ffff),
    ] {
        write(offset, value);
    }
    for (offset, from) in MORE {
        if highest >= from {
            write(offset as u32, 0x1_0035);
        }
    }
    read_all(line, "before-", highest, |offset| if offset == 0x390 { Some(0) } else { read(offset) });
    line.item("again", other::start(&apic).0);
    read_all(line, "after-", highest, read);
    line.item("base", Hex(rdmsr(0x1b)));
}
