//! Two modules, and the description of the types by which they are read.

use vidar_core::kernel::orc::{Base, Kind, Rule};

use super::memory::Memory;
use super::orc::encode;
use super::{Addresses, BTF, DATA, Era, FUNCTIONS, MODULE, MODULE_AT, in_image};

/// The head of the list of modules.
pub const HEAD: u64 = DATA + 0x100;
/// The size of each function of the module.
pub const SIZE: u64 = 0x40;
/// The part of the module that is used while it is loaded.
pub const INIT: u64 = MODULE + 0x800;
/// The sizes of the module's two parts.
const PARTS: [(u64, u32); 2] = [(MODULE, 0x200), (INIT, 0x100)];
/// Where the modules themselves are, and what they point to.
const OTHER: u64 = 0x900;
const OWN: u64 = 0xa80;
const KALLSYMS: u64 = 0xc00;
const SYMBOLS: u64 = 0xc40;
const NAMES: u64 = 0xe00;
const ORC: u64 = 0xf00;

/// The symbols: name, section, value. Some are not shown.
const TABLE: [(&str, u16, u64); 9] = [
    ("", 0, 0),
    ("ext4_write", 1, MODULE + SIZE),
    ("ext4_read", 1, MODULE),
    (".L1", 1, MODULE + 0x10),
    ("$x", 1, MODULE + 0x14),
    ("", 1, MODULE + 0x18),
    ("printk", 0, MODULE + 0x1c),
    ("__crc", 1, 0x1234),
    ("init_module", 2, INIT + 0x10),
];

/// The offsets of members in `struct module`: memory is described in two structures or in an array.
const fn offsets(era: &Era) -> Offsets {
    match era.addresses {
        Addresses::Signed => Offsets { regions: 96, stride: 32, size: 8, arch: 160 },
        _ => Offsets { regions: 96, stride: 24, size: 12, arch: 168 },
    }
}

struct Offsets {
    regions: u64,
    stride: u64,
    /// The offset of the size in a region.
    size: u64,
    arch: u64,
}

const LIST: u64 = 8;
const NAME: u64 = 24;

/// Writes the modules and their types.
pub fn write(memory: &mut Memory, era: &Era) {
    let place = |offset: u64| MODULE_AT + offset;
    let address = |offset: u64| MODULE + offset;
    let offsets = offsets(era);
    // The list goes from its head over both modules back to it.
    let list = [in_image(HEAD), address(OTHER) + LIST, address(OWN) + LIST, in_image(HEAD)];
    let places = [HEAD, place(OTHER) + LIST, place(OWN) + LIST];
    places.iter().zip(&list[1..]).for_each(|(place, next)| memory.set(*place, *next));
    memory.write(place(OTHER) + NAME, b"other");
    memory.write(place(OWN) + NAME, b"ext4");
    for ((base, size), number) in PARTS.iter().zip(0..) {
        let region = place(OWN) + offsets.regions + number * offsets.stride;
        memory.set(region, *base);
        memory.write(region + offsets.size, &size.to_le_bytes());
    }

    let none = Rule { kind: Kind::Undefined, ..FUNCTIONS[0].1 };
    let call = Rule { kind: Kind::Call, sp: Base::Sp, sp_offset: 8, ..none };
    let rules = [(MODULE, call), (MODULE + SIZE, none), (INIT, call), (INIT + SIZE, none)];
    for ((code, rule), number) in rules.iter().zip(0..) {
        let distance = code.wrapping_sub(address(ORC) + number * 4) as u32;
        memory.write(place(ORC) + number * 4, &distance.to_le_bytes());
        memory.write(place(ORC) + 32 + number * 6, &encode(era, rule));
    }
    let arch = place(OWN) + offsets.arch;
    memory.write(arch, &(rules.len() as u32).to_le_bytes());
    memory.set(arch + 8, address(ORC));
    memory.set(arch + 16, address(ORC) + 32);

    memory.set(arch + 24, address(KALLSYMS));
    memory.set(place(KALLSYMS), address(SYMBOLS));
    memory.write(place(KALLSYMS) + 8, &(TABLE.len() as u32).to_le_bytes());
    memory.set(place(KALLSYMS) + 16, address(NAMES));
    let mut names = vec![0];
    for ((name, section, value), number) in TABLE.iter().zip(0..) {
        let symbol = place(SYMBOLS) + number * 24;
        memory.write(symbol, &(names.len() as u32).to_le_bytes());
        memory.write(symbol + 6, &section.to_le_bytes());
        memory.set(symbol + 8, *value);
        names.extend([name.as_bytes(), &[0]].concat());
    }
    memory.write(place(NAMES), &names);
    if era.btf {
        types(memory, era, &offsets);
    }
}

