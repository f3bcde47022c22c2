//! Finds the tables of kallsyms in a kernel's image. A kernel that runs says where they are, but its file does not.
//! They are found by what they hold: the names of symbols have digits, so the tokens from `0` to `9` follow each other
//! in the table of tokens, and all the other tables are before or after that one. Linux, scripts/kallsyms.c,
//! `write_src`.

use vidar_core::kernel::kallsyms::Addresses;
use vidar_core::mem::addr::Gpa;
use vidar_core::mem::walk::ReadGuest;

use super::image::{BASE, Image};

/// The tokens of the digits, each with a zero after it.
const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
/// The number of tokens before that of the digit 0, which is the letter itself.
const BEFORE_DIGITS: usize = b'0' as usize;
/// The number of tokens.
const TOKENS: usize = 256;
/// The names between two markers.
const STRIDE: usize = 256;
/// The alignments of the tables: in Linux 6.1 and 6.12, and in 7.2.
const ALIGNMENTS: [usize; 2] = [8, 4];
/// The most bytes between two markers, each name having at most 512 tokens and a length of two bytes.
const MOST: u32 = (STRIDE as u32) * 514;

/// The addresses of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tables {
    names: u64,
    count: u64,
    tokens: u64,
    token_index: u64,
    offsets: u64,
    /// The base of the offsets, which Linux 7.2 does not have.
    relative_base: Option<u64>,
    /// The address after the last name.
    names_end: u64,
}

impl Tables {
    /// Returns the addresses as VMCOREINFO would have them.
    pub fn addresses(&self) -> Addresses {
        let mut addresses = Addresses::default();
        let mut take = |key: &str, address: u64| {
            addresses.take(key.as_bytes(), format!("{address:x}").as_bytes());
        };
        take("SYMBOL(kallsyms_names)", self.names);
        take("SYMBOL(kallsyms_num_syms)", self.count);
        take("SYMBOL(kallsyms_token_table)", self.tokens);
        take("SYMBOL(kallsyms_token_index)", self.token_index);
        take("SYMBOL(kallsyms_offsets)", self.offsets);
        if let Some(base) = self.relative_base {
            take("SYMBOL(kallsyms_relative_base)", base);
        }
        addresses
    }

    /// Returns true if lengths of names of 128 tokens or more take two bytes, as from Linux 6.1 on.
    pub fn has_long_names(&self, image: &Image) -> bool {
        let byte = |at: u64| Some((image.word(Gpa((at - BASE) & !7))? >> ((at - BASE) % 8 * 8)) as u8);
        let count = image.word(Gpa((self.count - BASE) & !7)).unwrap_or(0) as u32;
        let mut at = self.names;
        // With lengths of one byte, the names end where they are to end.
        for _ in 0..count {
            let Some(length) = byte(at) else { return true };
            at += 1 + u64::from(length);
        }
        at != self.names_end
    }
}

/// Finds the tables.
pub fn find(image: &Image) -> Option<Tables> {
    image.segments().find_map(|(start, bytes)| {
        let digits =
            (0..bytes.len().saturating_sub(DIGITS.len())).filter(|at| bytes[*at..].starts_with(DIGITS));
        digits.filter_map(|at| in_segment(start, bytes, at)).next()
    })
}

/// Finds the tables in a segment at the address `start`, which has the tokens of the digits at `digits`.
fn in_segment(start: u64, bytes: &[u8], digits: usize) -> Option<Tables> {
    let tokens = tokens_before(bytes, digits)?;
    let token_index = index_after(bytes, tokens)?;
    let (names, count, names_end) = names_before(bytes, tokens)?;
    let symbols = word32(bytes, count)? as usize;
    let size = (symbols * 4).next_multiple_of(8);
    let is_base = |at: usize| word64(bytes, at).filter(|base| base >> 31 == u64::MAX >> 31);
    // Before Linux 6.4 the addresses are before the names, and then after the tokens. In 7.2 they have no base.
    let after = (token_index + TOKENS * 2).next_multiple_of(8);
    let relative_base = [count.checked_sub(8)?, after + size].into_iter().find(|at| is_base(*at).is_some());
    let offsets = relative_base.map_or(Some(token_index + TOKENS * 2), |base| base.checked_sub(size))?;
    let at = |offset: usize| start + offset as u64;
    Some(Tables {
        names: at(names),
        count: at(count),
        tokens: at(tokens),
        token_index: at(token_index),
        offsets: at(offsets),
        relative_base: relative_base.map(at),
        names_end: at(names_end),
    })
}

