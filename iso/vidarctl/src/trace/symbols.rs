//! The functions of the running kernel, by the list that Linux shows root in /proc/kallsyms.

use std::fmt;
use std::fs;

/// The lowest address of the kernel's half.
const KERNEL: u64 = 1 << 63;
/// The end of the memory in which a CPU starts, before it has left real mode.
const STARTS: u64 = 1 << 20;

/// Functions by their addresses, which increase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Reads the functions of the running kernel. If Linux hides their addresses there are none, and this says how to
    /// see them.
    pub fn of_the_kernel() -> Self {
        let symbols = Self::parse(&fs::read_to_string("/proc/kallsyms").unwrap_or_default());
        if symbols.0.is_empty() {
            eprintln!(
                "vidarctl: Linux shows only root where functions are: run this command as root to see their names"
            );
        }
        symbols
    }

    /// Returns the functions of a list as /proc/kallsyms has it.
    pub fn parse(list: &str) -> Self {
        let mut symbols: Vec<_> = list.lines().filter_map(function).collect();
        // Of several names for an address the first is kept, as Linux does.
        symbols.sort_by_key(|(address, _)| *address);
        symbols.dedup_by_key(|(address, _)| *address);
        Self(symbols)
    }

    /// Returns the place in the guest's code that this address is in.
    pub fn place(&self, rip: u64) -> Place<'_> {
        match rip {
            ..STARTS => Place::StartUp,
            STARTS..KERNEL => Place::Program(rip),
            KERNEL.. => {
                let after = self.0.partition_point(|(address, _)| *address <= rip);
                match after.checked_sub(1).and_then(|at| self.0.get(at)) {
                    Some((address, name)) => Place::Function(name, rip - address),
                    None => Place::Kernel(rip),
                }
            }
        }
    }
}

/// Returns the address and the name of a function, or `None` for other symbols and for hidden addresses.
fn function(line: &str) -> Option<(u64, String)> {
    let mut words = line.split_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let is_code = matches!(words.next()?, "t" | "T" | "w" | "W");
    let name = words.next()?;
    // The name of a module is in brackets after the function's.
    let name = words.next().map_or_else(|| name.to_owned(), |module| format!("{name} {module}"));
    (is_code && address >= KERNEL).then_some((address, name))
}

/// A place in the guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// In a function of the kernel, with the distance from the function's start in bytes.
    Function(&'a str, u64),
    /// In the kernel, whose functions are not known.
    Kernel(u64),
    /// In a program.
    Program(u64),
    /// Below 1 MiB, where a CPU starts.
    StartUp,
}

impl Place<'_> {
    /// Returns the name of the function or, without one, that of the part of memory.
    pub fn function(&self) -> String {
        match self {
            Self::Function(name, _) => (*name).to_owned(),
            Self::Kernel(rip) => format!("{rip:#x}"),
            Self::Program(_) => "user program".to_owned(),
            Self::StartUp => "a CPU that starts".to_owned(),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(name, offset) => match name.split_once(' ') {
                Some((name, module)) => write!(f, "{name}+{offset:#x} {module}"),
                None => write!(f, "{name}+{offset:#x}"),
            },
            Self::Program(rip) => write!(f, "user program {rip:#x}"),
            Self::Kernel(_) | Self::StartUp => f.write_str(&self.function()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
        0000000000000000 A fixed_percpu_data\n\
        ffffffff81000000 T _stext\n\
        ffffffff81000000 T _text\n\
        ffffffff81000200 t native_cpuid\n\
        ffffffff81000100 D data\n\
        ffffffffc0000000 t probe\t[some_driver]\n";

    #[test]
    fn an_address_is_in_the_function_that_begins_before_it() {
        let symbols = Symbols::parse(LIST);
        for (rip, place) in [
            (0xffff_ffff_8100_0000, "_stext+0x0"),
            (0xffff_ffff_8100_01ff, "_stext+0x1ff"),
            (0xffff_ffff_8100_0204, "native_cpuid+0x4"),
            (0xffff_ffff_c000_0010, "probe+0x10 [some_driver]"),
            (0xffff_8000_0000_0000, "0xffff800000000000"),
            (0x7f00_0000_1234, "user program 0x7f0000001234"),
            (0x9_a123, "a CPU that starts"),
        ] {
            assert_eq!(symbols.place(rip).to_string(), place);
        }
        assert_eq!(symbols.place(0xffff_ffff_8100_0204).function(), "native_cpuid");
        assert_eq!(symbols.place(0xffff_ffff_c000_0010).function(), "probe [some_driver]");
        assert_eq!(symbols.place(0x7f00_0000_1234).function(), "user program");
    }

    #[test]
    fn hidden_addresses_name_nothing() {
        let symbols = Symbols::parse("0000000000000000 T _stext\n0000000000000000 t other\nnonsense\n");
        assert_eq!(symbols, Symbols::default());
        assert_eq!(symbols.place(0xffff_ffff_8100_0000), Place::Kernel(0xffff_ffff_8100_0000));
    }
}
