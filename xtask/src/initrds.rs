//! The initrds of guests: files, or archives that are packed here.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::guests::{self, Freshness};
use crate::manifest::{Guest, Initrd};
use crate::{initramfs, modules, paths};

/// Returns the parts of the initrd of `guest`. The built-in one is packed each time.
pub fn files(guest: &Guest, vidarctl: Option<&Path>) -> Result<Vec<PathBuf>> {
    guest.initrds.iter().map(|initrd| file(guest, initrd, vidarctl)).collect()
}

fn file(guest: &Guest, initrd: &Initrd, vidarctl: Option<&Path>) -> Result<PathBuf> {
    match initrd {
        Initrd::File(file) => Ok(file.clone()),
        Initrd::BuiltIn => {
            let init = paths::root().join("iso/initramfs/init");
            let mut packed = initramfs::pack(&guests::busybox(Freshness::Any)?, vidarctl, &init)?;
            // The kernel unpacks concatenated archives.
            if let Some(drivers) = modules::drivers(guest) {
                packed.extend(
                    fs::read(&drivers).with_context(|| format!("cannot read {}", drivers.display()))?,
                );
            }
            let file = paths::guests().join(format!("initrd-{}", guest.name));
            // Another xtask may be reading the file, so it is replaced as a whole.
            let new = tempfile::NamedTempFile::new_in(paths::ensure(paths::guests())?)?;
            fs::write(&new, packed)?;
            new.persist(&file).with_context(|| format!("cannot write {}", file.display()))?;
            Ok(file)
        }
    }
}
