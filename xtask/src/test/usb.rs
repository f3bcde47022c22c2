//! Tests `cargo xtask usb` as a process of its own, with files and, where there are any, with loop devices.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::OFlags;
use rustix::thread::{CapabilitySet, capabilities};

use super::lane::Lane;
use super::probes::UNDER_VIDAR;
use super::report::Report;
use super::small::{self, Small};
use super::{Tools, folder};
use crate::console::{ANSWER, BOOT};

/// The folder of the tests' files.
const FOLDER: &str = "usb";

/// The size of the media, which is larger than the ISO.
const SIZE: u64 = 64 << 20;
/// The last bytes of a medium, which are after the ISO and must not change.
const MARK: &[u8] = b"the last bytes";

type Check = fn(&Place) -> Result<()>;

/// The tests that only need files.
const WITH_FILES: [(&str, Check); 4] = [
    ("usb/one-partition-is-active", one_partition_is_active),
    ("usb/asks-before-it-writes", asks_before_it_writes),
    ("usb/refuses-what-is-no-stick", refuses_what_is_no_stick),
    ("usb/written-file-boots", written_file_boots),
];
/// The tests that need loop devices.
const WITH_A_LOOP_DEVICE: [(&str, Check); 3] = [
    ("usb/loop-device", loop_device),
    ("usb/refuses-a-disk-in-use", refuses_a_disk_in_use),
    ("usb/refuses-a-bad-disk", refuses_a_bad_disk),
];

/// Returns the names of the tests.
pub fn names() -> Vec<String> {
    WITH_FILES.iter().chain(&WITH_A_LOOP_DEVICE).map(|(name, _)| (*name).to_owned()).collect()
}

/// Runs all tests, with one ISO.
pub fn all(tools: &Tools, report: &Report) -> Result<()> {
    let begun = Instant::now();
    let small = Small {
        name: FOLDER.to_owned(),
        lane: Lane::Svm,
        kernel: tools.probe()?.to_vec(),
        cmdline: "probe=cpuid".to_owned(),
        memory: 256,
        disk: true,
        ..Small::default()
    };
    let place = match small.iso(tools) {
        Ok(iso) => Place { dir: folder(FOLDER), iso, small },
        Err(error) => {
            names().iter().for_each(|name| report.fail(name, begun.elapsed(), &error, None));
            return Ok(());
        }
    };
    for (name, check) in WITH_FILES {
        report.result(name, Instant::now(), check(&place), Some(&small::log(FOLDER)));
    }
    let no_loop = loop_devices(&place).err();
    for (name, check) in WITH_A_LOOP_DEVICE {
        match &no_loop {
            Some(why) => report.skip(name, &format!("loop devices cannot be used here: {why:#}")),
            None => report.result(name, Instant::now(), check(&place), None),
        }
    }
    Ok(())
}

/// Returns an error if there are no loop devices, or if this process may not do with them what the tests do.
fn loop_devices(place: &Place) -> Result<()> {
    let may = capabilities(None)?.effective.contains(CapabilitySet::SYS_ADMIN);
    ensure!(may, "this user or container may not mount and make partitions (CAP_SYS_ADMIN is missing)");
    Loop::of(&place.stick("loop")?, &[]).map(drop)
}

/// The tests' folder, the ISO that they write, and the guest on it.
struct Place {
    dir: PathBuf,
    iso: PathBuf,
    small: Small,
}

