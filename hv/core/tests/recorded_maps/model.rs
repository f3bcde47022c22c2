//! A model of a memory map, which asks every entry about one piece of memory after the other.

use std::ops::Range;

use vidar_core::mem::addr::Hpa;
use vidar_core::mem::map::{MemoryKind, MemoryRegion, RAM_END};

/// The memory between two neighbouring edges of a map. All of its bytes are in the same entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub range: Range<Hpa>,
    /// The kinds of the entries that contain it, in the order of their numbers.
    pub kinds: Vec<MemoryKind>,
}

/// Returns the pieces into which a map and `edges` divide memory, from 0 to the end of the address space.
pub fn pieces(regions: &[MemoryRegion], edges: &[Hpa]) -> Vec<Piece> {
    let own = regions.iter().flat_map(|region| [region.range.start, region.range.end]);
    let mut edges: Vec<_> =
        own.chain(edges.iter().copied()).chain([Hpa(0), RAM_END, Hpa(u64::MAX)]).collect();
    edges.sort_unstable();
    edges.dedup();
    let piece = |pair: &[Hpa]| {
        let inside = regions.iter().filter(|region| region.range.contains(&pair[0]));
        let mut kinds: Vec<_> = inside.map(|region| region.kind).collect();
        kinds.sort_unstable_by_key(|kind| kind.to_raw());
        kinds.dedup();
        Piece { range: pair[0]..pair[1], kinds }
    };
    edges.windows(2).map(piece).collect()
}

/// Returns the pieces for which `wanted` is true, joined where they touch.
fn runs(pieces: &[Piece], wanted: impl Fn(&Piece) -> bool) -> Vec<Range<Hpa>> {
    let mut runs: Vec<Range<Hpa>> = Vec::new();
    for piece in pieces.iter().filter(|piece| wanted(piece)) {
        match runs.last_mut().filter(|run| run.end == piece.range.start) {
            Some(run) => run.end = piece.range.end,
            None => runs.push(piece.range.clone()),
        }
    }
    runs
}

/// Returns the RAM for an operating system.
pub fn usable(regions: &[MemoryRegion]) -> Vec<Range<Hpa>> {
    runs(&pieces(regions, &[]), |piece| piece.kinds == [MemoryKind::Usable] && piece.range.start < RAM_END)
}
