//! The kernel's modules: their symbols, and their tables of call frames.
//!
//! Modules are in a list, and each has its symbols as ELF has them. Nothing says how `struct module` is laid out except
//! for BTF, so a kernel without it has no modules here. Linux 6.1, include/linux/module.h and kernel/module/kallsyms.c.

use super::btf::{self, Member};
use super::name::Name;
use super::orc::{Rule, Table};
use super::view::View;

/// The symbols of the list's head and of the description of types.
pub const SYMBOLS: [&str; 2] = ["modules", "__start_BTF"];

/// The most modules that are looked at.
const MAX_MODULES: usize = 1024;
/// The most pieces of memory of a module. Linux 6.12 has 7.
const MAX_REGIONS: u32 = 16;
/// The most symbols of a module.
const MAX_SYMBOLS: u32 = 1 << 16;
/// The most letters of a module's name. Linux 6.1, include/linux/moduleparam.h, `MAX_PARAM_PREFIX_LEN`.
const MAX_MODULE_NAME: usize = 56;
/// The size of a symbol in ELF, and where its section and its value are.
const SYMBOL: u64 = 24;
const SECTION: u64 = 6;
const VALUE: u64 = 8;

/// The members that are read. A module's memory is two structures before Linux 6.4, and an array since.
const MEMBERS: [(&str, &str); 17] = [
    ("module", "list"),
    ("module", "name"),
    ("module", "arch"),
    ("module", "kallsyms"),
    ("mod_arch_specific", "num_orcs"),
    ("mod_arch_specific", "orc_unwind_ip"),
    ("mod_arch_specific", "orc_unwind"),
    ("mod_kallsyms", "symtab"),
    ("mod_kallsyms", "num_symtab"),
    ("mod_kallsyms", "strtab"),
    ("module", "core_layout"),
    ("module", "init_layout"),
    ("module_layout", "base"),
    ("module_layout", "size"),
    ("module", "mem"),
    ("module_memory", "base"),
    ("module_memory", "size"),
];

/// Where modules are, and the offsets of what is read of them.
#[derive(Debug, Clone, Copy)]
pub struct Modules {
    /// The address of the list's head.
    head: u64,
    list: u32,
    name: u32,
    regions: Regions,
    /// The number of entries in the table of call frames, and the addresses of its two parts.
    frames: [u32; 3],
    kallsyms: u32,
    /// In what `kallsyms` points to: the address of the symbols, their number, and the address of the names.
    symbols: [u32; 3],
}

/// Where a module says which memory it has.
#[derive(Debug, Clone, Copy)]
struct Regions {
    first: u32,
    stride: u32,
    count: u32,
    base: u32,
    size: u32,
}

impl Modules {
    /// Returns the modules of the kernel in which [`SYMBOLS`] have these addresses. `None` if its types are not
    /// described.
    pub fn new(view: View<'_>, [head, types]: [u64; 2]) -> Option<Self> {
        let found = btf::members(view, types, &MEMBERS)?;
        let [list, name, arch, kallsyms, count, addresses, entries, symbols, number, names, ..] = found;
        let [.., core, init, core_base, core_size, array, base, size] = found;
        let arch = arch?.offset;
        let within = |member: Option<Member>| arch.checked_add(member?.offset);
        let regions = match (core, init, array) {
            (_, _, Some(array)) => {
                let stride = base?.size;
                let count = array.next.checked_sub(array.offset)?.checked_div(stride)?;
                let count = count.min(MAX_REGIONS);
                Regions { first: array.offset, stride, count, base: base?.offset, size: size?.offset }
            }
            (Some(core), Some(init), None) => {
                let stride = init.offset.checked_sub(core.offset)?;
                let (base, size) = (core_base?.offset, core_size?.offset);
                Regions { first: core.offset, stride, count: 2, base, size }
            }
            _ => return None,
        };
        Some(Self {
            head,
            list: list?.offset,
            name: name?.offset,
            regions,
            frames: [within(count)?, within(addresses)?, within(entries)?],
            kallsyms: kallsyms?.offset,
            symbols: [symbols?.offset, number?.offset, names?.offset],
        })
    }

