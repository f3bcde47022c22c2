//! Makes a Debian out of packages. It has no boot loader of its own yet.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::{packages, progress};

/// The packages that are installed in addition to those of every Debian. `grub-pc` has the settings and what updates
/// the menu. The GRUB for UEFI conflicts with it as a whole, but not its parts. The last packages make partitions and
/// file systems.
const PACKAGES: &str = "linux-image-amd64,initramfs-tools,systemd-sysv,udev,kmod,iproute2,iputils-ping,grub-pc,\
                        grub-efi-amd64-bin,grub-efi-amd64-signed,shim-signed,lvm2,dosfstools,fdisk";
/// The label of the file system, by which the kernel's command line names it.
pub const LABEL: &str = "vidar-debian";
/// The size of the disk, which is a sparse file. The system uses half of it.
const SIZE: &str = "1536M";
/// What is done to the system after the packages are there. `$1` is its folder.
const HOOKS: [&str; 3] = [
    // The machine belongs to the user and can only be reached by its serial line, so root needs no password.
    "chroot \"$1\" passwd --delete root",
    // These fire at random times and use the network, or take long in an emulator and have nothing to do here, so that
    // no two boots would be alike.
    "chroot \"$1\" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service",
    "echo vidar-debian >\"$1/etc/hostname\"",
];

/// A Debian on a disk without partitions, and its kernel and initrd as files.
#[derive(Debug, Clone)]
pub struct System {
    /// The disk.
    pub disk: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initrd.
    pub initrd: PathBuf,
}

/// Tells what the system is made from.
pub fn recipe() -> String {
    format!("{PACKAGES}\n{}\n", HOOKS.join("\n"))
}

/// Makes the system in the folder `dir`.
pub fn build(dir: &Path) -> Result<System> {
    if !packages::have_apt() {
        bail!("This system has no apt, which is needed to build a Debian.");
    }
    if !packages::has_program("mmdebstrap") {
        packages::install(&["mmdebstrap"])?;
    }
    let system =
        System { disk: dir.join("system"), kernel: dir.join("vmlinuz"), initrd: dir.join("initrd.img") };
    let folder = tempfile::tempdir()?;
    let tar = folder.path().join("root.tar");
    let (sources, suite) = sources()?;
    let list = folder.path().join("sources.list");
    fs::write(&list, sources)?;
    progress::step(&format!("building a Debian {suite} from packages, which takes some minutes"), || {
        let hooks = HOOKS.map(|hook| format!("--customize-hook={hook}"));
        let shell = Shell::new()?;
        let made = cmd!(
            shell,
            "mmdebstrap --variant=minbase --include={PACKAGES} --format=tar {hooks...} {suite} {tar} {list}"
        );
        let output = made.quiet().ignore_status().output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with("E:")).collect();
        ensure!(output.status.success(), "mmdebstrap failed: {}", errors.join(" "));
        take(&tar, "./boot/vmlinuz-*", &system.kernel)?;
        take(&tar, "./boot/initrd.img-*", &system.initrd)?;
        file_system(&tar, &folder.path().join("root"), &system.disk)
    })?;
    Ok(system)
}

/// Returns the lines of a sources.list with this machine's Debian sources, and the name of their suite.
fn sources() -> Result<(String, String)> {
    let shell = Shell::new()?;
    let format = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)";
    let filters = ["Created-By: Packages", "Origin: Debian"];
    let lines = cmd!(shell, "apt-get indextargets --format {format} {filters...}").quiet().read()?;
    let mut lines: Vec<_> = lines.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    // The suite itself has the shortest name, since its updates are named after it.
    let suites = lines.iter().filter_map(|line| line.split(' ').nth(2));
    let suite = suites
        .min_by_key(|suite| suite.len())
        .context("apt has no Debian sources here, so none can be built")?;
    Ok((lines.join("\n") + "\n", suite.to_owned()))
}

/// Extracts the file whose name matches `pattern` from the archive to `to`.
fn take(tar: &Path, pattern: &str, to: &Path) -> Result<()> {
    let mut take = Command::new("tar");
    take.arg("--extract").arg("--file").arg(tar).args(["--to-stdout", "--wildcards", pattern]);
    let status = take.stdout(File::create(to)?).stderr(Stdio::null()).status()?;
    ensure!(status.success() && fs::metadata(to)?.len() > 0, "the Debian system has no {pattern}");
    Ok(())
}

/// Makes a disk with a file system that has the content of the archive. Without root's rights this is done in a user
/// namespace of mmdebstrap's, where files can have any owner.
fn file_system(tar: &Path, root: &Path, disk: &Path) -> Result<()> {
    const SCRIPT: &str = "mkdir \"$2\" && tar --extract --file=\"$1\" --directory=\"$2\" && \
        truncate -s 0 \"$3\" && mke2fs -q -t ext4 -L \"$4\" -d \"$2\" \"$3\" \"$5\" && rm -r \"$2\"";
    let mut make = if rustix::process::geteuid().is_root() {
        Command::new("sh")
    } else {
        let mut helper = Command::new("mmdebstrap");
        helper.args(["--unshare-helper", "sh"]);
        helper
    };
    make.args(["-c", SCRIPT, "sh"]).arg(tar).arg(root).arg(disk).args([LABEL, SIZE]);
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = make.env("PATH", path).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "mke2fs failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
