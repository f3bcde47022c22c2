//! Where things are: the checkout, and what xtask leaves under its `target` folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The bare-metal target that the hypervisor is built for.
pub const BARE_TARGET: &str = "x86_64-unknown-none";
/// The target of the static programs for the guest.
pub const GUEST_TARGET: &str = "x86_64-unknown-linux-musl";

/// The root of the checkout.
pub fn root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().expect("xtask is a folder of the checkout").to_path_buf()
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The guests' kernels and busybox, kept from one run to the next.
pub fn guests() -> PathBuf {
    target().join("guests")
}

/// Packages as they were downloaded, kept until newer ones are looked for.
pub fn packages() -> PathBuf {
    guests().join("packages")
}

/// Folders in which emulators run, with their configuration and logs.
pub fn machines() -> PathBuf {
    target().join("machines")
}

/// The ISO that `cargo xtask iso` makes unless told otherwise.
pub fn default_iso() -> PathBuf {
    target().join("vidar.iso")
}

/// The hypervisor, once it is built.
pub fn hypervisor() -> PathBuf {
    target().join(BARE_TARGET).join("release/vidar-hv")
}

/// The guest's tool, once it is built.
pub fn vidarctl() -> PathBuf {
    target().join(GUEST_TARGET).join("release/vidarctl")
}

/// Makes the folder `dir` if it is not there, and gives it back.
pub fn ensure(dir: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    Ok(dir)
}

/// Removes what xtask made, but for what Cargo built and for the guests' kernels unless `guests` is set.
pub fn clean(guests_too: bool) -> Result<()> {
    let mut made = vec![default_iso(), machines()];
    if guests_too {
        made.push(guests());
    }
    for path in made {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Ok(()) => println!("removed {}", path.display()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot remove {}", path.display())),
        }
    }
    Ok(())
}