    /// Returns the address of the module with `address` in its memory, and the start of that piece of memory.
    fn module(&self, view: View<'_>, address: u64) -> Option<(u64, u64)> {
        let mut entry = view.u64(self.head)?;
        for _ in 0..MAX_MODULES {
            if entry == self.head {
                return None;
            }
            let module = entry.checked_sub(self.list.into())?;
            if let Some(start) = self.region(view, module, address)? {
                return Some((module, start));
            }
            entry = view.u64(entry)?;
        }
        None
    }

    /// Returns the start of the piece of the module's memory that has `address`, if there is one. The outer result is
    /// `None` if the module cannot be read.
    fn region(&self, view: View<'_>, module: u64, address: u64) -> Option<Option<u64>> {
        let Regions { first, stride, count, base, size } = self.regions;
        for region in 0..count {
            let at = module.checked_add(u64::from(first) + u64::from(stride) * u64::from(region))?;
            let start = view.u64(at.checked_add(base.into())?)?;
            let bytes = view.u32(at.checked_add(size.into())?)?;
            if address.wrapping_sub(start) < bytes.into() {
                return Some(Some(start));
            }
        }
        Some(None)
    }

    /// Returns the rule for the instruction at `address` of a module. The layout of the rules is that of the kernel's
    /// own.
    pub fn rule(&self, view: View<'_>, kernel: &Table, address: u64) -> Option<Rule> {
        let (module, _) = self.module(view, address)?;
        let at = |offset: u32| module.checked_add(offset.into());
        let [count, addresses, entries] = self.frames;
        let (count, addresses) = (view.u32(at(count)?)?, view.u64(at(addresses)?)?);
        kernel.elsewhere(addresses, view.u64(at(entries)?)?, count)?.rule(view, address)
    }

    /// Returns the symbol that holds `address` in a module, as `module:symbol`, and the distance from its start. Like
    /// the kernel, it takes the last symbol at or below the address.
    pub fn symbol(&self, view: View<'_>, address: u64) -> Option<(Name, u64)> {
        let (module, start) = self.module(view, address)?;
        let kallsyms = view.u64(module.checked_add(self.kallsyms.into())?)?;
        let at = |offset: u32| kallsyms.checked_add(offset.into());
        let [symbols, count, names] = self.symbols;
        let (symbols, names) = (view.u64(at(symbols)?)?, view.u64(at(names)?)?);
        let mut best: Option<(u64, u64)> = None;
        for number in 0..view.u32(at(count)?)?.min(MAX_SYMBOLS) {
            let symbol = symbols.checked_add(u64::from(number) * SYMBOL)?;
            let value = view.u64(symbol.checked_add(VALUE)?)?;
            let nearer = (start..=address).contains(&value) && best.is_none_or(|(_, best)| value > best);
            // A symbol without a section is another module's.
            if !nearer || view.u16(symbol.checked_add(SECTION)?)? == 0 {
                continue;
            }
            let name = names.checked_add(view.u32(symbol)?.into())?;
            // Assemblers make symbols without names, and with names that begin with a point or a dollar sign.
            if ![0, b'.', b'$'].contains(&view.u8(name)?) {
                best = Some((name, value));
            }
        }
        let (symbol, value) = best?;
        let mut name = Name::new();
        self.append(view, &mut name, module.checked_add(self.name.into())?, MAX_MODULE_NAME);
        name.push(b':');
        self.append(view, &mut name, symbol, usize::MAX);
        Some((name, address - value))
    }

    /// Appends the letters at `at` to a name, up to a zero.
    fn append(&self, view: View<'_>, name: &mut Name, at: u64, most: usize) {
        let mut letters = view.stream(at);
        for _ in 0..most {
            match letters.byte() {
                Some(letter) if letter != 0 && !name.is_full() => name.push(letter),
                _ => return,
            }
        }
    }
}
