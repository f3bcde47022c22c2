//! Uses devices with DMA, which are disks and network cards, bare and under Vidar, in a Linux that has the modules for
//! them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::lane::Lane;
use super::report::Report;
use super::{Tools, test_dir};
use crate::console::{ANSWER, BOOT, Console, PROMPT};
use crate::grub::{self, Menu};
use crate::iso::{self, Recipe};
use crate::machine::disk::{Bus, Disk, Format};
use crate::machine::{Network, RunningMachine, Spec};
use crate::manifest::{self, Initrd};
use crate::modules;

/// The modules for the disks and the cards. Linux requests some of them by a function, such as a checksum, and not by a
/// name.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "e1000",
    "ahci",
    "sd_mod",
    "crc32c_generic",
    "crct10dif_generic",
    "ext4",
];

type Step = fn(&mut BootedGuest) -> Result<()>;

/// The steps in their order: the last part of each test's name, and the function that does it.
const STEPS: &[(&str, Step)] = &[
    ("boot", boot),
    ("modules", insert_modules),
    ("virtio-blk", |guest| write_and_read(guest, "vda")),
    ("ahci", |guest| write_and_read(guest, "sda")),
    ("ext4", file_system),
    ("virtio-net", |guest| ping(guest, "virtio_net")),
    ("e1000", |guest| ping(guest, "e1000")),
    ("messages", messages),
    ("poweroff", power_off),
    ("disks", disks),
];

/// The number of bytes that are written to each disk.
const WRITTEN: u64 = 256 << 20;
/// The number of bytes of random data, which are repeated to fill a disk. With this number no two blocks begin with the
/// same bytes.
const RANDOM: u64 = 17_825_791;
/// The size of the file system's disk in bytes.
const FILE_SYSTEM: u64 = 64 << 20;

/// A pattern of kernel messages about devices that do not do what they should, and about corrupted memory.
const COMPLAINTS: &str = "BUG:|WARNING: CPU|Oops|swiotlb|I/O error|DMA|timeout|EXT4-fs error|hung";

/// A machine with its guest.
struct BootedGuest {
    under_vidar: bool,
    running: RunningMachine,
    console: Console,
    dir: PathBuf,
    /// The checksum of the data that is written to the disks.
    sum: Option<String>,
}

/// Returns the names of the tests.
pub fn names(lane: Lane, under_vidar: bool) -> Vec<String> {
    let side = if under_vidar { "vidar" } else { "bare" };
    STEPS.iter().map(|(step, _)| lane.test(&format!("devices/{side}/{step}"))).collect()
}

/// Takes the steps in a machine with three disks and two cards, up to the first that fails.
pub fn all(lane: Lane, under_vidar: bool, tools: &Tools, report: &Report) -> Result<()> {
    let mut begun = Instant::now();
    let mut guest = start(lane, under_vidar, tools)?;
    let log = guest.dir.join("serial.log");
    let mut failed = false;
    for ((_, step), name) in STEPS.iter().zip(names(lane, under_vidar)) {
        let result = if failed { Err(anyhow::anyhow!("not reached")) } else { step(&mut guest) };
        let shown = if failed { None } else { Some(log.as_path()) };
        failed |= result.is_err();
        report.result(&name, begun, result, shown);
        begun = Instant::now();
    }
    Ok(())
}

fn start(lane: Lane, under_vidar: bool, tools: &Tools) -> Result<BootedGuest> {
    let dir = test_dir(&lane.folder(if under_vidar { "devices-vidar" } else { "devices-bare" }))?;
    let mut guest = manifest::load()?.into_iter().nth(1).context("the manifest names no second guest")?;
    guest.initrds.push(Initrd::File(modules::archive(&guest, MODULES)?));
    let default = if under_vidar { guest.name.clone() } else { grub::bare(&guest.name) };
    let recipe = Recipe {
        guests: vec![guest],
        menu: Menu { default: Some(default), timeout: 0, ..Menu::default() },
        hypervisor: Some(tools.hypervisor.clone()),
        vidarctl: Some(tools.vidarctl.clone()),
    };
    let iso = dir.join("vidar.iso");
    iso::make(&recipe, &iso)?;
    let disk = |name: &str, bus, size: u64| -> Result<Disk> {
        let path = dir.join(name);
        File::create(&path)?.set_len(size)?;
        Ok(Disk { path, format: Format::Raw, bus })
    };
    let disks = vec![
        disk("virtio", Bus::Virtio, WRITTEN)?,
        disk("ahci", Bus::Ahci, WRITTEN)?,
        disk("ext4", Bus::Virtio, FILE_SYSTEM)?,
    ];
    tool("mke2fs", &["-q", "-t", "ext4"], &dir.join("ext4"))?;
    let spec = Spec {
        dir: dir.clone(),
        iso,
        memory: 1536,
        disks,
        networks: vec![Network::Virtio, Network::E1000],
        verbose: true,
        ..Spec::default()
    };
    let running = lane.machine().start(&spec)?;
    let console = Console::new(running.serial()?, &dir.join("serial.log"))?;
    Ok(BootedGuest { under_vidar, running, console, dir, sum: None })
}

