//! The tags of Multiboot2 boot information. Multiboot2 Specification 2.0, 3.4.2 "Boot information format".

use multiboot2::{DynSizedStructure, TagHeader, TagType};

use super::bytes::u32_at;

/// Number of bytes before the first tag: the total size and a reserved field.
const FIXED: usize = 8;
/// Tags are aligned to this many bytes.
const ALIGNMENT: usize = 8;

/// The error for boot information that does not follow the Multiboot2 specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// A tag: a header and a payload.
pub type Tag = DynSizedStructure<TagHeader>;

/// An iterator over tags.
#[derive(Debug, Clone)]
pub struct Tags<'a>(&'a [u8]);

impl<'a> Tags<'a> {
    /// Returns the tags of the boot information at the start of `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] if the first tag is not aligned to 8 bytes, if the information is longer than `bytes`, or if it is
    /// not a sequence of whole tags up to an end tag.
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