/// Returns the start of the table of tokens, in which those of the digits are at `digits`.
fn tokens_before(bytes: &[u8], digits: usize) -> Option<usize> {
    let mut at = digits.checked_sub(1)?;
    for _ in 0..BEFORE_DIGITS {
        // `at` is the zero after a token. The token before it begins after the zero before that.
        at = bytes[..at].iter().rposition(|byte| *byte == 0)?;
    }
    Some(at + 1)
}

/// Returns the table with the offset of each token, which follows the tokens.
fn index_after(bytes: &[u8], tokens: usize) -> Option<usize> {
    let mut offsets = Vec::with_capacity(TOKENS);
    let mut at = tokens;
    for _ in 0..TOKENS {
        offsets.push((at - tokens) as u16);
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0)? + 1;
    }
    let wanted: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
    (at..at + 16).find(|at| bytes.get(*at..).is_some_and(|rest| rest.starts_with(&wanted)))
}

/// Returns the table of names, the number of names, and the end of the names, which are before the tokens. Between them
/// are the markers: the offset of each name whose number is a multiple of 256.
fn names_before(bytes: &[u8], tokens: usize) -> Option<(usize, usize, usize)> {
    // From the tokens back, the first number that is 0 and has rising ones after it.
    let rises = |at: usize| {
        let pair = (word32(bytes, at), word32(bytes, at + 4));
        matches!(pair, (Some(one), Some(next)) if next > one && next - one < MOST)
    };
    let mut markers = (tokens & !3).checked_sub(4)?;
    let first = loop {
        markers = markers.checked_sub(4)?;
        if word32(bytes, markers) == Some(0) && (0..64).all(|number| rises(markers + number * 4)) {
            break markers;
        }
        // No kernel has that many names.
        if tokens - markers > 16 << 20 {
            return None;
        }
    };
    let number = (0..).take_while(|number| rises(first + number * 4)).count() + 1;
    // A number after the markers may rise by chance.
    (number.saturating_sub(4)..=number).rev().find_map(|number| {
        let last = word32(bytes, first + (number - 1) * 4)? as usize;
        let least = first.checked_sub(last + MOST as usize)?;
        ALIGNMENTS.into_iter().find_map(|alignment| {
            let names = (least.next_multiple_of(alignment)..first.checked_sub(last)?).step_by(alignment);
            names
                .filter_map(|names| {
                    // The number of names is before them.
                    let count = names.checked_sub(alignment)?;
                    let symbols = word32(bytes, count)? as usize;
                    let fits = symbols.div_ceil(STRIDE) == number && follows(bytes, names, first);
                    fits.then(|| Some((names, count, names_end(bytes, names, last, symbols)?)))?
                })
                .next()
        })
    })
}

/// Returns true if the name number 256 of `names` is where the marker after `markers` says.
fn follows(bytes: &[u8], names: usize, markers: usize) -> bool {
    let wanted = word32(bytes, markers + 4).map(|offset| names + offset as usize);
    wanted.is_some() && skip(bytes, names, STRIDE) == wanted
}

/// Returns the end of `symbols` names, of which the last multiple of 256 is at the offset `last`.
fn names_end(bytes: &[u8], names: usize, last: usize, symbols: usize) -> Option<usize> {
    skip(bytes, names + last, symbols - (symbols - 1) / STRIDE * STRIDE)
}

