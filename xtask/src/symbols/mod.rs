//! `cargo xtask symbols`: the symbols of a distribution's kernel as a file for gdb. The kernel is stripped, but it has
//! its symbols in tables of its own, kallsyms, and these are in the kernel's file already.
//!
//! | file | what it is for |
//! |---|---|
//! | [`unpack`] | Unpacks the kernel that is in a bzImage. |
//! | [`image`] | The kernel's image, by its virtual addresses. |
//! | [`tables`] | Finds the tables of kallsyms in the image. |
//! | [`symbol`] | A symbol. |
//! | [`elf`] | Writes symbols to an ELF file. |

mod elf;
mod image;
mod symbol;
mod tables;
mod unpack;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vidar_core::kernel::kallsyms::Symbols;
use vidar_core::kernel::view::{Translation, View};

use self::image::Image;
use self::symbol::Symbol;
use crate::paths;

/// Writes the symbols of the kernel in the bzImage `kernel` to a file under `target`, and returns the path and the
/// number of symbols.
pub fn make(kernel: &Path, name: &str) -> Result<(PathBuf, usize)> {
    let file = fs::read(kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let symbols =
        of(&file).with_context(|| format!("{} has no symbols that can be found", kernel.display()))?;
    let output = paths::ensure(paths::target().join("symbols"))?.join(format!("{name}.elf"));
    fs::write(&output, elf::write(&symbols)).with_context(|| format!("cannot write {}", output.display()))?;
    Ok((output, symbols.len()))
}

/// Returns the symbols of the kernel in this bzImage, at the addresses at which it was linked.
fn of(file: &[u8]) -> Result<Vec<Symbol>> {
    let image = Image::parse(&unpack::kernel(file)?)?;
    let found =
        tables::find(&image).context("the tables of kallsyms are not where any known kernel has them")?;
    // The image maps itself: its addresses are 0 on from the start of the mapping.
    let translation = Translation::new(0, image::BASE, 4).context("the image is not in its mapping")?;
    let view = View::new(&image, translation);
    let symbols = Symbols::new(view, &found.addresses(), image.lowest(), found.has_long_names(&image));
    let mut list = Vec::new();
    symbols.context("kallsyms is damaged")?.each(view, &mut |symbol| {
        let (address, kind) = (symbol.address, symbol.kind);
        list.push(Symbol { address, kind, name: symbol.name.as_str().to_owned() });
        true
    });
    Ok(list)
}
