//! The modules: files that the boot loader has put into memory.

use core::ops::Range;

use multiboot2::{MaybeDynSized, ModuleTag, TagType};

use super::bytes::u32_at;
use super::tags::Tags;
use super::text::Text;
use crate::mem::addr::Hpa;

/// A file that the boot loader has put into memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Module<'a> {
    /// Where the file lies.
    pub range: Range<Hpa>,
    /// The words after the file's name in the loader's configuration.
    pub command_line: Text<'a>,
}

/// The modules, in the order of the loader's configuration.
#[derive(Debug, Clone)]
pub struct Modules<'a>(pub(super) Tags<'a>);

impl<'a> Iterator for Modules<'a> {
    type Item = Module<'a>;

    fn next(&mut self) -> Option<Module<'a>> {
        self.0.find_map(|tag| {
            let (kind, size) = (tag.header().typ, tag.header().size as usize);
            if TagType::from(kind) != TagType::Module || size < ModuleTag::BASE_SIZE {
                return None;
            }
            let payload = tag.payload();
            let range = Hpa(u32_at(payload, 0)?.into())..Hpa(u32_at(payload, 4)?.into());
            Some(Module { range, command_line: Text::until_zero(payload.get(8..)?) })
        })
    }
}
