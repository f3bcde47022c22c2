//! Inputs for a parser: mutations of valid ones, which get deep into it, and noise.

use proptest::prelude::*;
use proptest::sample::Index;

/// The most bytes that noise has.
const NOISE: usize = 256;
/// The most bytes that a mutation may add.
const MORE: usize = 64;
/// The most mutations of one input.
const MOST: usize = 6;

/// A change of an input.
#[derive(Debug, Clone)]
enum Mutation {
    /// A byte is replaced.
    Byte(Index, u8),
    /// A bit is flipped.
    Bit(Index, u8),
    /// A little-endian number of this many bytes is written.
    Number(Index, usize, u64),
    /// The input ends here.
    Cut(Index),
    /// Bytes are inserted.
    Insert(Index, Vec<u8>),
    /// Some bytes are removed.
    Remove(Index, usize),
    /// Some bytes are repeated.
    Repeat(Index, usize),
    /// The rest is replaced by the end of another valid input.
    Splice(Index, Index, Index),
}

/// Numbers at which something begins or ends, and any other.
fn number() -> impl Strategy<Value = u64> {
    let edge =
        (0u32..64, 0u64..5).prop_map(|(bit, beside)| (1u64 << bit).wrapping_add(beside).wrapping_sub(2));
    prop_oneof![3 => 0u64..66, 3 => edge, 1 => any::<u64>(), 1 => any::<u64>().prop_map(|number| !0 << (number % 64))]
}

/// Returns a number of bytes, which is usually small.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![2 => 1usize..5, 1 => 1..MORE]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let width = prop::sample::select(vec![1usize, 2, 4, 8]);
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Byte(at, byte)),
        2 => (at(), 0u8..8).prop_map(|(at, bit)| Mutation::Bit(at, bit)),
        6 => (at(), width, number()).prop_map(|(at, width, number)| Mutation::Number(at, width, number)),
        1 => at().prop_map(Mutation::Cut),
        1 => (at(), length().prop_flat_map(|length| prop::collection::vec(any::<u8>(), length))).prop_map(|(at, more)| Mutation::Insert(at, more)),
        1 => (at(), length()).prop_map(|(at, length)| Mutation::Remove(at, length)),
        1 => (at(), length()).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        1 => (at(), at(), at()).prop_map(|(at, seed, from)| Mutation::Splice(at, seed, from)),
    ]
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let length = bytes.len();
        // The end is a place as well, where there is no byte.
        let place = |at: &Index| at.index(length + 1);
        let some = |at: &Index, count: usize| place(at)..place(at).saturating_add(count).min(length);
        match self {
            Self::Byte(at, byte) => bytes.iter_mut().skip(place(at)).take(1).for_each(|old| *old = *byte),
            Self::Bit(at, bit) => bytes.iter_mut().skip(place(at)).take(1).for_each(|old| *old ^= 1 << bit),
            Self::Number(at, width, number) => {
                let new = number.to_le_bytes();
                // Fields lie at multiples of their sizes as a rule.
                let start = place(at) / width * width;
                bytes.iter_mut().skip(start).zip(&new[..*width]).for_each(|(old, new)| *old = *new);
            }
            Self::Cut(at) => bytes.truncate(place(at)),
            Self::Insert(at, more) => drop(bytes.splice(place(at)..place(at), more.iter().copied())),
            Self::Remove(at, count) => drop(bytes.drain(some(at, *count))),
            Self::Repeat(at, count) => {
                let again = bytes[some(at, *count)].to_vec();
                drop(bytes.splice(place(at)..place(at), again));
            }
            Self::Splice(at, seed, from) => {
                let other = &seeds[seed.index(seeds.len())];
                bytes.truncate(place(at));
                bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
        }
    }
}

/// Returns a strategy of inputs. Three of four are mutated seeds, and half of these are mended afterwards.
pub fn inputs(seeds: Vec<Vec<u8>>, mend: fn(&mut [u8])) -> impl Strategy<Value = Vec<u8>> {
    let mutations = prop::collection::vec(mutation(), 1..MOST);
    let mutated = (any::<Index>(), mutations, any::<bool>()).prop_map(move |(seed, mutations, honest)| {
        let mut bytes = seeds[seed.index(seeds.len())].clone();
        mutations.iter().for_each(|mutation| mutation.apply(&mut bytes, &seeds));
        if honest {
            mend(&mut bytes);
        }
        bytes
    });
    prop_oneof![3 => mutated, 1 => prop::collection::vec(any::<u8>(), 0..NOISE)]
}
