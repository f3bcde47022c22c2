//! The memory of a guest with a small kernel in it, made by hand: the note, symbols, call frames and the log, in the
//! layouts of several releases of Linux.

pub mod log;
pub mod memory;
pub mod modules;
mod orc;
pub mod symbols;

use std::ops::Range;

use vidar_core::kernel::orc::{Base, Kind, Rule};

use log::Log;
use memory::Memory;

/// How a release of Linux lays out its tables.
#[derive(Debug, Clone, Copy)]
pub struct Era {
    /// The release, as `uname -r` has it.
    pub release: &'static str,
    /// How symbols have their addresses.
    pub addresses: Addresses,
    /// The bits of an ORC entry after the registers.
    pub flags: Flags,
    /// The numbers of ORC's registers are those of Linux 7.2.
    pub renumbered: bool,
    /// The number of levels of page tables.
    pub levels: u32,
    /// The kernel describes its types.
    pub btf: bool,
}

/// How symbols have their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// VMCOREINFO says nothing about symbols.
    Unknown,
    /// Negative numbers are distances from the base.
    Signed,
    /// All numbers are distances from the base.
    Unsigned,
    /// Numbers are distances from their own place.
    Place,
}

/// The bits of an ORC entry after the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flags {
    /// Type, end.
    End,
    /// Type, signal, end.
    SignalEnd,
    /// Three bits of type, signal.
    Types,
}

const fn era(
    release: &'static str,
    addresses: Addresses,
    flags: Flags,
    renumbered: bool,
    levels: u32,
    btf: bool,
) -> Era {
    Era { release, addresses, flags, renumbered, levels, btf }
}

/// All layouts. The first has no symbols.
pub const ERAS: [Era; 6] = [
    era("5.10.0-30-amd64", Addresses::Unknown, Flags::End, false, 4, false),
    era("6.1.0-48-amd64", Addresses::Signed, Flags::End, false, 4, true),
    era("6.3.1", Addresses::Signed, Flags::SignalEnd, false, 5, true),
    era("6.12.117+deb13-amd64", Addresses::Signed, Flags::Types, false, 4, true),
    era("6.18.3", Addresses::Unsigned, Flags::Types, false, 5, false),
    era("7.2.13+deb14-amd64", Addresses::Place, Flags::Types, true, 4, true),
];
/// The layouts that have symbols.
pub const NAMED: &[Era] = ERAS.split_at(1).1;

/// The address of the image, and of its first function.
pub const TEXT: u64 = 0xffff_ffff_9f00_0000;
/// How far it was moved from the address at which it was linked.
pub const OFFSET: u64 = 0x1e00_0000;
/// The physical address of the image.
pub const IMAGE_AT: u64 = 0x2000;
/// What is added to the offset of an address in the image's mapping, to get the physical address.
const PHYS_BASE: i64 = IMAGE_AT as i64 - 0x1f00_0000;
/// The size of each function.
pub const FUNCTION: u64 = 0x40;

/// Physical addresses.
const NOTE: u64 = 0x1000;
/// The kernel's page tables, and after them those of user mode. A level has a page at each of the following addresses.
pub const TABLES: u64 = 0x4000;
const LEVELS: [u64; 4] = [0x6000, 0x7000, 0x8000, 0x9000];
const IMAGE_LEVELS: [u64; 3] = [0xa000, 0xb000, 0xc000];
pub const STACK_AT: u64 = 0xd000;
pub const SYMBOLS: u64 = 0xf000;
const ORC: u64 = 0x1_1000;
const DATA: u64 = 0x1_2000;
pub const LOG: u64 = 0x1_3000;
/// The size of memory.
const BYTES: u64 = 0x1_a000;

const MODULE_LEVELS: [u64; 2] = [0x1_5000, 0x1_6000];
const MODULE_AT: u64 = 0x1_7000;
const BTF: u64 = 0x1_8000;

/// The interrupt descriptor table, and the address at which the kernel uses it.
pub const IDT: u64 = 0x3000;
pub const IDT_USED: u64 = STACK + 0x8000;
/// The read-only data, whose end is inside of a page.
pub const RODATA: Range<u64> = SYMBOLS..SYMBOLS + 0x1800;

/// The address of a module.
pub const MODULE: u64 = 0xffff_ffff_c020_0000;
/// The address of the stack's page. The page before it is not mapped, and the one after it is another stack.
pub const STACK: u64 = 0xffff_c900_0000_1000;

/// Returns the virtual address of a physical address in the image.
pub const fn in_image(physical: u64) -> u64 {
    TEXT + physical - IMAGE_AT
}

const fn call(sp: Base, sp_offset: i16) -> Rule {
    Rule { kind: Kind::Call, sp, sp_offset, bp: Base::Undefined, bp_offset: 0, signal: false }
}

const fn of(kind: Kind) -> Rule {
    Rule { kind, ..call(Base::Undefined, 0) }
}

