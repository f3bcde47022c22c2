//! Whole Debians on disks, each with its own GRUB, for a BIOS and for UEFI. A Debian that is made from packages copies
//! itself to them in a machine of its own (`xtask/distribution/install`), so that nothing of the host's disks is
//! touched.

mod install;
mod layout;
mod system;

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};

pub use self::install::{archive, log_in};
pub use self::layout::Layout;
use self::layout::home;
use crate::{paths, progress};

/// Makes the disks, unless that has been done with the same packages and the same script.
pub fn get() -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let script = paths::root().join("xtask/distribution/install");
    let content = fs::read_to_string(&script).with_context(|| format!("cannot read {}", script.display()))?;
    let recipe = format!("{}\n{content}", system::recipe());
    let note = home().join("recipe");
    let is_there = Layout::ALL.iter().all(|layout| layout.disk().is_file());
    if is_there && fs::read_to_string(&note).is_ok_and(|old| old == recipe) {
        return Ok(());
    }
    let _ = fs::remove_dir_all(home());
    make(&script, &paths::ensure(home().join("made"))?)?;
    for layout in Layout::ALL {
        fs::rename(home().join("made").join(layout.disk().file_name().unwrap_or_default()), layout.disk())?;
    }
    fs::remove_dir_all(home().join("made"))?;
    fs::write(&note, recipe)?;
    Ok(())
}

/// Makes the disks in the folder `dir`.
fn make(script: &Path, dir: &Path) -> Result<()> {
    let system = system::build(dir)?;
    progress::step("installing that Debian to disks, in QEMU", || install::to_disks(&system, script, dir))
}
