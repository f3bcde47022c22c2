//! The build ID of Vidar's image: a hash of what GRUB loads. A report names it, so that its addresses are not looked up
//! in another build.
//!
//! The linker leaves a note with an ID of zeros. It could compute one itself, but from the debug information as well,
//! which differs from one folder to another.

use std::ops::Range;

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol};
use sha2::{Digest, Sha256};

/// The symbol of the note, and where the ID is in it.
const NOTE: &str = "vidar_build_id";
const ID_IN_NOTE: Range<u64> = 16..24;

/// Returns the build ID of an image, in hexadecimal digits.
pub fn read(image: &[u8]) -> Result<String> {
    let id = image.get(place(image)?).context("the image ends before its build ID")?;
    Ok(id.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Gives the image that GRUB loads its build ID, and the image `linked`, of which it was made, the same. An ID that is
/// there already makes no difference.
pub fn stamp(loaded: &mut [u8], linked: &mut [u8]) -> Result<()> {
    put(loaded, [0; 8])?;
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = Sha256::digest(&*loaded).into();
    let id = [a, b, c, d, e, f, g, h];
    put(loaded, id)?;
    put(linked, id)
}

/// Writes the ID into the note of an image.
fn put(image: &mut [u8], id: [u8; 8]) -> Result<()> {
    let place = place(image)?;
    image.get_mut(place).context("the image ends before its build ID")?.copy_from_slice(&id);
    Ok(())
}

/// Returns where in the file the ID is.
fn place(image: &[u8]) -> Result<Range<usize>> {
    let image = object::File::parse(image).context("the image is not an ELF file")?;
    let note = image.symbols().find(|symbol| symbol.name() == Ok(NOTE)).map(|symbol| symbol.address());
    let place = note.and_then(|note| {
        let section = image.sections().find(|section| {
            section.address() <= note && note + ID_IN_NOTE.end <= section.address() + section.size()
        })?;
        let (in_file, _) = section.file_range()?;
        let note = usize::try_from(in_file + (note - section.address())).ok()?;
        Some(note + ID_IN_NOTE.start as usize..note + ID_IN_NOTE.end as usize)
    });
    place.context("the image has no build ID")
}

#[cfg(test)]
mod tests {
    use object::write::{self, Symbol, SymbolSection};
    use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

    use super::*;

    /// Returns an image with a note, with this code and this debug information.
    fn image(code: &[u8], debug: &[u8]) -> Vec<u8> {
        let mut image = write::Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let text = image.add_section(Vec::new(), b".text".to_vec(), SectionKind::Text);
        image.append_section_data(text, code, 1);
        let note = image.add_section(Vec::new(), b".notes".to_vec(), SectionKind::ReadOnlyData);
        image.append_section_data(note, &[0; 24], 1);
        let about = image.add_section(Vec::new(), b".debug_line".to_vec(), SectionKind::Debug);
        image.append_section_data(about, debug, 1);
        image.add_symbol(Symbol {
            name: NOTE.as_bytes().to_vec(),
            value: 0,
            size: 24,
            kind: SymbolKind::Data,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(note),
            flags: SymbolFlags::None,
        });
        image.write().unwrap()
    }

    /// Stamps what is left of an image without debug information. Returns the ID, which both have.
    fn stamped(linked: &mut [u8]) -> String {
        let mut loaded = crate::strip::strip(linked).unwrap();
        stamp(&mut loaded, linked).unwrap();
        let [one, other] = [&*loaded, linked].map(|image| read(image).unwrap());
        assert_eq!(one, other);
        one
    }

    #[test]
    fn the_id_is_that_of_what_is_loaded() {
        let mut linked = image(b"code", b"one/file.rs");
        let id = stamped(&mut linked);
        assert_ne!(id, "0000000000000000");
        assert_eq!(stamped(&mut linked), id, "an ID that is there already");
        assert_eq!(stamped(&mut image(b"code", b"another/folder/file.rs")), id, "of another folder");
        assert_ne!(stamped(&mut image(b"Code", b"one/file.rs")), id, "of another code");
    }

    #[test]
    fn an_image_without_a_note_is_refused() {
        let image = write::Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let mut image = image.write().unwrap();
        let error = stamp(&mut image.clone(), &mut image).unwrap_err().to_string();
        assert_eq!(error, "the image has no build ID");
        assert!(stamp(&mut [0; 4], &mut [0; 4]).is_err());
    }
}