/// Writes the description of types.
fn types(memory: &mut Memory, era: &Era, offsets: &Offsets) {
    let mut btf = Btf { names: vec![0], types: Vec::new(), flag: era.renumbered };
    // One of each kind, so that each has to be passed over: kind, number of parts, bytes after the first ones.
    let kinds = [(1, 0, 4), (2, 0, 0), (3, 0, 12), (5, 2, 24), (6, 3, 24), (7, 0, 0), (8, 0, 0), (9, 0, 0)];
    let more =
        [(10, 0, 0), (11, 0, 0), (12, 0, 0), (13, 2, 16), (14, 0, 4), (15, 1, 12), (16, 0, 0), (17, 0, 4)];
    for (kind, parts, bytes) in kinds.into_iter().chain(more).chain([(18, 0, 0), (19, 1, 12)]) {
        btf.begin("module", kind, parts, 8);
        btf.types.extend(vec![0xff; bytes]);
    }
    // A declaration without members has the name as well.
    btf.structure("module", 0, &[]);
    let layouts = era.addresses == Addresses::Signed;
    let regions = offsets.regions;
    let mut module = vec![("state", 0), ("list", LIST), ("name", NAME)];
    match layouts {
        true => module.extend([("core_layout", regions), ("init_layout", regions + offsets.stride)]),
        false => module.push(("mem", regions)),
    }
    module.extend([("arch", offsets.arch), ("kallsyms", offsets.arch + 24)]);
    btf.structure("module", 256, &module);
    let region = if layouts { "module_layout" } else { "module_memory" };
    btf.structure(region, offsets.stride, &[("base", 0), ("size", offsets.size)]);
    let orc = [("num_orcs", 0), ("orc_unwind_ip", 8), ("orc_unwind", 16)];
    btf.structure("mod_arch_specific", 24, &orc);
    btf.structure("mod_kallsyms", 32, &[("symtab", 0), ("num_symtab", 8), ("strtab", 16)]);

    let (types, names) = (btf.types.len() as u32, btf.names.len() as u32);
    let header = [24, 0, types, types, names].map(u32::to_le_bytes).concat();
    memory.write(BTF, &[&[0x9f, 0xeb, 1, 0][..], &header, &btf.types, &btf.names].concat());
}

struct Btf {
    names: Vec<u8>,
    types: Vec<u8>,
    /// Offsets are written as they are for structures with bit fields.
    flag: bool,
}

impl Btf {
    fn name(&mut self, name: &str) -> u32 {
        let at = self.names.len() as u32;
        self.names.extend([name.as_bytes(), &[0]].concat());
        at
    }

    fn begin(&mut self, name: &str, kind: u32, parts: u32, size: u32) {
        let flag = u32::from(self.flag && kind == 4);
        let name = self.name(name);
        let words = [name, flag << 31 | kind << 24 | parts, size];
        self.types.extend(words.map(u32::to_le_bytes).concat());
    }

    fn structure(&mut self, name: &str, size: u64, members: &[(&str, u64)]) {
        self.begin(name, 4, members.len() as u32, size as u32);
        for (member, offset) in members {
            let name = self.name(member);
            let width = u32::from(self.flag) << 27;
            let words = [name, 1, (*offset as u32 * 8) | width];
            self.types.extend(words.map(u32::to_le_bytes).concat());
        }
    }
}
