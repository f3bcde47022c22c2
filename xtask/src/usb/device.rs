//! Describes a block device and its users as `lsblk` lists them, and decides whether it may be overwritten.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::units::in_units;

/// The columns that lsblk is asked for. The lsblk of every supported Debian has them.
const COLUMNS: &str = "PATH,TYPE,SIZE,RO,RM,TRAN,VENDOR,MODEL,FSTYPE,LABEL,MOUNTPOINT,PKNAME";

/// The mount points of the running system's own file systems.
const OF_THE_SYSTEM: [&str; 7] = ["/", "/boot", "/boot/efi", "/efi", "/usr", "/var", SWAP];
/// What lsblk lists as the mount point of swap.
const SWAP: &str = "[SWAP]";

/// A block device, with its partitions and whatever else is made of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Device {
    /// The path in `/dev`.
    pub path: String,
    /// The size in bytes.
    pub size: u64,
    /// lsblk's name for this kind of device: "disk", "part", "loop", "lvm", ...
    #[serde(rename = "type")]
    kind: String,
    ro: bool,
    /// True if the medium is removable.
    rm: bool,
    /// The bus that the device is attached to: "usb", "sata", ...
    tran: Option<String>,
    vendor: Option<String>,
    model: Option<String>,
    fstype: Option<String>,
    label: Option<String>,
    mountpoint: Option<String>,
    /// For a partition, the name of its disk.
    pkname: Option<String>,
    /// The partitions, and the volumes that are made of them.
    #[serde(default)]
    children: Vec<Device>,
}

#[derive(Deserialize)]
struct Listing {
    blockdevices: Vec<Device>,
}

impl Device {
    /// Asks lsblk about the device `path`.
    pub fn look(path: &Path) -> Result<Self> {
        let mut lsblk = Command::new("lsblk");
        lsblk.args(["--json", "--bytes", "--output", COLUMNS].map(OsStr::new)).arg(path);
        let output = lsblk.output().context("cannot run lsblk; the package util-linux has it")?;
        let (shown, said) = (path.display(), String::from_utf8_lossy(&output.stderr));
        ensure!(said.trim().is_empty(), "lsblk cannot tell what {shown} is: {}", said.trim());
        // A card reader without a card and a loop device without a file end lsblk without a message.
        ensure!(
            output.status.success(),
            "there is nothing in {shown}: put a medium in, or name another disk"
        );
        Self::parse(&output.stdout).with_context(|| format!("lsblk does not know {shown}"))
    }

    fn parse(json: &[u8]) -> Result<Self> {
        let listing: Listing = serde_json::from_slice(json)?;
        listing.blockdevices.into_iter().next().context("it lists no device")
    }

    /// Refuses a device that must not be overwritten. With `any_disk`, a disk that is neither at USB nor removable is
    /// accepted.
    pub fn check(&self, any_disk: bool) -> Result<()> {
        let path = &self.path;
        if let ("part", Some(disk)) = (self.kind.as_str(), &self.pkname) {
            bail!("{path} is a partition, and the ISO needs the whole disk: that is /dev/{disk}");
        }
        ensure!(
            matches!(self.kind.as_str(), "disk" | "loop"),
            "{path} is not a disk but of the kind \"{}\": name a disk (`lsblk` lists them)",
            self.kind
        );
        // The system's own file systems are looked for first, since nobody should be told to unmount them.
        let all = self.all();
        let places = || all.iter().filter_map(|part| Some((&part.path, part.mountpoint.as_deref()?)));
        if let Some((part, place)) = places().find(|(_, place)| OF_THE_SYSTEM.contains(place)) {
            let place = if place == SWAP { "is its swap" } else { &format!("is mounted at {place}") };
            bail!("{path} is a disk of the running system ({part} {place}): name another one");
        }
        if let Some((part, place)) = places().next() {
            bail!("{path} is in use ({part} is mounted at {place}): do `umount {part}` first");
        }
        if let Some(user) = all[1..].iter().find(|user| user.kind != "part") {
            bail!("{path} is in use ({} is made of it, {}): take that down first", user.path, user.kind);
        }
        ensure!(self.size > 0, "there is nothing in {path}: put a medium in, or name another disk");
        ensure!(!self.ro, "{path} is read-only: switch its write protection off, or name another disk");
        ensure!(
            any_disk || self.rm || self.is_usb(),
            "{path} is neither at USB nor removable: if you mean it all the same, add --any-disk"
        );
        Ok(())
    }

    fn is_usb(&self) -> bool {
        self.tran.as_deref() == Some("usb")
    }

    /// Returns the device itself, and everything that is made of it.
    fn all(&self) -> Vec<&Self> {
        std::iter::once(self).chain(self.children.iter().flat_map(Self::all)).collect()
    }

