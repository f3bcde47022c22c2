//! `cargo xtask deb`: the package `vidar` for Debian and Ubuntu.
//!
//! | file | what it makes |
//! |---|---|
//! | [`contents`] | the table of the package's files |
//! | [`control`] | what dpkg is told of the package |
//! | [`scripts`] | the scripts that dpkg runs |
//! | [`manual`], [`settings`] | the manual of Vidar, and the settings of the menu that it describes |
//! | [`page`] | a manual page in roff |
//! | [`tool_pages`] | the manual and the completion of vidarctl |
//! | [`copyright`] | the copyright file |
//! | [`linked`], [`licence`] | the crates that are linked into the programs, and their licences |
//! | [`changelog`] | Debian's changelog, from the project's |
//! | [`version`], [`date`] | the package's version, and dates as text |
//! | [`gzip`] | compressed files |
//! | [`deb`] | the package itself, by dpkg-deb |

mod changelog;
mod contents;
mod control;
mod copyright;
mod date;
mod deb;
#[cfg(test)]
mod generator;
mod gzip;
mod licence;
#[cfg(test)]
mod lifecycle;
mod linked;
mod manual;
mod page;
mod scripts;
mod settings;
mod tool_pages;
mod version;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::contents::Source;
pub use self::version::Version;
use crate::build::{self, Programs};
use crate::{paths, progress, setup, source};

/// Builds Vidar and makes the package, of the version that the user asks for or of Vidar's own.
pub fn run(version: Option<&str>) -> Result<()> {
    let version = Version::new(version)?;
    setup::rust_targets()?;
    let package = make(version, &build::all()?)?;
    println!("{}: {} KiB", package.display(), build::size(&package)?.div_ceil(1024));
    Ok(())
}

/// Makes the package of a version with these programs. Returns its path.
pub fn make(version: Version, programs: &Programs) -> Result<PathBuf> {
    let output = paths::target().join(format!("vidar_{version}_amd64.deb"));
    let source = Source {
        version,
        date: source::date()?,
        copyright: copyright::copyright()?,
        image: read(&programs.hypervisor)?,
        vidarctl: read(&programs.vidarctl)?,
    };
    progress::step(&format!("making {}", output.display()), || deb::package(&source, &output))?;
    Ok(output)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
