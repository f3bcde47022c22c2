//! Reads a core as a tool does that knows nothing of how it was made: segments by their physical addresses, and notes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::Endianness;
use object::elf::{FileHeader64, NT_PRSTATUS, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use vidar_core::mem::addr::{Gpa, Hpa};
use vidar_core::mem::ranges::RangeSet;
use vidar_core::mem::walk::{Paging, ReadGuest, translate};

/// Where Linux maps its image.
const IMAGE: u64 = 0xffff_ffff_8000_0000;

/// A core.
pub struct CoreFile {
    /// The pieces of physical memory, by their addresses.
    pieces: Vec<(u64, Vec<u8>)>,
    /// The text of the note VMCOREINFO.
    vmcoreinfo: String,
    /// The number of CPUs whose registers it has.
    pub cpus: usize,
}

impl CoreFile {
    /// Reads the core in this file.
    pub fn read(file: &Path) -> Result<Self> {
        let bytes = fs::read(file)?;
        let header = FileHeader64::<Endianness>::parse(&*bytes)?;
        let endian = header.endian()?;
        let (mut pieces, mut vmcoreinfo, mut cpus) = (Vec::new(), None, 0);
        for segment in header.program_headers(endian, &*bytes)? {
            if segment.p_type(endian) == PT_LOAD {
                let contents = segment.data(endian, &*bytes).ok().context("a segment is not in the file")?;
                pieces.push((segment.p_paddr(endian), contents.to_vec()));
            }
            let Some(mut notes) = segment.notes(endian, &*bytes)? else { continue };
            while let Some(note) = notes.next()? {
                match note.name() {
                    b"VMCOREINFO" => vmcoreinfo = Some(String::from_utf8(note.desc().to_vec())?),
                    b"CORE" if note.n_type(endian) == NT_PRSTATUS => cpus += 1,
                    _ => {}
                }
            }
        }
        Ok(Self { pieces, vmcoreinfo: vmcoreinfo.context("the core has no VMCOREINFO")?, cpus })
    }

    /// Returns the memory that the core has.
    pub fn ram(&self) -> RangeSet {
        self.pieces.iter().map(|(start, piece)| Hpa(*start)..Hpa(start + piece.len() as u64)).collect()
    }

    /// Returns the text at a virtual address up to its zero, by the page tables that VMCOREINFO names.
    pub fn text(&self, address: u64) -> Option<String> {
        let value =
            |key: &str| self.vmcoreinfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let phys_base: i64 = value("NUMBER(phys_base)")?.parse().ok()?;
        let tables = u64::from_str_radix(value("SYMBOL(swapper_pg_dir)")?, 16).ok()?;
        let top = tables.wrapping_sub(IMAGE).wrapping_add(phys_base.cast_unsigned());
        let paging = Paging::Long { levels: 4 };
        let byte = |at: u64| {
            let at = translate(paging, top, at, |entry| self.word(entry))?;
            Some((self.word(at.align_down(8))? >> (at.0 % 8 * 8)) as u8)
        };
        let mut bytes = Vec::new();
        for at in address.. {
            match byte(at)? {
                0 => break,
                byte => bytes.push(byte),
            }
        }
        String::from_utf8(bytes).ok()
    }
}

impl ReadGuest for CoreFile {
    fn word(&self, address: Gpa) -> Option<u64> {
        let index = self.pieces.partition_point(|(start, _)| *start <= address.0).checked_sub(1)?;
        let (start, piece) = &self.pieces[index];
        let at = usize::try_from(address.0 - start).ok()?;
        Some(u64::from_le_bytes(*piece.get(at..)?.first_chunk()?))
    }

    fn page(&self, _: Gpa) -> Option<Hpa> {
        None
    }
}
