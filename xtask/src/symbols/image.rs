//! The image of a kernel, by its virtual addresses.

use anyhow::{Context, Result, ensure};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSegment};
use vidar_core::mem::addr::{Gpa, Hpa};
use vidar_core::mem::walk::ReadGuest;

/// Where the kernel maps its image: `__START_KERNEL_map`.
pub const BASE: u64 = 0xffff_ffff_8000_0000;

/// The image of a kernel, as its file has it.
pub struct Image {
    /// The segments, by their addresses.
    segments: Vec<(u64, Vec<u8>)>,
}

impl Image {
    /// Reads the image from the kernel's ELF file.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let file: ElfFile64<'_> = ElfFile64::parse(file).context("the kernel is no ELF file")?;
        let segments: Vec<_> = file
            .segments()
            .filter(|segment| segment.address() >= BASE)
            .map(|segment| Ok((segment.address(), segment.data()?.to_vec())))
            .collect::<Result<_>>()?;
        ensure!(!segments.is_empty(), "the kernel has no segment at its addresses");
        Ok(Self { segments })
    }

    /// Returns the lowest address.
    pub fn lowest(&self) -> u64 {
        self.segments.iter().map(|(start, _)| *start).min().unwrap_or(BASE)
    }

    /// Returns the segments, each by its address.
    pub fn segments(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.segments.iter().map(|(start, bytes)| (*start, bytes.as_slice()))
    }
}

impl ReadGuest for Image {
    /// The image stands for memory in which its mapping begins at address 0. What is between segments reads as 0.
    fn word(&self, address: Gpa) -> Option<u64> {
        let linear = BASE.checked_add(address.0)?;
        let (start, bytes) = self.segments.iter().rev().find(|(start, bytes)| {
            linear >= *start && linear < start + (bytes.len() as u64).next_multiple_of(8)
        })?;
        let at = (linear - start) as usize;
        let mut word = [0; 8];
        let end = bytes.len().min(at + 8);
        word[..end - at].copy_from_slice(&bytes[at..end]);
        Some(u64::from_le_bytes(word))
    }

    fn page(&self, _: Gpa) -> Option<Hpa> {
        None
    }
}