/// Returns what is after `count` names. A length from 128 on has its upper bits in a second byte.
fn skip(bytes: &[u8], names: usize, count: usize) -> Option<usize> {
    (0..count).try_fold(names, |at, _| {
        let low = usize::from(*bytes.get(at)?);
        if low < 128 {
            return Some(at + 1 + low);
        }
        let high = usize::from(*bytes.get(at + 1)?);
        Some(at + 2 + (low & 127 | high << 7))
    })
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of symbols, which is enough for markers that are told from other numbers.
    const SYMBOLS: u32 = 70 * STRIDE as u32 + 3;

    /// Where a release of Linux has the offsets of symbols.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Layout {
        Before,
        After,
        WithoutBase,
    }

    /// A segment under construction, and the alignment of its tables.
    struct Segment(Vec<u8>, usize);

    impl Segment {
        /// Adds a table, and returns its address.
        fn add(&mut self, table: &[u8]) -> u64 {
            self.0.resize(self.0.len().next_multiple_of(self.1), 0);
            let at = self.0.len() as u64;
            self.0.extend(table);
            BASE + at
        }
    }

    /// Returns a segment with the tables of kallsyms in this order, and where they are.
    fn segment(layout: Layout) -> (Vec<u8>, Tables) {
        // As in a kernel, there is much before the tables.
        let alignment = if layout == Layout::WithoutBase { 4 } else { 8 };
        let mut segment = Segment(vec![0x5a; 2 * MOST as usize + 4], alignment);
        let offsets: Vec<u8> = (0..SYMBOLS).flat_map(|number| (number * 16).to_le_bytes()).collect();
        let base = 0xffff_ffff_8100_0000_u64.to_le_bytes();
        let mut place = (0, None);
        if layout == Layout::Before {
            place = (segment.add(&offsets), Some(segment.add(&base)));
        }
        let count = segment.add(&SYMBOLS.to_le_bytes());
        // Each name has two to four tokens, of which the first is the type.
        let names: Vec<Vec<u8>> = (0..SYMBOLS)
            .map(|number| {
                let digits = format!("T{}", number % 1000);
                [&[digits.len() as u8], digits.as_bytes()].concat()
            })
            .collect();
        let markers = names.iter().enumerate().scan(0, |at, (number, name)| {
            let marker = (number % STRIDE == 0).then_some(*at);
            *at += name.len() as u32;
            Some(marker)
        });
        let markers: Vec<u8> = markers.flatten().flat_map(u32::to_le_bytes).collect();
        let names_at = segment.add(&names.concat());
        let names_end = BASE + segment.0.len() as u64;
        segment.add(&markers);
        // The token of a letter is the letter itself, and those of the others are not used here.
        let token = |number: usize| {
            let letter = number as u8;
            if letter.is_ascii_alphanumeric() { vec![letter, 0] } else { b"zz\0".to_vec() }
        };
        let tokens: Vec<Vec<u8>> = (0..TOKENS).map(token).collect();
        let index = tokens.iter().scan(0_u16, |at, token| {
            let start = *at;
            *at += token.len() as u16;
            Some(start.to_le_bytes())
        });
        let index: Vec<u8> = index.flatten().collect();
        let (tokens, token_index) = (segment.add(&tokens.concat()), segment.add(&index));
        if layout != Layout::Before {
            place.0 = segment.add(&offsets);
            // In Linux 7.2, numbers of symbols follow the offsets.
            let after = segment.add(if layout == Layout::After { &base } else { &[0, 1, 2, 3, 4, 5, 6, 7] });
            place.1 = (layout == Layout::After).then_some(after);
        }
        let (offsets, relative_base) = place;
        (segment.0, Tables { names: names_at, count, tokens, token_index, offsets, relative_base, names_end })
    }

    #[test]
    fn the_tables_of_each_layout_are_found() {
        for layout in [Layout::Before, Layout::After, Layout::WithoutBase] {
            let (bytes, tables) = segment(layout);
            let digits = bytes.windows(DIGITS.len()).position(|window| window == DIGITS).unwrap();
            assert_eq!(in_segment(BASE, &bytes, digits), Some(tables), "{layout:?}");
        }
    }
}
