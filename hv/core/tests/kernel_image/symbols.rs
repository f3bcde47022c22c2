//! The symbols and their compressed names.

use super::memory::Memory;
use super::modules::HEAD;
use super::{Addresses, BTF, DATA, Era, FUNCTION, FUNCTIONS, IDT, RODATA, SYMBOLS, TEXT, in_image};

/// A name of more than 127 tokens.
pub const LONG_NAME: &str = "a_long_name_of_a_type_that_only_compilers_write_0123456789\
                             _0123456789_0123456789_0123456789_0123456789_0123456789\
                             _0123456789_0123456789_0123456789_0123456789_the_end";
/// Tokens of several letters; one has the type of a symbol in it.
const TOKENS: [&str; 4] = ["Tsys", "_write", "_orc_unwind", "vfs"];

/// Returns all symbols in the order of their addresses.
pub fn all(era: &Era, orc: &[(&str, u64)]) -> Vec<(u64, char, String)> {
    let mut symbols = Vec::new();
    if era.addresses == Addresses::Signed {
        symbols.push((0, 'A', "fixed_percpu_data".to_owned()));
        symbols.push((0x1_5000, 'A', "current_task".to_owned()));
    }
    symbols.extend([(TEXT, 'T', "_stext".to_owned()), (TEXT, 'T', "_text".to_owned())]);
    let functions = FUNCTIONS.iter().zip(0..);
    symbols.extend(functions.map(|((name, _), number)| (TEXT + number * FUNCTION, 'T', (*name).to_owned())));
    symbols.push((TEXT + FUNCTIONS.len() as u64 * FUNCTION, 'T', "_etext".to_owned()));
    symbols.push((in_image(IDT), 'b', "idt_table".to_owned()));
    symbols.push((in_image(RODATA.start), 'D', "__start_rodata".to_owned()));
    symbols.push((in_image(RODATA.end), 'R', "__end_rodata".to_owned()));
    symbols.extend(orc.iter().map(|(name, address)| (*address, 'R', (*name).to_owned())));
    symbols.push((in_image(DATA), 'D', "init_uts_ns".to_owned()));
    symbols.push((in_image(HEAD), 'D', "modules".to_owned()));
    symbols.push((in_image(DATA + 0x200), 'b', LONG_NAME.to_owned()));
    if era.btf {
        symbols.push((in_image(BTF), 'R', "__start_BTF".to_owned()));
    }
    symbols.push((in_image(BTF + 0x1000), 'B', "_end".to_owned()));
    symbols
}

/// Writes the tables, and returns the lines of VMCOREINFO that say where they are.
pub fn write(memory: &mut Memory, era: &Era, orc: &[(&str, u64)]) -> Vec<String> {
    if era.addresses == Addresses::Unknown {
        return Vec::new();
    }
    let symbols = all(era, orc);
    let mut at = SYMBOLS;
    let mut place = |bytes: usize| {
        let start = at;
        at += bytes.next_multiple_of(8) as u64;
        start
    };

    // A token for each printable character, then those of several letters, and empty ones.
    let tokens: Vec<String> = (0..=255u8)
        .map(|token| match token {
            b'!'..=b'~' => char::from(token).to_string(),
            _ => TOKENS.get(usize::from(token.wrapping_sub(128))).copied().unwrap_or_default().to_owned(),
        })
        .collect();
    let (mut table, mut index) = (Vec::new(), Vec::new());
    for token in &tokens {
        index.extend((table.len() as u16).to_le_bytes());
        table.extend(token.as_bytes());
        table.push(0);
    }
    let mut names = Vec::new();
    for (_, kind, name) in &symbols {
        let coded = compress(&format!("{kind}{name}"));
        match coded.len() {
            length if length < 128 => names.push(length as u8),
            length => names.extend([length as u8 | 0x80, (length >> 7) as u8]),
        }
        names.extend(coded);
    }

    let base = TEXT;
    let count_at = place(4);
    let names_at = place(names.len());
    let tokens_at = place(table.len());
    let index_at = place(index.len());
    let offsets_at = place(4 * symbols.len());
    let base_at = place(8);
    for ((address, ..), number) in symbols.iter().zip(0..) {
        let own = offsets_at + 4 * number;
        let offset = match era.addresses {
            Addresses::Signed if *address < TEXT => *address,
            Addresses::Signed => (base - 1).wrapping_sub(*address),
            Addresses::Unsigned => address - base,
            _ => address.wrapping_sub(in_image(own)),
        };
        memory.write(own, &(offset as u32).to_le_bytes());
    }
    memory.write(count_at, &(symbols.len() as u32).to_le_bytes());
    memory.write(names_at, &names);
    memory.write(tokens_at, &table);
    memory.write(index_at, &index);
    memory.set(base_at, base);

    let mut lines = vec![
        ("names", names_at),
        ("num_syms", count_at),
        ("token_table", tokens_at),
        ("token_index", index_at),
        ("offsets", offsets_at),
    ];
    if era.addresses != Addresses::Place {
        lines.push(("relative_base", base_at));
    }
    lines.iter().map(|(name, at)| format!("SYMBOL(kallsyms_{name})={:x}", in_image(*at))).collect()
}

/// Returns the tokens of a name with its type, the longest token first.
fn compress(name: &str) -> Vec<u8> {
    let mut coded = Vec::new();
    let mut rest = name;
    while let Some(first) = rest.bytes().next() {
        match TOKENS.iter().zip(128..).find(|(token, _)| rest.starts_with(**token)) {
            Some((token, number)) => {
                coded.push(number);
                rest = &rest[token.len()..];
            }
            None => {
                coded.push(first);
                rest = &rest[1..];
            }
        }
    }
    coded
}
