//! Removes debug information from the hypervisor's image. GRUB would load it into memory with the rest of the file.

use anyhow::{Context, Result};
use object::build::elf::Builder;

/// Returns the ELF file `image` without its sections of debug information. Its symbols stay.
pub fn strip(image: &[u8]) -> Result<Vec<u8>> {
    let mut file = Builder::read(image).context("the image is not an ELF file")?;
    for section in &mut file.sections {
        section.delete = section.name.starts_with(b".debug_");
    }
    let mut stripped = Vec::new();
    file.write(&mut stripped).context("the image cannot be written without debug information")?;
    Ok(stripped)
}