impl Place {
    /// Makes a file that stands for a stick, with [`MARK`] at its end.
    fn stick(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        let mut content = vec![0xa5; usize::try_from(SIZE)? - MARK.len()];
        content.extend(MARK);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// Runs `xtask usb` for `target` with `answer` as its input. Returns true if it succeeded, and its output.
    fn usb(&self, target: &Path, options: &[&str], answer: &str) -> Result<(bool, String)> {
        self.run(Command::new(std::env::current_exe()?), target, options, answer)
    }

    fn run(
        &self,
        mut xtask: Command,
        target: &Path,
        options: &[&str],
        answer: &str,
    ) -> Result<(bool, String)> {
        xtask.arg("usb").arg("--iso").arg(&self.iso).args(options).arg(target);
        let mut child = xtask.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // Writing fails if the process has refused without reading the answer.
        let _ = child.stdin.take().context("stdin is piped")?.write_all(answer.as_bytes());
        let Output { status, stdout, stderr } = child.wait_with_output()?;
        Ok((status.success(), String::from_utf8_lossy(&[stderr, stdout].concat()).into_owned()))
    }

    /// Runs `xtask usb` with `options`, and checks that it refuses with `sentence` in its output.
    fn refused(&self, target: &Path, options: &[&str], sentence: &str) -> Result<()> {
        refused(&self.usb(target, options, "")?, sentence)
    }

    /// Checks that the medium begins with the ISO, and that the rest has not changed.
    fn check_content(&self, medium: &Path) -> Result<()> {
        let (iso, mut content) = (fs::read(&self.iso)?, Vec::new());
        File::open(medium)?.read_to_end(&mut content)?;
        ensure!(content.starts_with(&iso), "{} does not begin with the ISO", medium.display());
        let rest = &content[iso.len()..];
        let kept = rest.strip_suffix(MARK).is_some_and(|rest| rest.iter().all(|byte| *byte == 0xa5));
        ensure!(kept && content.len() as u64 == SIZE, "the content after the ISO has changed");
        Ok(())
    }
}

fn refused((well, said): &(bool, String), sentence: &str) -> Result<()> {
    ensure!(
        !well && said.contains(sentence),
        "`xtask usb` should have refused with \"{sentence}\", but it said: {said}"
    );
    Ok(())
}

/// Without the right answer nothing is written, and with it the whole ISO is.
fn asks_before_it_writes(place: &Place) -> Result<()> {
    let stick = place.stick("asked")?;
    let before = fs::read(&stick)?;
    for (answer, sentence) in [("", "there was no answer"), ("yes\n", "the answer was not \"asked\"")] {
        refused(&place.usb(&stick, &[], answer)?, sentence)?;
        ensure!(fs::read(&stick)? == before, "after the answer {answer:?}, something was written");
    }
    let (well, said) = place.usb(&stick, &[], "asked\n")?;
    ensure!(well && said.contains("written and read back"), "`xtask usb` said: {said}");
    place.check_content(&stick)?;
    // An empty file grows to the size of the ISO.
    let new = place.dir.join("new");
    File::create(&new)?;
    let (well, said) = place.usb(&new, &["--yes"], "")?;
    ensure!(well && fs::read(&new)? == fs::read(&place.iso)?, "the new file is not the ISO: {said}");
    Ok(())
}

/// A missing file, a folder, another device, the ISO itself, a file that is too small, and one that is not the user's
/// are refused.
fn refuses_what_is_no_stick(place: &Place) -> Result<()> {
    let none = place.dir.join("none");
    place.refused(&none, &["--yes"], "`lsblk` lists the disks")?;
    ensure!(!none.exists(), "the missing file was made");
    place.refused(&place.dir, &["--yes"], "is a folder")?;
    place.refused(Path::new("/dev/null"), &["--yes"], "is neither a disk nor a file")?;
    place.refused(&place.iso, &["--yes"], "the ISO cannot be written to itself")?;
    let small = place.dir.join("small");
    fs::write(&small, "x")?;
    place.refused(&small, &["--yes"], "name a larger one")?;
    ensure!(fs::read(&small)? == b"x", "the file that is too small was written to");

    let foreign = place.stick("foreign")?;
    fs::set_permissions(&foreign, Permissions::from_mode(0o444))?;
    let xtask = std::env::current_exe()?;
    let mut command = Command::new(&xtask);
    if rustix::process::geteuid().is_root() {
        // Without its capabilities, root may not write to this file.
        command = Command::new("setpriv");
        command.args(["--inh-caps=-all", "--bounding-set=-all"]).arg(&xtask);
    }
    let said = place.run(command, &foreign, &["--yes"], "")?;
    refused(&said, "is not yours to write to: do `sudo ")
}

/// Old BIOSes need an active partition, and UEFI needs the one that protects the GPT to be inactive.
fn one_partition_is_active(place: &Place) -> Result<()> {
    let iso = fs::read(&place.iso)?;
    let found = partitions(iso.get(..512).context("the ISO has no first block")?);
    let active: Vec<_> = found.iter().filter(|(active, _)| *active == 0x80).collect();
    ensure!(active.len() == 1, "the MBR has the partitions {found:x?}");
    ensure!(
        found.contains(&(0, 0xee)),
        "no inactive partition protects the GPT; the MBR has the partitions {found:x?}"
    );
    Ok(())
}

/// For each partition of an MBR, the byte that says whether it is active, and its type.
fn partitions(mbr: &[u8]) -> Vec<(u8, u8)> {
    mbr[446..510].chunks(16).map(|entry| (entry[0], entry[4])).collect()
}

/// The file that was written boots as a disk.
fn written_file_boots(place: &Place) -> Result<()> {
    let stick = place.stick("stick")?;
    let (well, said) = place.usb(&stick, &["--yes"], "")?;
    ensure!(well, "`xtask usb` said: {said}");
    place.check_content(&stick)?;
    let mut booted = place.small.boot_from(stick)?;
    booted.console.expect("the machine is the guest's now", BOOT)?;
    booted.console.expect("probe cpuid: ", BOOT)?;
    let said = booted.console.expect("\r\n", ANSWER)?;
    ensure!(said.contains(UNDER_VIDAR), "the guest is not under Vidar: {said}");
    Ok(())
}

/// A loop device is accepted only with --any-disk, and a partition on it never.
fn loop_device(place: &Place) -> Result<()> {
    let file = place.stick("loop")?;
    let device = Loop::of(&file, &["--partscan"])?;
    place.refused(&device.path, &["--yes"], "is neither at USB nor removable")?;
    let name = device.name();
    refused(&place.usb(&device.path, &["--any-disk"], "yes\n")?, &format!("the answer was not \"{name}\""))?;
    let (well, said) = place.usb(&device.path, &["--any-disk"], &format!("{name}\n"))?;
    ensure!(
        well && said.contains(&format!("{}: 64.0 MiB", device.path.display())),
        "`xtask usb` said: {said}"
    );
    place.check_content(&device.path)?;

    let partition = device.partition()?;
    let whole =
        format!("is a partition, and the ISO needs the whole disk: that is {}", device.path.display());
    place.refused(&partition, &["--any-disk", "--yes"], &whole)?;
    drop(device);
    place.check_content(&file)
}

/// A disk that a program has opened exclusively is refused, and so is one with a mounted file system.
fn refuses_a_disk_in_use(place: &Place) -> Result<()> {
    let file = place.stick("used")?;
    let device = Loop::of(&file, &[])?;
    let held = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::EXCL.bits().cast_signed())
        .open(&device.path)?;
    place.refused(&device.path, &["--any-disk", "--yes"], "is in use by a file system")?;
    drop(held);

    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut make = Command::new("mke2fs");
    done(make.env("PATH", path).args(["-q", "-F", "-t", "ext2"]).arg(&device.path))?;
    let before = fs::read(&device.path)?;
    let mounted = Mount::of(&device.path, &place.dir.join("mounted"))?;
    let sentence = format!("({} is mounted at {})", device.path.display(), mounted.0.display());
    place.refused(&device.path, &["--any-disk", "--yes"], &sentence)?;
    drop(mounted);
    ensure!(fs::read(&device.path)? == before, "the disk in use was written to");
    Ok(())
}

