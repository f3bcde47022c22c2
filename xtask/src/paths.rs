//! The paths of the checkout and of the files that xtask makes in its `target` folder.

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

/// Notes that this process runs in the tree of `suite`. Files from packages, and what emulators leave, are then kept
/// apart for that suite.
pub fn run_in(suite: String) {
    SUITE.get_or_init(|| suite);
}

/// The suite in whose tree of emulators this process runs, if it runs in one.
pub fn suite() -> Option<&'static str> {
    SUITE.get().map(String::as_str)
}

/// The folder for the trees of other suites' emulators, and for what runs in them leave.
pub fn all_emulators() -> PathBuf {
    target().join("emulators")
}

/// The folder for the tree of the emulators of `suite`, and for what runs in it leave.
pub fn emulators(suite: &str) -> PathBuf {
    all_emulators().join(suite)
}

/// The folder for files that depend on the suite.
fn of_suite() -> PathBuf {
    suite().map_or_else(target, emulators)
}

/// The folder for the guests' kernels and busybox, which are kept from one run to the next.
pub fn guests() -> PathBuf {
    of_suite().join("guests")
}

/// The folder for downloaded packages, which are kept until `cargo xtask setup` looks for newer ones.
pub fn packages() -> PathBuf {
    guests().join("packages")
}

/// The folder for the folders in which emulators run, with their configurations and logs.
pub fn machines() -> PathBuf {
    of_suite().join("machines")
}

/// The path of the ISO that `cargo xtask iso` makes by default.
pub fn default_iso() -> PathBuf {
    target().join("vidar.iso")
}

/// The folder of the files of a release, which `cargo xtask dist` makes.
pub fn dist() -> PathBuf {
    target().join("dist")
}

/// The path of the hypervisor, once it is built.
pub fn hypervisor() -> PathBuf {
    target().join(BARE_TARGET).join("release/vidar.elf")
}

/// The path of the hypervisor as the linker writes it, with debug information.
pub fn image_with_symbols() -> PathBuf {
    target().join(BARE_TARGET).join("release/vidar-hv")
}

/// The folder into which the hypervisor that tries the entry rules is built.
pub fn trial_target() -> PathBuf {
    target().join("trial")
}

/// The path of the hypervisor that tries the entry rules in place of running the guest, once it is built.
pub fn trial() -> PathBuf {
    trial_target().join(BARE_TARGET).join("release/vidar-hv")
}

/// The path of the guest's tool, once it is built.
pub fn vidarctl() -> PathBuf {
    target().join(GUEST_TARGET).join("release/vidarctl")
}

/// Makes the folder `dir` if it does not exist, and returns it.
pub fn ensure(dir: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    Ok(dir)
}

/// Removes what xtask has made, other than what Cargo has built. The guests' kernels are removed only if `guests_too`
/// is true.
pub fn clean(guests_too: bool) -> Result<()> {
    let mut made = vec![default_iso(), dist(), machines()];
    made.extend(debian_packages()?);
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

/// Returns the paths of the packages that `cargo xtask deb` has made.
fn debian_packages() -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(target()) else { return Ok(Vec::new()) };
    let paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let is_package = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("vidar_") && name.ends_with(".deb")
    };
    Ok(paths.into_iter().filter(is_package).collect())
}
