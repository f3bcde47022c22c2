//! Writes symbols to an ELF file that has nothing else: gdb asks for the file's sections and takes their contents from
//! the guest.

use super::symbol::Symbol;

/// The start of the image, below which symbols are no places in memory.
const IMAGE: u64 = super::image::BASE;
/// The size of the ELF header, and of the header of a section.
const HEADER: usize = 64;
/// The names of the sections, each with a zero after it.
const NAMES: &[u8] = b"\0.text\0.data\0.symtab\0.strtab\0.shstrtab\0";

/// A section.
#[derive(Default)]
struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size: u64,
    link: u32,
    info: u32,
    entry: u64,
}

/// Returns the ELF file with these symbols.
pub fn write(symbols: &[Symbol]) -> Vec<u8> {
    let (nobits, symtab_kind, strtab_kind) = (8, 2, 3);
    let is_code = |symbol: &&Symbol| matches!(symbol.kind, b't' | b'T' | b'w' | b'W');
    let places: Vec<_> = symbols.iter().filter(|symbol| symbol.address >= IMAGE).collect();
    let range = |code: bool| {
        let addresses =
            || places.iter().filter(|symbol| is_code(symbol) == code).map(|symbol| symbol.address);
        let (start, end) = (addresses().min().unwrap_or(IMAGE), addresses().max().unwrap_or(IMAGE) + 1);
        (start, end - start)
    };
    let (text, data) = (range(true), range(false));
    let mut names = vec![0];
    let mut table = vec![0; 24];
    for symbol in &places {
        let (section, kind) = if is_code(symbol) { (1u16, 2) } else { (2, 1) };
        let global = symbol.kind.is_ascii_uppercase();
        table.extend((names.len() as u32).to_le_bytes());
        table.push(u8::from(global) << 4 | kind);
        table.push(0);
        table.extend(section.to_le_bytes());
        table.extend(symbol.address.to_le_bytes());
        table.extend([0; 8]);
        names.extend(symbol.name.as_bytes());
        names.push(0);
    }
    let mut file = vec![0; HEADER];
    let mut place = |bytes: &[u8]| {
        let offset = file.len() as u64;
        file.extend(bytes);
        file.resize(file.len().next_multiple_of(8), 0);
        (offset, bytes.len() as u64)
    };
    let (symtab, strtab, shstrtab) = (place(&table), place(&names), place(NAMES));
    let name = |wanted: &[u8]| {
        NAMES.windows(wanted.len()).position(|name| name == wanted).unwrap_or_default() as u32
    };
    let sections = [
        Section::default(),
        Section {
            name: name(b".text\0"),
            kind: nobits,
            flags: 6,
            address: text.0,
            size: text.1,
            ..Section::default()
        },
        Section {
            name: name(b".data\0"),
            kind: nobits,
            flags: 3,
            address: data.0,
            size: data.1,
            ..Section::default()
        },
        Section {
            name: name(b".symtab\0"),
            kind: symtab_kind,
            offset: symtab.0,
            size: symtab.1,
            link: 4,
            info: 1,
            entry: 24,
            ..Section::default()
        },
        Section {
            name: name(b".strtab\0"),
            kind: strtab_kind,
            offset: strtab.0,
            size: strtab.1,
            ..Section::default()
        },
        Section {
            name: name(b".shstrtab\0"),
            kind: strtab_kind,
            offset: shstrtab.0,
            size: shstrtab.1,
            ..Section::default()
        },
    ];
    let headers = file.len() as u64;
    for section in &sections {
        file.extend(section.name.to_le_bytes());
        file.extend(section.kind.to_le_bytes());
        for field in [section.flags, section.address, section.offset, section.size] {
            file.extend(field.to_le_bytes());
        }
        file.extend(section.link.to_le_bytes());
        file.extend(section.info.to_le_bytes());
        file.extend(16u64.to_le_bytes());
        file.extend(section.entry.to_le_bytes());
    }
    let header = [
        // 64 bits, little-endian, version 1; an executable for x86-64.
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".as_slice(),
        &[0; 16],
        &headers.to_le_bytes(),
        &[0; 4],
        &[64, 0, 0, 0, 0, 0, 64, 0, sections.len() as u8, 0, sections.len() as u8 - 1, 0],
    ];
    file[..HEADER].copy_from_slice(&header.concat());
    file
}

#[cfg(test)]
mod tests {
    use object::{Object, ObjectSymbol};

    use super::*;

    #[test]
    fn what_is_written_is_an_elf_file_with_these_symbols() {
        let symbol = |address, kind, name: &str| Symbol { address, kind, name: name.to_owned() };
        let symbols = [
            symbol(0, b'A', "fixed_percpu_data"),
            symbol(IMAGE + 0x100_0000, b'T', "_stext"),
            symbol(IMAGE + 0x100_0040, b't', "do_something"),
            symbol(IMAGE + 0x200_0000, b'D', "jiffies"),
        ];
        let file = write(&symbols);
        let file = object::File::parse(file.as_slice()).expect("an ELF file");
        let found: Vec<_> =
            file.symbols().map(|symbol| (symbol.address(), symbol.name().unwrap().to_owned())).collect();
        let wanted: Vec<_> =
            symbols[1..].iter().map(|symbol| (symbol.address, symbol.name.clone())).collect();
        assert_eq!(found, wanted, "a symbol that is no place in memory is left out");
    }
}
