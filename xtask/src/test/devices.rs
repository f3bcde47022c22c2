//! Uses devices with DMA, which are disks and network cards, in a Linux that has the modules for them: bare, under
//! Vidar, and behind an IOMMU with which Vidar guards its memory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::lane::Lane;
use super::report::Report;
use super::{LinuxMachine, Tools, test_dir};
use crate::console::{ANSWER, BOOT, Console, PROMPT};
use crate::machine::disk::{Bus, Disk, Format};
use crate::machine::{Iommu, Network, RunningMachine, Spec};
use crate::manifest::{self};
use crate::modules;

/// The modules for the disks and the cards. Linux requests some of them by a function, such as a checksum, and not by a
/// name.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "e1000",
    "ahci",
    "nvme",
    "xhci_pci",
    "usb_storage",
    "sd_mod",
    "crc32c_generic",
    "crct10dif_generic",
    "ext4",
];

type Step = fn(&mut BootedGuest) -> Result<()>;

/// What the guest runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The bare machine.
    Bare,
    /// Vidar.
    Vidar,
    /// Vidar on a machine with an IOMMU, with the option `dma=guard`.
    Guarded,
}

impl Side {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bare, Self::Vidar, Self::Guarded];

    const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Vidar => "vidar",
            Self::Guarded => "guarded",
        }
    }

    const fn steps(self) -> &'static [(&'static str, Step)] {
        if matches!(self, Self::Guarded) { GUARDED } else { STEPS }
    }

    /// Returns the disks that are written to: the names of their files, and how they are attached.
    const fn disks(self) -> &'static [(&'static str, Bus)] {
        match self {
            Self::Guarded => &[("ahci", Bus::Ahci), ("nvme", Bus::Nvme), ("xhci", Bus::Usb)],
            _ => &[("virtio", Bus::Virtio), ("ahci", Bus::Ahci)],
        }
    }

    /// Returns the number of bytes that are written to each disk.
    const fn written(self) -> u64 {
        if matches!(self, Self::Guarded) { WRITTEN / 4 } else { WRITTEN }
    }
}

/// The steps behind an IOMMU, which virtio passes by.
const GUARDED: &[(&str, Step)] = &[
    ("boot", boot),
    ("iommu", iommu),
    ("modules", insert_modules),
    ("ahci", |guest| write_and_read(guest, "*/ata*")),
    ("nvme", |guest| write_and_read(guest, "*/nvme*")),
    ("xhci", |guest| write_and_read(guest, "*/usb*")),
    ("e1000", |guest| ping(guest, "e1000")),
    ("messages", messages),
    ("refused", nothing_refused),
    ("poweroff", power_off),
    ("disks", disks),
];

/// The steps in their order: the last part of each test's name, and the function that does it.
const STEPS: &[(&str, Step)] = &[
    ("boot", boot),
    ("modules", insert_modules),
    ("virtio-blk", |guest| write_and_read(guest, "*/vda")),
    ("ahci", |guest| write_and_read(guest, "*/ata*")),
    ("ext4", file_system),
    ("virtio-net", |guest| ping(guest, "virtio_net")),
    ("e1000", |guest| ping(guest, "e1000")),
    ("messages", messages),
    ("poweroff", power_off),
    ("disks", disks),
];

/// The number of bytes that are written to each disk. Behind an IOMMU, a quarter of them is.
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
    side: Side,
    running: RunningMachine,
    console: Console,
    dir: PathBuf,
    /// The checksum of the data that is written to the disks.
    sum: Option<String>,
}

/// Returns the names of the tests.
pub fn names(lane: Lane, side: Side) -> Vec<String> {
    let name = |(step, _): &(&str, Step)| lane.test(&format!("devices/{}/{step}", side.name()));
    side.steps().iter().map(name).collect()
}

/// Takes the steps in a machine with three disks and one or two cards, up to the first that fails.
pub fn all(lane: Lane, side: Side, tools: &Tools, report: &Report) -> Result<()> {
    let begun = Instant::now();
    let mut guest = start(lane, side, tools)?;
    let log = guest.dir.join("serial.log");
    let steps = names(lane, side).into_iter().zip(side.steps().iter().map(|(_, step)| *step));
    report.steps(&mut guest, steps, begun, Some(&log));
    Ok(())
}