/// Runs a tool of the host on `file`, and returns its output.
fn tool(name: &str, arguments: &[&str], file: &Path) -> Result<String> {
    // Some distributions keep these tools in folders that are only on root's path.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = Command::new(name);
    command.args(arguments).arg(file).env("PATH", path).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    ensure!(output.status.success(), "{name} says: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn boot(guest: &mut BootedGuest) -> Result<()> {
    guest.console.expect("Linux version", BOOT)?;
    guest.console.expect(PROMPT, BOOT)?;
    let under_vidar = guest.console.run("vidarctl status").is_ok();
    ensure!(under_vidar == guest.under_vidar, "Vidar is {}running", if under_vidar { "" } else { "not " });
    Ok(())
}

fn insert_modules(guest: &mut BootedGuest) -> Result<()> {
    guest.console.run(&modules::insert())?;
    for wanted in
        ["/sys/block/vda", "/sys/block/vdb", "/sys/block/sda", "/sys/class/net/eth0", "/sys/class/net/eth1"]
    {
        // Linux looks for disks and cards in the background.
        guest.console.run(&format!(
            "for i in 1 2 3 4 5 6 7 8 9; do [ -e {wanted} ] || sleep 1; done; [ -e {wanted} ]"
        ))?;
    }
    Ok(())
}

/// Writes to all of a disk, and reads it back from the disk itself.
fn write_and_read(guest: &mut BootedGuest, disk: &str) -> Result<()> {
    if guest.sum.is_none() {
        guest.console.run(&format!("head -c {RANDOM} /dev/urandom >/random"))?;
        let times = WRITTEN.div_ceil(RANDOM);
        guest.console.run(&format!("for i in $(seq {times}); do cat /random; done >/data"))?;
        guest.console.run(&format!("truncate -s {WRITTEN} /data"))?;
        guest.sum = Some(sum(&guest.console.run("md5sum /data")?)?);
    }
    guest
        .console
        .run(&format!("dd if=/data of=/dev/{disk} bs=1M && sync && echo 3 >/proc/sys/vm/drop_caches"))?;
    let before = sectors_read(guest, disk)?;
    let read = sum(&guest.console.run(&format!("md5sum /dev/{disk}"))?)?;
    let from_disk = (sectors_read(guest, disk)? - before) * 512;
    ensure!(from_disk >= WRITTEN, "only {from_disk} bytes were read from the disk");
    ensure!(
        Some(&read) == guest.sum.as_ref(),
        "what was read has the checksum {read}, and what was written has {:?}",
        guest.sum
    );
    Ok(())
}

/// Returns the number of sectors that Linux has read from the disk.
fn sectors_read(guest: &mut BootedGuest, disk: &str) -> Result<u64> {
    let stat = guest.console.run(&format!("cat /sys/block/{disk}/stat"))?;
    let sectors = stat.split_whitespace().nth(2).and_then(|word| word.parse().ok());
    sectors.with_context(|| format!("{disk} has no statistics"))
}

/// Returns the checksum that a line of md5sum begins with.
fn sum(line: &str) -> Result<String> {
    let sum = line.split_whitespace().next().unwrap_or_default();
    ensure!(
        sum.len() == 32 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{line:?} does not begin with a checksum"
    );
    Ok(sum.to_owned())
}

/// Mounts the file system, writes a file, mounts the file system again, and reads the file.
fn file_system(guest: &mut BootedGuest) -> Result<()> {
    guest
        .console
        .run("mkdir -p /mnt && mount -t ext4 /dev/vdb /mnt && cp /random /mnt/file && umount /mnt")?;
    let of = |line: String| sum(&line);
    let wanted = of(guest.console.run("md5sum /random")?)?;
    guest.console.run("echo 3 >/proc/sys/vm/drop_caches; mount -t ext4 /dev/vdb /mnt")?;
    let read = of(guest.console.run("md5sum /mnt/file")?)?;
    guest.console.run("umount /mnt")?;
    ensure!(read == wanted, "the file has the checksum {read}, and what was written has {wanted}");
    Ok(())
}

/// Reaches QEMU's gateway through the card of `driver`, with the other card down.
fn ping(guest: &mut BootedGuest, driver: &str) -> Result<()> {
    let find =
        "for d in /sys/class/net/eth*; do echo $(basename $d) $(basename $(readlink $d/device/driver)); done";
    let cards = guest.console.run(find)?;
    // The card's device on the virtio bus has the driver virtio_net. Its PCI device has another driver.
    let card = cards.lines().filter_map(|line| line.split_once(' ')).find(|(_, other)| *other == driver);
    let Some((card, _)) = card else { bail!("no card is driven by {driver}: {cards}") };
    guest.console.run(&format!("ip addr add 10.0.2.15/24 dev {card} && ip link set {card} up"))?;
    let said = guest.console.run("ping -c 3 -W 20 10.0.2.2")?;
    ensure!(said.contains("3 packets transmitted, 3 packets received"), "ping says: {said}");
    guest.console.run(&format!("ip link set {card} down && ip addr flush dev {card}"))?;
    Ok(())
}

/// Looks for complaints among the kernel's messages.
fn messages(guest: &mut BootedGuest) -> Result<()> {
    let said = guest.console.run(&format!("dmesg -r | grep '^<[0-4]>' | grep -E '{COMPLAINTS}' || true"))?;
    ensure!(said.trim().is_empty(), "the kernel says: {said}");
    Ok(())
}

fn power_off(guest: &mut BootedGuest) -> Result<()> {
    guest.console.type_line("poweroff")?;
    guest.console.expect("Power down", ANSWER)?;
    ensure!(guest.running.ended(ANSWER)? == Some(true), "the machine is still on");
    Ok(())
}

/// Checks on the host that the files of the disks contain what the guest has written.
fn disks(guest: &mut BootedGuest) -> Result<()> {
    for name in ["virtio", "ahci"] {
        let found = sum(&tool("md5sum", &[], &guest.dir.join(name))?)?;
        ensure!(
            Some(&found) == guest.sum.as_ref(),
            "the disk {name} has the checksum {found}, and what was written has {:?}",
            guest.sum
        );
        fs::remove_file(guest.dir.join(name))?;
    }
    tool("e2fsck", &["-f", "-n"], &guest.dir.join("ext4"))?;
    Ok(())
}
