//! The tags of Multiboot2 boot information. Multiboot2 Specification 2.0, 3.4.2 "Boot information format".

use multiboot2::{DynSizedStructure, TagHeader, TagType};

use super::bytes::u32_at;

/// Bytes before the first tag: the total size, and a reserved field.
const FIXED: usize = 8;
/// Tags begin at multiples of this.
const ALIGNMENT: usize = 8;

/// The information is not what the Multiboot2 specification describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// A tag: its header, and the bytes after that.
pub type Tag = DynSizedStructure<TagHeader>;

/// The tags that are left to be read.
#[derive(Debug, Clone)]
pub struct Tags<'a>(&'a [u8]);

impl<'a> Tags<'a> {
    /// The tags of the boot information that begins at the start of `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] if it does not start at a multiple of 8 bytes, if it is longer than `bytes`, or if it is no sequence of whole
    /// tags up to an end tag.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let size = u32_at(bytes, 0).ok_or(Malformed)?;
        let tags = Self(bytes.get(FIXED..size as usize).ok_or(Malformed)?);
        let mut rest = tags.clone();
        let last = rest.by_ref().find(|tag| is_end(tag));
        if last.is_some() && rest.0.is_empty() { Ok(tags) } else { Err(Malformed) }
    }
}

fn is_end(tag: &Tag) -> bool {
    TagType::from(tag.header().typ) == TagType::End && tag.payload().is_empty()
}

impl<'a> Iterator for Tags<'a> {
    type Item = &'a Tag;

    fn next(&mut self) -> Option<&'a Tag> {
        let size = u32_at(self.0, 4)? as usize;
        let (tag, rest) = self.0.split_at_checked(size.checked_next_multiple_of(ALIGNMENT)?)?;
        self.0 = rest;
        DynSizedStructure::ref_from_slice(tag).ok()
    }
}
