//! Installs the Debian and Ubuntu packages that Vidar's tools need on this machine. Packages that are only unpacked
//! come from [`crate::archive`].

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Cmd, Shell, cmd};

use crate::progress;

/// A package that Vidar's tools need on this machine.
struct Need {
    package: &'static str,
    /// Programs on the path, or files. If one of them exists, the package is not needed.
    proofs: &'static [&'static str],
}

/// The possible paths of Bochs' VGA BIOS, which is in a package of its own or in that of Bochs.
const VGA_BIOSES: &[&str] = &["/usr/share/vgabios/vgabios.bin", "/usr/share/bochs/VGABIOS-lgpl-latest"];

/// The UEFI firmware.
pub const UEFI: &str = "/usr/share/ovmf/OVMF.fd";
/// The UEFI firmware that can do Secure Boot, and its variables with Microsoft's keys.
pub const UEFI_SECURE_BOOT: [&str; 2] =
    ["/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"];

const NEEDS: &[Need] = &[
    Need { package: "bochs", proofs: &["bochs"] },
    Need { package: "bochsbios", proofs: &["/usr/share/bochs/BIOS-bochs-latest"] },
    Need { package: "vgabios", proofs: VGA_BIOSES },
    // QEMU is needed even where there is no KVM, since some tests run in QEMU without it.
    Need { package: "qemu-system-x86", proofs: &["qemu-system-x86_64"] },
    Need { package: "grub-common", proofs: &["grub-mkimage", "grub2-mkimage"] },
    Need { package: "grub-pc-bin", proofs: &["/usr/lib/grub/i386-pc/multiboot2.mod"] },
    Need { package: "grub-efi-amd64-bin", proofs: &["/usr/lib/grub/x86_64-efi/multiboot2.mod"] },
    Need { package: "ovmf", proofs: &[UEFI] },
    Need { package: "xorriso", proofs: &["xorriso"] },
    Need { package: "mtools", proofs: &["mformat"] },
    Need { package: "gdb", proofs: &["gdb"] },
    Need { package: "e2fsprogs", proofs: &["mke2fs"] },
    // Debian compresses its kernels' modules by xz, and Ubuntu by zstd.
    Need { package: "xz-utils", proofs: &["xz"] },
    Need { package: "zstd", proofs: &["zstd"] },
];

/// The arguments of `env` that run apt-get. It asks no questions, and waits while the system's own updates hold the
/// lock.
const APT_GET: &[&str] =
    &["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--option=DPkg::Lock::Timeout=300"];

/// Returns true if the program `name` is on the path.
pub fn has_program(name: &str) -> bool {
    program(name).is_some()
}

/// Returns the file of the program `name`, if it is on the path.
pub fn program(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    // Some distributions keep tools in sbin that do not need root's rights.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let files = env::split_paths(&folders).chain(more).map(|folder| folder.join(name));
    files.into_iter().find(|file| file.is_file())
}

/// Returns the packages that are missing.
pub fn missing() -> Vec<&'static str> {
    let there =
        |proof: &str| if proof.starts_with('/') { Path::new(proof).exists() } else { has_program(proof) };
    let is_missing = |need: &&Need| !need.proofs.iter().any(|proof| there(proof));
    NEEDS.iter().filter(is_missing).map(|need| need.package).collect()
}

/// Returns all packages that Vidar's tools need on a Debian.
pub fn needed() -> Vec<&'static str> {
    NEEDS.iter().map(|need| need.package).collect()
}

/// Returns the path of the VGA BIOS for Bochs.
pub fn vga_bios() -> &'static str {
    VGA_BIOSES.iter().find(|file| Path::new(file).exists()).unwrap_or(&VGA_BIOSES[0])
}

/// Returns true if this system has apt and dpkg.
pub fn have_apt() -> bool {
    ["apt-get", "apt-cache", "dpkg-deb"].iter().all(|program| has_program(program))
}

/// Installs `packages`, as root or through sudo.
pub fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !have_apt() {
        bail!("this system has no apt: install the equivalents of these Debian packages: {list}");
    }
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    let install = || apt_get(&format!("installing {list}"), &arguments);
    install().or_else(|_| update().and_then(|()| install())).with_context(|| format!("cannot install {list}"))
}

/// Fetches the package lists again.
pub fn update() -> Result<()> {
    apt_get("fetching the package lists", &["update"]).context("cannot fetch apt's package lists")
}

/// Runs apt-get as root or through sudo. `what` describes the step for the user.
fn apt_get(what: &str, arguments: &[&str]) -> Result<()> {
    let shell = Shell::new()?;
    let run = |command: Cmd| {
        let output = command.quiet().ignore_status().output()?;
        if !output.status.success() {
            let verb = arguments.join(" ");
            bail!("apt-get {verb} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    };
    if rustix::process::geteuid().is_root() {
        progress::step(what, || run(cmd!(shell, "env {APT_GET...} {arguments...}")))
    } else if has_program("sudo") {
        // sudo may ask for a password, and a spinner would overwrite the question.
        eprintln!("{what}, by sudo ...");
        run(cmd!(shell, "sudo env {APT_GET...} {arguments...}"))
    } else {
        bail!("there is no sudo here: run `apt-get {}` as root", arguments.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(has_program("sh"));
        assert!(!has_program("no-such-program-anywhere"));
    }
}
