//! The kernel's symbols, which it keeps in its own memory for its stack traces.
//!
//! Names are compressed: each is a length and as many bytes, and each byte stands for a token of one or more letters.
//! The first letter is the symbol's type. They are in the order of addresses. Linux 6.1, scripts/kallsyms.c,
//! `write_src`, and kernel/kallsyms.c, `kallsyms_expand_symbol`.
//!
//! The order of the tables in the image and the way in which addresses are written have changed several times, so each
//! table's address comes from VMCOREINFO, where Linux 6.0 and later have it. The kernel's own index of names
//! (`kallsyms_markers`) is not there. It is not needed: one pass over all names checks them and makes a smaller index.

use super::name::{MAX_NAME, Name};
use super::view::{Stream, View};
use super::vmcoreinfo::hexadecimal;

/// The most symbols. Debian's kernels have 90,000 to 190,000.
const MAX_SYMBOLS: u32 = 1 << 20;
/// The most tokens of a name: each has one letter at least. Linux 6.1, include/linux/kallsyms.h, `KSYM_NAME_LEN`.
const MAX_TOKENS: u32 = 512;
/// The number of places in the index of names.
const MARKERS: usize = 64;
/// The most symbols of the same address that are passed to find the first one of them.
const MAX_ALIASES: u32 = 256;
/// The number of different bytes, and so of tokens.
const TOKENS: usize = 256;

/// The addresses of the tables, as VMCOREINFO has them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Addresses {
    names: Option<u64>,
    count: Option<u64>,
    tokens: Option<u64>,
    token_index: Option<u64>,
    offsets: Option<u64>,
    relative_base: Option<u64>,
}

impl Addresses {
    /// Takes a line of VMCOREINFO, if it is about symbols.
    pub fn take(&mut self, key: &[u8], value: &[u8]) {
        let slot = match key {
            b"SYMBOL(kallsyms_names)" => &mut self.names,
            b"SYMBOL(kallsyms_num_syms)" => &mut self.count,
            b"SYMBOL(kallsyms_token_table)" => &mut self.tokens,
            b"SYMBOL(kallsyms_token_index)" => &mut self.token_index,
            b"SYMBOL(kallsyms_offsets)" => &mut self.offsets,
            b"SYMBOL(kallsyms_relative_base)" => &mut self.relative_base,
            _ => return,
        };
        *slot = hexadecimal(value);
    }
}

/// How the table of addresses writes an address in 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// A negative number is the distance down from one below the base, and any other an absolute per-CPU address.
    /// Before Linux 6.15, on machines of several CPUs.
    Signed {
        /// The base.
        base: u64,
    },
    /// The distance from the base.
    Unsigned {
        /// The base.
        base: u64,
    },
    /// The distance from the number's own place. Linux 7.2 has this, and no base in VMCOREINFO.
    Place,
}

/// The symbols of a kernel: the addresses of its tables, and the index of the names.
#[derive(Debug, Clone, Copy)]
pub struct Symbols {
    names: u64,
    count: u32,
    tokens: u64,
    token_index: u64,
    offsets: u64,
    encoding: Encoding,
    /// The lowest address of the image. A symbol below it is not a place in memory.
    lowest: u64,
    /// The length of a name of 128 tokens or more takes two bytes, since Linux 6.1.
    long_names: bool,
    /// The offset of each name whose number is a multiple of `stride`.
    markers: [u32; MARKERS],
    stride: u32,
}

/// A symbol.
#[derive(Debug, Clone, Copy)]
pub struct Symbol<'a> {
    /// The address.
    pub address: u64,
    /// The letter of the type, as `nm` has it: `T` for code, `D` for data, and so on.
    pub kind: u8,
    /// The name.
    pub name: &'a Name,
}