/// The functions, and how to get from each of them to its caller.
pub const FUNCTIONS: [(&str, Rule); 24] = [
    ("startup_64", of(Kind::Undefined)),
    ("leaf", call(Base::Sp, 8)),
    ("framed", Rule { bp: Base::PreviousSp, bp_offset: -16, ..call(Base::Bp, 16) }),
    ("spilling", Rule { bp: Base::PreviousSp, bp_offset: -16, ..call(Base::Sp, 0x30) }),
    ("bp_by_bp", Rule { bp: Base::Bp, bp_offset: 8, ..call(Base::Sp, 8) }),
    ("asm_exc_page_fault", Rule { kind: Kind::Registers, signal: true, ..call(Base::Sp, 0) }),
    ("asm_sysvec_timer", Rule { kind: Kind::Interrupt, signal: true, ..call(Base::Sp, 8) }),
    ("call_on_irqstack", call(Base::SpIndirect, 8)),
    ("call_by_frame", call(Base::BpIndirect, -8)),
    ("realigned", call(Base::Saved(7), 0)),
    ("uses_r13", call(Base::Saved(2), 0)),
    ("uses_dx", call(Base::Saved(12), 0)),
    ("uses_di", call(Base::Saved(14), 0)),
    ("uses_ax", call(Base::Saved(10), 0)),
    ("recurse", call(Base::Sp, 8)),
    ("no_rule", of(Kind::Undefined)),
    ("ret_from_fork", of(Kind::End)),
    ("backwards", call(Base::Sp, -16)),
    ("work", call(Base::Sp, 0x10)),
    ("sys_write", call(Base::Sp, 8)),
    ("sys_read", call(Base::Sp, 8)),
    ("vfs_write", call(Base::Sp, 8)),
    ("vfs_write.cold", call(Base::Sp, 8)),
    ("panic", call(Base::Sp, 8)),
];

/// Returns the address of the function with this name.
pub fn function(name: &str) -> u64 {
    let number = FUNCTIONS.iter().position(|(function, _)| *function == name).expect(name);
    TEXT + number as u64 * FUNCTION
}

/// Returns the memory of a guest that runs a kernel of this era.
pub fn build(era: &Era) -> Memory {
    let mut memory = Memory::new(BYTES as usize);
    page_tables(&mut memory, era);
    modules::write(&mut memory, era);
    let orc = orc::write(&mut memory, era, ORC);
    let mut lines = symbols::write(&mut memory, era, &orc);
    lines.extend(Log::lines_of_note(era));
    let mut log = Log::new(&mut memory, era, 3, 9);
    log.push(&mut memory, b"Linux version", 0);
    log.push(&mut memory, b"two\nlines", 1_234_567_890);
    // `struct new_utsname` follows the first eight bytes of `struct uts_namespace`.
    let names = DATA;
    memory.write(names + 8 + 2 * 65, era.release.as_bytes());
    lines.extend([
        format!("OSRELEASE={}", era.release),
        format!("SYMBOL(init_uts_ns)={:x}", in_image(names)),
        "OFFSET(uts_namespace.name)=8".to_owned(),
        format!("SYMBOL(swapper_pg_dir)={:x}", in_image(TABLES)),
        format!("SYMBOL(_stext)={TEXT:x}"),
        format!("NUMBER(phys_base)={PHYS_BASE}"),
        format!("NUMBER(pgtable_l5_enabled)={}", u8::from(era.levels == 5)),
        format!("KERNELOFFSET={OFFSET:x}"),
    ]);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let header = [11, text.len() as u32, 0].map(u32::to_le_bytes).concat();
    memory.write(NOTE, &[&header, &b"VMCOREINFO\0\0"[..], text.as_bytes()].concat());
    memory
}

/// Writes page tables that map two stacks, and the first page of the image as a CPU sees it.
fn page_tables(memory: &mut Memory, era: &Era) {
    let entry = |memory: &mut Memory, table: u64, level: u32, address: u64, to: u64| {
        memory.set(table + (address >> (12 + 9 * level) & 511) * 8, to | 3);
    };
    let [p4d, pud, pmd, pte] = LEVELS;
    let mut top = TABLES;
    if era.levels == 5 {
        entry(memory, top, 4, STACK, p4d);
        top = p4d;
    }
    let [image_pud, image_pmd, image_pte] = IMAGE_LEVELS;
    for (level, table, next) in [(3, top, pud), (2, pud, pmd), (1, pmd, pte)] {
        entry(memory, table, level, STACK, next);
    }
    for (level, table, next) in [(3, top, image_pud), (2, image_pud, image_pmd), (1, image_pmd, image_pte)] {
        entry(memory, table, level, TEXT, next);
    }
    entry(memory, pte, 0, STACK, STACK_AT);
    entry(memory, pte, 0, STACK + 0x1000, STACK_AT + 0x1000);
    entry(memory, pte, 0, IDT_USED, IDT);
    entry(memory, image_pte, 0, TEXT, IMAGE_AT);
    let [module_pmd, module_pte] = MODULE_LEVELS;
    entry(memory, image_pud, 2, MODULE, module_pmd);
    entry(memory, module_pmd, 1, MODULE, module_pte);
    entry(memory, module_pte, 0, MODULE, MODULE_AT);
}
