//! Builds a whole Debian on a disk from packages, with its own kernel, initrd and systemd.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::manifest::{Guest, Initrd, Kernel};
use crate::{packages, paths, progress};

/// The packages that are installed in addition to those of every Debian.
const PACKAGES: &str = "linux-image-amd64,initramfs-tools,systemd-sysv,udev,kmod,iproute2,iputils-ping";
/// The label of the file system, by which the kernel's command line names it.
const LABEL: &str = "vidar-debian";
/// The size of the disk, which is a sparse file.
const SIZE: &str = "3G";
/// The content of the note beside the disk. If the note has another content, the disk is built again.
const RECIPE: &str = "2\n";

/// A Debian system.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// The disk. Guests write to it, so each uses a copy.
    pub disk: PathBuf,
    /// The kernel and the initrd, with the command line that Debian's own menu would have.
    pub guest: Guest,
}

/// Returns the Debian system, which is built if necessary. It contains `vidarctl`.
pub fn get(vidarctl: &Path) -> Result<Distribution> {
    let home = paths::ensure(paths::guests().join("debian"))?;
    let [disk, kernel, initrd, note] = ["disk", "vmlinuz", "initrd", "recipe"].map(|name| home.join(name));
    if !fs::read_to_string(&note).is_ok_and(|old| old == RECIPE) {
        build(vidarctl, &disk, &kernel, &initrd)?;
        fs::write(&note, RECIPE)?;
    }
    let guest = Guest {
        drivers: Vec::new(),
        name: "debian".to_owned(),
        title: "Debian".to_owned(),
        kernel: Kernel::File(kernel),
        initrds: vec![Initrd::File(initrd)],
        cmdline: format!("root=LABEL={LABEL} ro console=ttyS0,115200"),
    };
    Ok(Distribution { disk, guest })
}

fn build(vidarctl: &Path, disk: &Path, kernel: &Path, initrd: &Path) -> Result<()> {
    if !packages::have_apt() {
        bail!("This system has no apt, which is needed to build a Debian.");
    }
    if !packages::has_program("mmdebstrap") {
        packages::install(&["mmdebstrap"])?;
    }
    let dir = tempfile::tempdir()?;
    let tar = dir.path().join("root.tar");
    let (sources, suite) = sources()?;
    let list = dir.path().join("sources.list");
    fs::write(&list, sources)?;
    progress::step(&format!("building a Debian {suite} from packages, which takes some minutes"), || {
        let upload = format!("upload '{}' /usr/local/bin/vidarctl", vidarctl.display());
        let hooks = [
            upload.as_str(),
            "chroot \"$1\" chmod 755 /usr/local/bin/vidarctl",
            // The machine belongs to the user and can only be reached by its serial line, so root needs no password.
            "chroot \"$1\" passwd --delete root",
            // These timers fire at random times and use the network, so that no two boots would be alike.
            "chroot \"$1\" systemctl mask apt-daily.timer apt-daily-upgrade.timer",
            "echo vidar-debian >\"$1/etc/hostname\"",
        ];
        let hooks = hooks.map(|hook| format!("--customize-hook={hook}"));
        let shell = Shell::new()?;
        let made = cmd!(
            shell,
            "mmdebstrap --variant=minbase --include={PACKAGES} --format=tar {hooks...} {suite} {tar} {list}"
        );
        let output = made.quiet().ignore_status().output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with("E:")).collect();
        ensure!(output.status.success(), "mmdebstrap failed: {}", errors.join(" "));
        take(&tar, "./boot/vmlinuz-*", kernel)?;
        take(&tar, "./boot/initrd.img-*", initrd)?;
        file_system(&tar, &dir.path().join("root"), disk)
    })
}

/// The lines of a sources.list with this machine's Debian sources, and the name of their suite.
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
