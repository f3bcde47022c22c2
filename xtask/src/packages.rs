//! Debian and Ubuntu packages: what is installed, what apt offers, and files out of packages that stay uninstalled.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use xshell::{Cmd, Shell, cmd};

use crate::{paths, progress};

/// Something that Vidar's tools need on the machine, and the package that brings it.
struct Need {
    package: &'static str,
    /// Programs on the path, or files: one will do.
    proofs: &'static [&'static str],
}

/// Where the VGA BIOS of Bochs may be: in a package of its own, or in that of Bochs.
const VGA_BIOSES: &[&str] = &["/usr/share/vgabios/vgabios.bin", "/usr/share/bochs/VGABIOS-lgpl-latest"];

/// UEFI for QEMU.
pub const UEFI: &str = "/usr/share/ovmf/OVMF.fd";

const NEEDS: &[Need] = &[
    Need { package: "bochs", proofs: &["bochs"] },
    Need { package: "bochsbios", proofs: &["/usr/share/bochs/BIOS-bochs-latest"] },
    Need { package: "vgabios", proofs: VGA_BIOSES },
    // Everywhere, and not only where KVM is: some tests run in QEMU without it.
    Need { package: "qemu-system-x86", proofs: &["qemu-system-x86_64"] },
    Need { package: "grub-common", proofs: &["grub-mkrescue"] },
    Need { package: "grub-pc-bin", proofs: &["/usr/lib/grub/i386-pc/multiboot2.mod"] },
    Need { package: "grub-efi-amd64-bin", proofs: &["/usr/lib/grub/x86_64-efi/multiboot2.mod"] },
    Need { package: "ovmf", proofs: &[UEFI] },
    Need { package: "xorriso", proofs: &["xorriso"] },
    Need { package: "mtools", proofs: &["mformat"] },
    Need { package: "e2fsprogs", proofs: &["mke2fs"] },
];

/// What `env` runs for apt-get: it asks nothing, and waits while the system's own updates hold the lock.
const APT_GET: &[&str] =
    &["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--option=DPkg::Lock::Timeout=300"];

/// Returns true if the program `name` is on the path.
pub fn has_program(name: &str) -> bool {
    program(name).is_some()
}

/// The file of the program `name`, if it is on the path.
pub fn program(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    // sbin is where some distributions keep tools that need no root.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let files = env::split_paths(&folders).chain(more).map(|folder| folder.join(name));
    files.into_iter().find(|file| file.is_file())
}

/// The packages that are missing.
pub fn missing() -> Vec<&'static str> {
    let there =
        |proof: &str| if proof.starts_with('/') { Path::new(proof).exists() } else { has_program(proof) };
    let is_missing = |need: &&Need| !need.proofs.iter().any(|proof| there(proof));
    NEEDS.iter().filter(is_missing).map(|need| need.package).collect()
}

/// The VGA BIOS for Bochs.
pub fn vga_bios() -> &'static str {
    VGA_BIOSES.iter().find(|file| Path::new(file).exists()).unwrap_or(&VGA_BIOSES[0])
}

/// Whether this is a system of Debian's kind.
pub fn have_apt() -> bool {
    ["apt-get", "apt-cache", "dpkg-deb"].iter().all(|program| has_program(program))
}

/// Installs `packages`, as root or through sudo.
pub fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !have_apt() {
        bail!("This system has no apt; install what Debian calls: {list}.");
    }
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    let install = || apt_get(&format!("installing {list}"), &arguments);
    install().or_else(|_| update().and_then(|()| install())).with_context(|| format!("cannot install {list}"))
}

/// The real package that the first of `names` which apt offers depends on, for the kernel packages that only
/// follow the newest version; asks for fresh package lists if there is no answer.
pub fn newest_kernel(names: &[String]) -> Result<String> {
    if !have_apt() {
        bail!("This system has no apt, so it cannot be asked for {}.", names.join(" or "));
    }
    let find = || names.iter().find_map(|name| real_kernel(name));
    if let Some(package) = find() {
        return Ok(package);
    }
    update()?;
    find().with_context(|| format!("apt offers no {}", names.join(" and no ")))
}

fn real_kernel(name: &str) -> Option<String> {
    let mut name = name.to_owned();
    // Ubuntu's linux-image-virtual follows linux-image-generic on some releases.
    for _ in 0..4 {
        match kernel_dependency(&show(&name)?) {
            Some(next) => name = next,
            None => return Some(name),
        }
    }
    None
}