fn start(lane: Lane, side: Side, tools: &Tools) -> Result<BootedGuest> {
    let dir = test_dir(&lane.folder(&format!("devices-{}", side.name())))?;
    let guest = manifest::load()?.into_iter().nth(1).context("the manifest names no second guest")?;
    let mut machine = LinuxMachine::with(lane, dir.clone(), guest);
    let modules = modules::archive(machine.guest(), MODULES)?;
    machine.add_initrd(modules);
    machine.bare_unless(side != Side::Bare);
    if side == Side::Guarded {
        "dma=guard".clone_into(&mut machine.menu.options);
    }
    let disk = |name: &str, bus, size: u64| -> Result<Disk> {
        let path = dir.join(name);
        File::create(&path)?.set_len(size)?;
        Ok(Disk { path, format: Format::Raw, bus })
    };
    let written = side.disks().iter().map(|(name, bus)| disk(name, *bus, side.written()));
    let mut disks = written.collect::<Result<Vec<_>>>()?;
    if side != Side::Guarded {
        disks.push(disk("ext4", Bus::Virtio, FILE_SYSTEM)?);
        tool("mke2fs", &["-q", "-t", "ext4"], &dir.join("ext4"))?;
    }
    machine.spec = Spec {
        memory: 1536,
        disks,
        networks: if side == Side::Guarded {
            vec![Network::E1000]
        } else {
            vec![Network::Virtio, Network::E1000]
        },
        attacker: (side == Side::Guarded).then_some(Iommu::Intel),
        ..machine.spec
    };
    let (running, console) = machine.start(tools)?;
    Ok(BootedGuest { side, running, console, dir, sum: None })
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
    ensure!(
        under_vidar == (guest.side != Side::Bare),
        "Vidar is {}running",
        if under_vidar { "" } else { "not " }
    );
    Ok(())
}

/// Checks that Linux uses the IOMMU for interrupts alone, and that Vidar has it for the rest. Without KVM, the IOMMU of
/// QEMU 7.2 does not reach the APIC IDs of x2APIC mode, and that of QEMU 10 does.
fn iommu(guest: &mut BootedGuest) -> Result<()> {
    let said = guest.console.run("dmesg")?;
    for words in
        ["No supported address widths. Not attempting DMA translation", "DMAR-IR: Enabled IRQ remapping in x"]
    {
        ensure!(said.contains(words), "the kernel does not say {words:?}");
    }
    let groups = guest.console.run("ls /sys/kernel/iommu_groups 2>/dev/null | wc -l")?;
    ensure!(groups.trim() == "0", "Linux has {groups} groups of devices");
    let interrupts = guest.console.run("cat /proc/interrupts")?;
    ensure!(interrupts.contains("IR-IO-APIC"), "interrupts are not remapped: {interrupts}");
    let status = guest.console.run("vidarctl status")?;
    ensure!(status.contains("DMA      guarded, by VT-d"), "vidarctl says: {status}");
    Ok(())
}

/// Checks that no device of Linux's has been refused anything.
fn nothing_refused(guest: &mut BootedGuest) -> Result<()> {
    let said = guest.console.run("vidarctl dma")?;
    ensure!(said.contains("IOMMUs   1") && said.contains("refused  0"), "vidarctl says: {said}");
    Ok(())
}

fn insert_modules(guest: &mut BootedGuest) -> Result<()> {
    guest.console.run(&modules::insert())?;
    let wanted: &[&str] = if guest.side == Side::Guarded {
        &["block/sda", "block/sdb", "block/nvme0n1", "class/net/eth0"]
    } else {
        &["block/vda", "block/vdb", "block/sda", "class/net/eth0", "class/net/eth1"]
    };
    for wanted in wanted.iter().map(|wanted| format!("/sys/{wanted}")) {
        // Linux looks for disks and cards in the background.
        guest.console.run(&format!(
            "for i in 1 2 3 4 5 6 7 8 9; do [ -e {wanted} ] || sleep 1; done; [ -e {wanted} ]"
        ))?;
    }
    Ok(())
}

/// Writes to all of the disk whose path in `/sys` matches a pattern of the shell, and reads it back from the disk
/// itself.
fn write_and_read(guest: &mut BootedGuest, path: &str) -> Result<()> {
    let find = format!("for d in /sys/block/*; do case $(readlink $d) in {path}) basename $d;; esac; done");
    // The CD is at SATA as well.
    let found = guest.console.run(&find)?;
    let disk = found.split_whitespace().find(|name| !name.starts_with("sr"));
    let disk = disk.with_context(|| format!("no disk is at {path}"))?;
    let written = guest.side.written();
    if guest.sum.is_none() {
        guest.console.run(&format!("head -c {RANDOM} /dev/urandom >/random"))?;
        let times = written.div_ceil(RANDOM);
        guest.console.run(&format!("for i in $(seq {times}); do cat /random; done >/data"))?;
        guest.console.run(&format!("truncate -s {written} /data"))?;
        guest.sum = Some(sum(&guest.console.run("md5sum /data")?)?);
    }
    guest
        .console
        .run(&format!("dd if=/data of=/dev/{disk} bs=1M && sync && echo 3 >/proc/sys/vm/drop_caches"))?;
    let before = sectors_read(guest, disk)?;
    let read = sum(&guest.console.run(&format!("md5sum /dev/{disk}"))?)?;
    let from_disk = (sectors_read(guest, disk)? - before) * 512;
    ensure!(from_disk >= written, "only {from_disk} bytes were read from the disk");
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
    for (name, _) in guest.side.disks() {
        let found = sum(&tool("md5sum", &[], &guest.dir.join(name))?)?;
        ensure!(
            Some(&found) == guest.sum.as_ref(),
            "the disk {name} has the checksum {found}, and what was written has {:?}",
            guest.sum
        );
        fs::remove_file(guest.dir.join(name))?;
    }
    if guest.side != Side::Guarded {
        tool("e2fsck", &["-f", "-n"], &guest.dir.join("ext4"))?;
    }
    Ok(())
}