/// A disk that is read-only is refused, and so is one that is too small.
fn refuses_a_bad_disk(place: &Place) -> Result<()> {
    let file = place.stick("bad")?;
    let device = Loop::of(&file, &["--read-only"])?;
    place.refused(&device.path, &["--any-disk", "--yes"], "is read-only")?;
    drop(device);
    let device = Loop::of(&file, &["--sizelimit", "1048576"])?;
    place.refused(&device.path, &["--any-disk", "--yes"], "has 1.0 MiB, and the ISO ")?;
    drop(device);
    ensure!(
        fs::read(&file)?.iter().take(SIZE as usize / 2).all(|byte| *byte == 0xa5),
        "one of the bad disks was written to"
    );
    Ok(())
}

/// Runs a command to its end. Returns its output.
fn done(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A loop device over a file. Dropping it detaches the device.
struct Loop {
    path: PathBuf,
}

impl Loop {
    fn of(file: &Path, options: &[&str]) -> Result<Self> {
        let losetup = || losetup(|command| command.args(["--find", "--show"]).args(options).arg(file));
        // A container may have the devices without nodes for them in /dev.
        let path = losetup().or_else(|error| {
            let free = self::losetup(|command| command.arg("--find")).map_err(|_| error)?;
            let number = free.strip_prefix("/dev/loop").context("losetup names no loop device")?;
            done(Command::new("mknod").args([free.as_str(), "b", "7", number]))?;
            losetup()
        })?;
        Ok(Self { path: path.into() })
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns the first partition. If there is no node for it in /dev, it is made.
    fn partition(&self) -> Result<PathBuf> {
        done(Command::new("partx").args(["--update", "--nr", "1"]).arg(&self.path))?;
        let name = format!("{}p1", self.name());
        let number = fs::read_to_string(format!("/sys/block/{}/{name}/dev", self.name()));
        let number = number.context("the kernel finds no partition")?;
        let path = Path::new("/dev").join(name);
        if !path.exists() {
            let (major, minor) = number.trim().split_once(':').context("a device has two numbers")?;
            done(Command::new("mknod").arg(&path).args(["b", major, minor]))?;
        }
        Ok(path)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = losetup(|command| command.arg("--detach").arg(&self.path));
    }
}

fn losetup(arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<String> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = Command::new("losetup");
    done(arguments(command.env("PATH", path)))
}

/// A file system that is mounted read-only, so that mounting does not write to it. Dropping this unmounts it.
struct Mount(PathBuf);

impl Mount {
    fn of(device: &Path, at: &Path) -> Result<Self> {
        fs::create_dir_all(at)?;
        let at = at.canonicalize()?;
        if let Err(error) = done(Command::new("mount").args(["-o", "ro"]).arg(device).arg(&at)) {
            bail!("cannot mount the test's file system: {error:#}");
        }
        Ok(Self(at))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = done(Command::new("umount").arg(&self.0));
    }
}