/// The kernel package among the dependencies that `apt-cache show` prints.
fn kernel_dependency(shown: &str) -> Option<String> {
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let names = depends.split([',', '|']).filter_map(|one| one.split_whitespace().next());
    names.filter(|name| name.starts_with("linux-image-")).map(str::to_owned).next()
}

/// The version of `package` that apt would download; asks for fresh package lists if there is no answer.
pub fn candidate(package: &str) -> Result<String> {
    if let Some(version) = version(package) {
        return Ok(version);
    }
    update()?;
    version(package).with_context(|| format!("apt offers no {package}"))
}

fn version(package: &str) -> Option<String> {
    Some(show(package)?.lines().find_map(|line| line.strip_prefix("Version:"))?.trim().to_owned())
}

/// What apt knows of the version of `package` that it would install.
fn show(package: &str) -> Option<String> {
    let shell = Shell::new().ok()?;
    cmd!(shell, "apt-cache show --no-all-versions {package}").quiet().ignore_stderr().read().ok()
}

/// Downloads `package` without installing it, and writes the file in it whose path matches `pattern` to `to`.
pub fn extract(package: &str, pattern: &str, to: &Path) -> Result<()> {
    let mut take = Command::new("tar");
    take.args(["--extract", "--to-stdout", "--wildcards", pattern]).stdout(File::create(to)?);
    let taken = through_tar(package, take)?;
    if !taken || fs::metadata(to)?.len() == 0 {
        bail!("the package {package} holds no {pattern}");
    }
    Ok(())
}

/// Downloads `package` without installing it, and unpacks what in it matches `pattern` into the folder `to`.
pub fn unpack(package: &str, pattern: &str, to: &Path) -> Result<()> {
    let mut take = Command::new("tar");
    // The folder first: it counts for what is named behind it.
    take.arg("--directory").arg(to).args(["--extract", "--no-same-owner", "--wildcards", pattern]);
    if !through_tar(package, take)? {
        bail!("the package {package} holds no {pattern}");
    }
    Ok(())
}

/// Downloads `package` and gives what is in it to `tar`; whether both ends were content.
fn through_tar(package: &str, mut tar: Command) -> Result<bool> {
    let archive = download(package)?;
    let mut unpack =
        Command::new("dpkg-deb").arg("--fsys-tarfile").arg(archive).stdout(Stdio::piped()).spawn()?;
    tar.stderr(Stdio::null()).stdin(unpack.stdout.take().expect("it is piped"));
    let taken = tar.status()?.success();
    // With our end of the pipe, so that dpkg-deb does not wait for a tar that gave up.
    drop(tar);
    Ok(unpack.wait()?.success() && taken)
}

/// Downloads `package`, or finds it where it was downloaded before with the same version: a kernel and its modules are in one
/// package, and are asked for one after the other.
fn download(package: &str) -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let kept = paths::ensure(paths::packages())?.join(format!("{package}.deb"));
    if package.contains('=') && kept.is_file() {
        return Ok(kept);
    }
    let shell = Shell::new()?;
    let dir = tempfile::tempdir_in(paths::packages())?;
    shell.change_dir(dir.path());
    let download = cmd!(shell, "apt-get download --quiet {package}").quiet().ignore_stderr().ignore_stdout();
    download.run().with_context(|| format!("apt cannot download {package}"))?;
    let archive = fs::read_dir(dir.path())?.flatten().map(|entry| entry.path());
    let archive = archive.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
    let archive = archive.with_context(|| format!("apt downloaded nothing for {package}"))?;
    fs::rename(&archive, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
    Ok(kept)
}

/// Gets fresh package lists.
pub fn update() -> Result<()> {
    apt_get("fetching the package lists", &["update"]).context("cannot fetch apt's package lists")
}

/// Runs apt-get as root or through sudo, saying `what` is going on.
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
        // It may ask for a password, and a spinner would write over its question.
        eprintln!("{what}, by sudo ...");
        run(cmd!(shell, "sudo env {APT_GET...} {arguments...}"))
    } else {
        bail!("there is no sudo here; as root, do: apt-get {}", arguments.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_found_among_dependencies() {
        let debian = "Package: linux-image-amd64\nDepends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\n";
        assert_eq!(kernel_dependency(debian).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        let ubuntu = "Depends: linux-firmware, linux-image-6.8.0-31-generic | linux-image-unsigned, x\n";
        assert_eq!(kernel_dependency(ubuntu).as_deref(), Some("linux-image-6.8.0-31-generic"));
        let real =
            "Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool\n";
        assert_eq!(kernel_dependency(real), None);
        assert_eq!(kernel_dependency("Package: x\n"), None);
    }

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(has_program("sh"));
        assert!(!has_program("no-such-program-anywhere"));
    }
}