impl Symbols {
    /// Returns the symbols of the kernel with these tables. `lowest` is the lowest address of its image. `None` if a
    /// table is missing or damaged.
    pub fn new(view: View<'_>, addresses: &Addresses, lowest: u64, long_names: bool) -> Option<Self> {
        let count = view.u32(addresses.count?)?;
        if count == 0 || count > MAX_SYMBOLS {
            return None;
        }
        let offsets = addresses.offsets?;
        // The last symbol is the highest address of the image, which is less than 2 GiB above the base.
        let last = view.u32(offsets.checked_add(u64::from(count - 1) * 4)?)?.cast_signed();
        let encoding = match addresses.relative_base {
            None => Encoding::Place,
            Some(base) if last < 0 => Encoding::Signed { base: view.u64(base)? },
            Some(base) => Encoding::Unsigned { base: view.u64(base)? },
        };
        let mut symbols = Self {
            names: addresses.names?,
            count,
            tokens: addresses.tokens?,
            token_index: addresses.token_index?,
            offsets,
            encoding,
            lowest,
            long_names,
            markers: [0; MARKERS],
            stride: count.div_ceil(MARKERS as u32),
        };
        symbols.index(view)?;
        Some(symbols)
    }

    /// Makes the index of names. `None` if a length cannot be one, or a name cannot be read.
    fn index(&mut self, view: View<'_>) -> Option<()> {
        let mut names = view.stream(self.names);
        for number in 0..self.count {
            if number.is_multiple_of(self.stride) {
                let offset = u32::try_from(names.at - self.names).ok()?;
                *self.markers.get_mut((number / self.stride) as usize)? = offset;
            }
            let tokens = self.length(&mut names)?;
            names.skip(tokens.into())?;
        }
        Some(())
    }

    /// Returns the number of tokens of the name that begins here.
    fn length(&self, names: &mut Stream<'_>) -> Option<u32> {
        let mut length = u32::from(names.byte()?);
        if self.long_names && length & 0x80 != 0 {
            length = length & 0x7f | u32::from(names.byte()?) << 7;
        }
        (1..=MAX_TOKENS).contains(&length).then_some(length)
    }

