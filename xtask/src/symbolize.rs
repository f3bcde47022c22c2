//! `cargo xtask symbolize`: finds the functions and lines of the addresses in a report of Vidar's about itself.
//!
//! The image is linked with debug information, and what GRUB loads is stripped of it. Both have the same build ID, and
//! a report names it, so names are never those of another build.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use addr2line::Context as Lines;
use anyhow::{Context, Result, bail, ensure};
use gimli::{Dwarf, EndianSlice, LittleEndian};
use object::{Object, ObjectSection};

use crate::{build_id, paths};

/// What comes before the build ID in a report, and before a return address.
const BUILD: &str = "build ";
const CALLED_FROM: &str = "called from 0x";

/// Reads the report in `file`, or on the standard input, and prints it with the functions and lines of its addresses.
pub fn run(file: Option<&Path>) -> Result<()> {
    let mut report = Vec::new();
    match file {
        Some(file) => report = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
        None => {
            io::stdin().read_to_end(&mut report).context("cannot read the report")?;
        }
    }
    let image = paths::image_with_symbols();
    let image = fs::read(&image).with_context(|| {
        format!("there is no image with symbols, {}: run `cargo xtask build` first", image.display())
    })?;
    let text = symbolize(&String::from_utf8_lossy(&report), &image)?;
    io::stdout().write_all(text.as_bytes()).context("cannot print the report")
}

/// Returns `report` with a line for each function that an address in it is in, innermost first. `image` has symbols and
/// debug information.
///
/// # Errors
/// It is an error if the report is of another build than the image, or does not say of which.
pub fn symbolize(report: &str, image: &[u8]) -> Result<String> {
    let file = object::File::parse(image).context("the image is not an ELF file")?;
    check_build(report, &build_id::read(image)?)?;
    let section = |id: gimli::SectionId| {
        let section = file.section_by_name(id.name());
        let data = section.and_then(|section| section.data().ok()).unwrap_or_default();
        Ok::<_, gimli::Error>(EndianSlice::new(data, LittleEndian))
    };
    let symbols = file.symbol_map();
    let lines =
        Lines::from_dwarf(Dwarf::load(section)?).context("the image's debug information is damaged")?;
    let mut text = String::new();
    for line in report.lines() {
        text += line.trim_end();
        text.push('\n');
        if let Some(address) = return_address(line) {
            // The address is the one after the call, which may be that of another function.
            let symbol = symbols.before(address - 1).map(|symbol| demangle(symbol.name()));
            for frame in frames(&lines, symbol, address - 1)? {
                text += &format!("      {frame}\n");
            }
        }
    }
    Ok(text)
}

/// Checks that the report is of the build `id`.
fn check_build(report: &str, id: &str) -> Result<()> {
    let Some(said) = report.lines().find_map(build_in) else {
        bail!("the report does not say of which build it is: give all of it, from its first line on");
    };
    ensure!(
        said == id,
        "the report is of build {said}, and the image here is build {id}: check out the commit that the report names, and \
         run `cargo xtask build`"
    );
    Ok(())
}

/// Returns the build ID that a line of a report names.
fn build_in(line: &str) -> Option<&str> {
    let (_, rest) = line.rsplit_once(BUILD)?;
    let id = rest.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    (id.len() == 16).then_some(id)
}

/// Returns the return address that a line of a report names.
fn return_address(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(CALLED_FROM)?;
    let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    u64::from_str_radix(digits, 16).ok().filter(|address| *address > 0)
}

/// Returns the functions that `address` is in, each with its file and line, innermost first. Those that were inlined
/// are among them. The lines alone have short names, so the last function, which was not inlined, gets that of its
/// `symbol`.
fn frames(
    lines: &Lines<EndianSlice<'_, LittleEndian>>,
    symbol: Option<String>,
    address: u64,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut frames = lines.find_frames(address).skip_all_loads()?;
    while let Some(frame) = frames.next()? {
        let name = frame.function.as_ref().and_then(|function| Some(demangle(&function.raw_name().ok()?)));
        let place = frame.location.and_then(|location| {
            Some(format!(
                " at {}:{}",
                location.file?.trim_start_matches("./"),
                location.line.unwrap_or_default()
            ))
        });
        found.push((name.unwrap_or_else(|| "?".to_owned()), place.unwrap_or_default()));
    }
    if let Some(symbol) = symbol {
        match found.last_mut() {
            Some((name, _)) => *name = symbol,
            None => found.push((symbol, String::new())), // assembly
        }
    }
    Ok(found.into_iter().map(|(name, place)| name + &place).collect())
}

/// Returns the name that a symbol has in the source.
fn demangle(symbol: &str) -> String {
    without_hash(&addr2line::demangle_auto(symbol.into(), None)).to_owned()
}

/// Returns a demangled name without the hash at its end.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()) => path,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_the_build_are_found_in_a_report() {
        let line =
            "  at hv/src/svm/cpu.rs:12, on CPU 0, in Vidar 0.1.0 (0123456789ab), build 0123456789abcdef";
        assert_eq!(build_in(line), Some("0123456789abcdef"));
        for line in ["build 123", "nothing", "build ", "a build of 0123456789abcdef"] {
            assert_eq!(build_in(line), None, "{line}");
        }
        let line = "vidar: error:   called from 0xffffffff80001234\r";
        assert_eq!(return_address(line), Some(0xffff_ffff_8000_1234));
        for line in ["called from 0x", "called from 0x0", "called from", "0xffffffff80001234"] {
            assert_eq!(return_address(line), None, "{line}");
        }
    }

    #[test]
    fn a_report_of_another_build_is_refused() {
        let report =
            "vidar: error: Vidar panicked: a\n  build 0123456789abcdef; report this with what follows\n";
        assert!(check_build(report, "0123456789abcdef").is_ok());
        let error = check_build(report, "fedcba9876543210").unwrap_err().to_string();
        assert!(error.starts_with("the report is of build 0123456789abcdef, and"), "{error}");
        let error =
            check_build("called from 0xffffffff80001234", "0123456789abcdef").unwrap_err().to_string();
        assert!(error.starts_with("the report does not say of which build it is"), "{error}");
    }

    #[test]
    fn a_name_loses_its_hash() {
        assert_eq!(
            without_hash("vidar::debug::panic::report::h0123456789abcdef"),
            "vidar::debug::panic::report"
        );
        assert_eq!(without_hash("a::handle"), "a::handle");
    }

    #[test]
    fn a_file_that_is_no_image_is_refused() {
        assert!(symbolize("build 0123456789abcdef", b"no image").is_err());
    }
}
