//! Where things are: the checkout, and what xtask leaves under its `target` folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

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

/// The suite in whose tree of emulators this process runs, if it runs in one.
static SUITE: OnceLock<String> = OnceLock::new();

/// From here on, what comes from the system's packages and what emulators leave is that of the suite in whose tree this process
/// runs.
pub fn run_in(suite: String) {
    SUITE.get_or_init(|| suite);
}

/// The suite in whose tree of emulators this process runs, if it runs in one.
pub fn suite() -> Option<&'static str> {
    SUITE.get().map(String::as_str)
}

/// The trees of other suites' emulators, and what runs in them.
pub fn all_emulators() -> PathBuf {
    target().join("emulators")
}

/// What there is of the emulators of `suite`.
pub fn emulators(suite: &str) -> PathBuf {
    all_emulators().join(suite)
}

/// The folder of what is of one suite alone.
fn of_suite() -> PathBuf {
    suite().map_or_else(target, emulators)
}

/// The guests' kernels and busybox, kept from one run to the next.
pub fn guests() -> PathBuf {
    of_suite().join("guests")
}

/// Packages as they were downloaded, kept until newer ones are looked for.
pub fn packages() -> PathBuf {
    guests().join("packages")
}

/// Folders in which emulators run, with their configuration and logs.
pub fn machines() -> PathBuf {
    of_suite().join("machines")
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
