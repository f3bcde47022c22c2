//! `cargo xtask dist`: all files of a release, in one folder.
//!
//! | file | what it is for |
//! |---|---|
//! | [`crates`] | Lists the crates that a program is made of. |
//! | [`programs`] | The table of the programs. |
//! | [`sums`] | Computes the checksums. |

mod crates;
mod programs;
mod sums;

pub use self::crates::tool;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::programs::PROGRAMS;
use crate::build::Programs;
use crate::grub::Menu;
use crate::iso::{self, Recipe};
use crate::{build, manifest, package, paths, progress, setup, source};

/// Makes all files of a release, and prints their names and sizes.
pub fn run() -> Result<()> {
    if source::is_changed() {
        eprintln!(
            "warning: this checkout differs from its commit, so nobody else can make the same files: commit first"
        );
    }
    setup::missing()?;
    let programs = build::all()?;
    let folder = make(&programs)?;
    println!("{}:", folder.display());
    for file in sums::files(&folder)? {
        println!("{:>9} KiB  {file}", build::size(&folder.join(&file))?.div_ceil(1024));
    }
    Ok(())
}

/// Makes the folder of a release from these programs. Returns its path.
fn make(programs: &Programs) -> Result<PathBuf> {
    // The files are made in another folder, so that nobody sees an incomplete release.
    let (folder, new) = (paths::dist(), paths::dist().with_extension("new"));
    remove(&new)?;
    paths::ensure(new.clone())?;
    let built = [&programs.hypervisor, &programs.vidarctl];
    for (program, built) in PROGRAMS.iter().zip(built) {
        copy(built, &new.join(program.file))?;
        progress::step(&format!("listing the crates of {}", program.file), || {
            crates::list(program, &new.join(program.list))
        })?;
    }
    let version = package::Version::new(None)?;
    let recipe = Recipe {
        guests: manifest::load_for_iso()?,
        menu: Menu::default(),
        hypervisor: Some(programs.hypervisor.clone()),
        vidarctl: Some(programs.vidarctl.clone()),
    };
    let image = new.join(format!("vidar-{version}.iso"));
    progress::step("making the ISO", || iso::make(&recipe, &image))?;
    let made = package::make(version, programs)?;
    copy(&made, &new.join(made.file_name().context("the package has no name")?))?;
    progress::step("computing the checksums", || sums::write(&new))?;
    remove(&folder)?;
    fs::rename(&new, &folder).with_context(|| format!("cannot write {}", folder.display()))?;
    Ok(folder)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