    /// Returns the names from that of the symbol `number` on.
    fn names_from<'a>(&self, view: View<'a>, number: u32) -> Option<Stream<'a>> {
        let marker = self.markers.get((number / self.stride) as usize)?;
        let mut names = view.stream(self.names.checked_add(u64::from(*marker))?);
        for _ in 0..number % self.stride {
            let tokens = self.length(&mut names)?;
            names.skip(tokens.into())?;
        }
        Some(names)
    }

    /// Returns the letters of a token.
    fn token<'a>(&self, view: View<'a>, token: u8) -> Option<Letters<'a>> {
        let index = view.u16(self.token_index.checked_add(u64::from(token) * 2)?)?;
        Some(Letters(view.stream(self.tokens.checked_add(index.into())?)))
    }

    /// Returns the type and the name that begins here, and moves on to the next one.
    fn expand(&self, view: View<'_>, names: &mut Stream<'_>) -> Option<(u8, Name)> {
        let (mut kind, mut name) = (None, Name::new());
        let tokens = self.length(names)?;
        let end = names.at.checked_add(tokens.into())?;
        for _ in 0..tokens {
            let mut letters = self.token(view, names.byte()?)?;
            // Any token has a letter, or the tables are damaged.
            let first = letters.next()?;
            if kind.is_some() {
                name.push(first);
            }
            kind.get_or_insert(first);
            letters.by_ref().take(MAX_NAME).for_each(|letter| name.push(letter));
            if name.is_full() {
                break;
            }
        }
        names.at = end;
        Some((kind?, name))
    }

    /// Returns the address of the symbol `number`.
    fn address(&self, view: View<'_>, number: u32) -> Option<u64> {
        let place = self.offsets.checked_add(u64::from(number) * 4)?;
        let offset = view.u32(place)?;
        let signed = i64::from(offset.cast_signed());
        Some(match self.encoding {
            Encoding::Signed { .. } if signed >= 0 => offset.into(),
            Encoding::Signed { base } => base.wrapping_sub(1).wrapping_add_signed(-signed),
            Encoding::Unsigned { base } => base.wrapping_add(offset.into()),
            Encoding::Place => place.wrapping_add_signed(signed),
        })
    }

    /// Returns the symbol that holds `address`, and the distance from its start. Of several symbols at one address it
    /// is the first, as in the kernel's own stack traces.
    pub fn symbol(&self, view: View<'_>, address: u64) -> Option<(Name, u64)> {
        if address < self.lowest {
            return None;
        }
        // The last symbol is the end of the image, so an address from it on is in no symbol.
        let (mut low, mut high) = (0, self.count - 1);
        if self.address(view, high)? <= address {
            return None;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.address(view, middle)? <= address { low = middle } else { high = middle }
        }
        let start = self.address(view, low)?;
        for _ in 0..MAX_ALIASES {
            match low.checked_sub(1) {
                Some(before) if self.address(view, before)? == start => low = before,
                _ => break,
            }
        }
        if !(self.lowest..=address).contains(&start) {
            return None;
        }
        let (_, name) = self.expand(view, &mut self.names_from(view, low)?)?;
        Some((name, address - start))
    }

    /// Returns the address of the first symbol with this name.
    pub fn find(&self, view: View<'_>, name: &str) -> Option<u64> {
        let [address] = self.find_all(view, [name])?;
        address
    }

    /// Returns the addresses of the first symbols with these names, in one pass over all symbols. `None` if the tables
    /// cannot be read.
    pub fn find_all<const N: usize>(&self, view: View<'_>, wanted: [&str; N]) -> Option<[Option<u64>; N]> {
        let mut found = [None; N];
        let mut begins = [[false; TOKENS]; N];
        for token in 0..=u8::MAX {
            for (begins, name) in begins.iter_mut().zip(wanted) {
                // A token that cannot be read begins no name.
                let text = self.token(view, token);
                let rest = text.and_then(|text| after(name.as_bytes(), text.skip(1)));
                begins[usize::from(token)] = rest.is_some();
            }
        }
        let mut names = view.stream(self.names);
        for number in 0..self.count {
            let tokens = self.length(&mut names)?;
            let first = names.at;
            let token = names.byte()?;
            for ((name, begins), found) in wanted.iter().zip(&begins).zip(&mut found) {
                let may = found.is_none() && begins[usize::from(token)];
                if may && self.is(view, &mut view.stream(first), tokens, name.as_bytes()) {
                    *found = Some(self.address(view, number)?);
                }
            }
            if found.iter().all(Option::is_some) {
                break;
            }
            names.skip(u64::from(tokens) - 1)?;
        }
        Some(found)
    }

    /// Returns true if `tokens` tokens from here on are a type and this name.
    fn is(&self, view: View<'_>, names: &mut Stream<'_>, tokens: u32, name: &[u8]) -> bool {
        let mut rest = Some(name);
        // The first letter of the first token is the type.
        let mut kind = 1;
        for _ in 0..tokens {
            let token = names.byte().and_then(|token| self.token(view, token));
            let Some((letters, now)) = token.zip(rest) else { return false };
            rest = after(now, letters.skip(kind));
            // Any token but the first has letters, or the tables are damaged.
            if kind == 0 && rest.is_some_and(|rest| rest.len() == now.len()) {
                return false;
            }
            kind = 0;
        }
        rest.is_some_and(<[u8]>::is_empty)
    }

    /// Calls `each` with all symbols in the order of their addresses, until it returns false.
    pub fn each(&self, view: View<'_>, each: &mut dyn FnMut(Symbol<'_>) -> bool) {
        let mut names = view.stream(self.names);
        for number in 0..self.count {
            let Some((kind, name)) = self.expand(view, &mut names) else { return };
            let Some(address) = self.address(view, number) else { return };
            if !each(Symbol { address, kind, name: &name }) {
                return;
            }
        }
    }
}

/// Returns what is left of `name` after all `letters`; `None` if it does not begin with them.
fn after(name: &[u8], letters: impl Iterator<Item = u8>) -> Option<&[u8]> {
    let mut rest = name;
    for letter in letters {
        rest = rest.strip_prefix(&[letter])?;
    }
    Some(rest)
}

/// The letters of a token, up to the zero after them.
struct Letters<'a>(Stream<'a>);

impl Iterator for Letters<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.0.byte().filter(|byte| *byte != 0)
    }
}