    /// Returns the names of its maker and its model.
    fn maker(&self) -> String {
        let names = [&self.vendor, &self.model].into_iter().flatten().map(|name| name.trim());
        names.filter(|name| !name.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// One line for the device, and one for each of its partitions.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, in_units(self.size))?;
        let removable = if self.rm { "removable" } else { "" };
        let content = self.fstype.as_deref().unwrap_or_default();
        for word in [&self.maker(), self.tran.as_deref().unwrap_or_default(), removable, content] {
            if !word.is_empty() {
                write!(f, ", {word}")?;
            }
        }
        if let Some(label) = &self.label {
            write!(f, " \"{label}\"")?;
        }
        self.children.iter().try_for_each(|part| write!(f, "\n  {part}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Returns a device as lsblk lists it, with `changes`.
    fn listed(path: &str, kind: &str, changes: &Value) -> Value {
        let mut device = json!({
            "path": path, "type": kind, "size": 31_457_280_000_u64, "ro": false, "rm": false, "tran": null,
            "vendor": null, "model": null, "fstype": null, "label": null, "mountpoint": null, "pkname": null,
        });
        for (name, value) in changes.as_object().unwrap() {
            device[name] = value.clone();
        }
        device
    }

    fn parse(device: Value) -> Device {
        Device::parse(json!({ "blockdevices": [device] }).to_string().as_bytes()).unwrap()
    }

    /// Returns a stick with one partition, whose properties are in `part`.
    fn stick(part: &Value) -> Device {
        let part = listed("/dev/sdb1", "part", part);
        let usual =
            json!({ "rm": true, "tran": "usb", "vendor": "SanDisk ", "model": "Ultra", "children": [part] });
        parse(listed("/dev/sdb", "disk", &usual))
    }

    fn refusal(device: &Device, any_disk: bool) -> String {
        device.check(any_disk).unwrap_err().to_string()
    }

    #[test]
    fn a_stick_is_described_with_its_partitions() {
        let stick = stick(&json!({ "fstype": "vfat", "label": "PHOTOS", "size": 1 << 20 }));
        stick.check(false).unwrap();
        assert_eq!(
            stick.to_string(),
            "/dev/sdb: 29.2 GiB, SanDisk Ultra, usb, removable\n  /dev/sdb1: 1.0 MiB, vfat \"PHOTOS\""
        );
    }

    #[test]
    fn a_disk_in_use_is_refused() {
        assert_eq!(
            refusal(&stick(&json!({ "mountpoint": "/media/photos" })), true),
            "/dev/sdb is in use (/dev/sdb1 is mounted at /media/photos): do `umount /dev/sdb1` first"
        );
        assert_eq!(
            refusal(&stick(&json!({ "mountpoint": "[SWAP]" })), true),
            "/dev/sdb is a disk of the running system (/dev/sdb1 is its swap): name another one"
        );
        let volume = |changes| json!({ "children": [listed("/dev/mapper/debian-root", "lvm", &changes)] });
        assert_eq!(
            refusal(&stick(&volume(json!({}))), true),
            "/dev/sdb is in use (/dev/mapper/debian-root is made of it, lvm): take that down first"
        );
        assert_eq!(
            refusal(&stick(&volume(json!({ "mountpoint": "/" }))), true),
            "/dev/sdb is a disk of the running system (/dev/mapper/debian-root is mounted at /): name another one"
        );
        // The same for a disk without partitions, and where the system's file system is not the first that is listed.
        let whole = parse(listed("/dev/sdb", "disk", &json!({ "rm": true, "mountpoint": "/mnt" })));
        assert!(refusal(&whole, false).contains("do `umount /dev/sdb` first"));
        let other = listed("/dev/sdb1", "part", &json!({ "mountpoint": "/mnt" }));
        let root = listed("/dev/sdb2", "part", &json!({ "mountpoint": "/" }));
        let both = parse(listed("/dev/sdb", "disk", &json!({ "children": [other, root] })));
        assert!(refusal(&both, true).contains("(/dev/sdb2 is mounted at /)"));
    }

    #[test]
    fn a_device_that_is_not_a_stick_is_refused() {
        let with = |kind, changes: Value| parse(listed("/dev/x", kind, &changes));
        for (device, sentence) in [
            (
                with("part", json!({ "pkname": "nvme0n1" })),
                "/dev/x is a partition, and the ISO needs the whole disk: that is /dev/nvme0n1",
            ),
            (
                with("raid1", json!({})),
                "/dev/x is not a disk but of the kind \"raid1\": name a disk (`lsblk` lists them)",
            ),
            (
                with("disk", json!({ "rm": true, "size": 0 })),
                "there is nothing in /dev/x: put a medium in, or name another disk",
            ),
            (
                with("disk", json!({ "tran": "usb", "ro": true })),
                "/dev/x is read-only: switch its write protection off, or name another disk",
            ),
        ] {
            assert_eq!(refusal(&device, true), sentence);
        }
        for device in [with("disk", json!({ "tran": "nvme" })), with("loop", json!({}))] {
            let sentence =
                "/dev/x is neither at USB nor removable: if you mean it all the same, add --any-disk";
            assert_eq!(refusal(&device, false), sentence);
            device.check(true).unwrap();
        }
        with("disk", json!({ "tran": "usb" })).check(false).unwrap();
        with("disk", json!({ "rm": true })).check(false).unwrap();
        assert!(Device::parse(br#"{"blockdevices": []}"#).is_err());
    }
}
