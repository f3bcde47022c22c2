//! Makes the ISO, which has the hypervisor, the guests and GRUB's menu, and which boots from CD and USB.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::grub::{self, Menu};
use crate::guests::{self, Freshness};
use crate::manifest::{self, Guest};
use crate::{initrds, kernel_file, paths, progress};

/// The contents of an ISO.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The guests, in the order of the menu.
    pub guests: Vec<Guest>,
    /// The menu.
    pub menu: Menu,
    /// The hypervisor's image. Without one, guests can only be started bare.
    pub hypervisor: Option<PathBuf>,
    /// The guest's tool, for the built-in initramfs.
    pub vidarctl: Option<PathBuf>,
}

/// Checks what the user asks for, and returns GRUB's configuration. Nothing has to be fetched or built for this.
pub fn check(guests: &[Guest], menu: &Menu, hypervisor: bool) -> Result<String> {
    manifest::check(guests)?;
    for guest in guests {
        guests::check(guest)?;
    }
    let template = paths::root().join("grub/grub.cfg.in");
    let template =
        fs::read_to_string(&template).with_context(|| format!("cannot read {}", template.display()))?;
    grub::config(&template, guests, menu, hypervisor)
}

/// Makes the ISO `output`, and shows the progress.
pub fn make_with_progress(recipe: &Recipe, output: &Path) -> Result<()> {
    progress::step(&format!("making {}", output.display()), || make(recipe, output))
}

/// Makes the ISO `output`.
pub fn make(recipe: &Recipe, output: &Path) -> Result<()> {
    let config = check(&recipe.guests, &recipe.menu, recipe.hypervisor.is_some())?;
    let folder = match output.parent() {
        Some(parent) if parent != Path::new("") => paths::ensure(parent.to_path_buf())?,
        _ => PathBuf::from("."),
    };
    let tree = tempfile::tempdir()?;
    let boot = paths::ensure(tree.path().join("boot"))?;
    for guest in &recipe.guests {
        let home = paths::ensure(boot.join("guests").join(&guest.name))?;
        kernel_file::copy(&guests::kernel(guest, Freshness::Any)?, &home.join("vmlinuz"))?;
        for (index, initrd) in initrds::files(guest, recipe.vidarctl.as_deref())?.iter().enumerate() {
            copy(initrd, &home.join(grub::initrd(index)))?;
        }
    }
    if let Some(hypervisor) = &recipe.hypervisor {
        copy(hypervisor, &boot.join("vidar.elf"))?;
    }
    paths::ensure(boot.join("grub"))?;
    fs::write(boot.join("grub/grub.cfg"), config)?;

    // The image is made beside its final path and then renamed, so that nobody sees an incomplete one.
    let image = tempfile::Builder::new().prefix(".vidar-").suffix(".iso").tempfile_in(&folder);
    let image = image.with_context(|| format!("cannot write into {}", folder.display()))?.into_temp_path();
    grub::medium::make(tree.path(), &image)?;
    fs::set_permissions(&image, fs::Permissions::from_mode(0o644))?;
    image.persist(output).with_context(|| format!("cannot write {}", output.display()))?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}
