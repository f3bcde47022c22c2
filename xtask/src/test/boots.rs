//! The ISO on the machines that people have: BIOS and UEFI, CD and USB stick, old and new chipset, a little and much memory,
//! and Vidar loaded elsewhere than usual; each to the shell of a stock kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};

use super::lane::Lane;
use super::{Tools, facts, folder, test_dir};
use crate::console::{BOOT, Console, PROMPT};
use crate::grub::Menu;
use crate::iso::{self, Recipe};
use crate::machine::{Chipset, Medium, Spec};
use crate::manifest;

/// A machine, and how Vidar is loaded on it.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    /// The last part of the test's name.
    pub name: &'static str,
    lane: Lane,
    uefi: bool,
    medium: Medium,
    chipset: Chipset,
    /// MiB.
    memory: u32,
    loaded: Loaded,
}

/// Where Vidar is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    /// Where its header wants it: the lowest place that is free.
    Usual,
    /// As high as can be.
    High,
    /// Where kernels want to be.
    WhereTheKernelGoes,
}

/// Where Debian's kernels want to be.
const KERNELS_PLACE: u32 = 0x100_0000;

const USUAL: Boot = Boot {
    name: "",
    lane: Lane::Svm,
    uefi: false,
    medium: Medium::Cd,
    chipset: Chipset::Pc,
    memory: 1024,
    loaded: Loaded::Usual,
};

/// The table.
pub const BOOTS: [Boot; 7] = [
    Boot { name: "boots/uefi-in-bochs", lane: Lane::Vmx, uefi: true, ..USUAL },
    Boot { name: "boots/bios-cd-pc", ..USUAL },
    Boot { name: "boots/bios-usb-q35", medium: Medium::Usb, chipset: Chipset::Q35, memory: 6144, ..USUAL },
    Boot { name: "boots/uefi-cd-q35", uefi: true, chipset: Chipset::Q35, ..USUAL },
    Boot { name: "boots/uefi-usb-pc", uefi: true, medium: Medium::Usb, ..USUAL },
    Boot { name: "boots/loaded-high", uefi: true, loaded: Loaded::High, ..USUAL },
    Boot { name: "boots/loaded-where-the-kernel-goes", loaded: Loaded::WhereTheKernelGoes, ..USUAL },
];

impl Boot {
    /// The test's name.
    pub fn test(&self) -> String {
        self.lane.test(self.name)
    }

    /// The folder of its files.
    pub fn folder(&self) -> String {
        self.lane.folder(self.name)
    }

    /// Boots it.
    pub fn run(&self, tools: &Tools) -> Result<()> {
        let dir = test_dir(&self.folder())?;
        let iso = dir.join("vidar.iso");
        match self.loaded {
            Loaded::Usual => {
                fs::copy(the_iso(tools)?, &iso).context("cannot copy the ISO")?;
            }
            loaded => {
                let hypervisor = dir.join("vidar.elf");
                fs::write(&hypervisor, asking_for(&fs::read(&tools.hypervisor)?, loaded)?)?;
                make(&iso, &hypervisor, tools)?;
            }
        }
        let spec = Spec {
            dir: dir.clone(),
            iso,
            medium: self.medium,
            chipset: self.chipset,
            memory: self.memory,
            uefi: self.uefi,
            fixed_clock: true,
            verbose: true,
            ..Spec::default()
        };
        let running = self.lane.machine().start(&spec)?;
        let mut console = Console::new(running.serial()?, &dir.join("serial.log"))?;
        console.expect("Linux version", BOOT)?;
        console.expect(PROMPT, BOOT)?;
        self.check(&mut console)
    }

    /// Linux has all that the machine has, and Vidar is where it should be.
    fn check(&self, console: &mut Console) -> Result<()> {
        let kept = facts::hidden(&console.run("vidarctl status --json")?)?;
        let (base, size) = *kept.first().context("Vidar keeps no memory")?;
        let fits = match self.loaded {
            Loaded::Usual => base < u64::from(KERNELS_PLACE),
            Loaded::High => base + size > (u64::from(self.memory) << 20) - (64 << 20),
            Loaded::WhereTheKernelGoes => base == u64::from(KERNELS_PLACE),
        };
        ensure!(fits, "Vidar is at {base:#x}");
        // Firmware keeps some, that of QEMU's UEFI the most, and Linux 64 bytes for each page.
        let total = console.run("awk '/MemTotal/ { print $2 }' /proc/meminfo")?;
        let total: u64 = total.trim().parse().context("/proc/meminfo has no total")?;
        let all = u64::from(self.memory) << 10;
        let least = all - all / 32 - (160 << 10);
        ensure!(total > least, "Linux has {total} KiB of memory of {} MiB", self.memory);
        let efi = console.run("cat /sys/firmware/efi/runtime-map/0/phys_addr || true")?;
        ensure!(efi.starts_with("0x") == self.uefi, "of EFI's runtime services Linux says {efi:?}");
        Ok(())
    }
}

/// The ISO of all usual boots, as users make it.
fn the_iso(tools: &Tools) -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<bool> = Mutex::new(false);
    let mut made = ONE_AT_A_TIME.lock().expect("nobody panics with it");
    let iso = folder("boots").join("vidar.iso");
    if !*made {
        test_dir("boots")?;
        make(&iso, &tools.hypervisor, tools)?;
        *made = true;
    }
    Ok(iso)
}

fn make(iso: &Path, hypervisor: &Path, tools: &Tools) -> Result<()> {
    let recipe = Recipe {
        guests: manifest::load()?,
        menu: Menu::default(),
        hypervisor: Some(hypervisor.to_path_buf()),
        vidarctl: Some(tools.vidarctl.clone()),
    };
    iso::make(&recipe, iso)
}

/// The image with another wish in the relocatable tag of its header. Multiboot2 Specification 2.0, 3.1.11 "Relocatable header
/// tag".
fn asking_for(image: &[u8], loaded: Loaded) -> Result<Vec<u8>> {
    /// Type 10, optional, 24 bytes: then the lowest address, the highest, the alignment, and the preference.
    const TAG: [u8; 8] = [10, 0, 1, 0, 24, 0, 0, 0];
    const PREFERENCE: usize = 20;
    const HIGHEST: u32 = 2;
    let at = image.windows(TAG.len()).position(|bytes| bytes == TAG);
    let at = at.context("Vidar's header has no relocatable tag")?;
    let mut image = image.to_vec();
    let (field, value) = match loaded {
        Loaded::High => (at + PREFERENCE, HIGHEST),
        _ => (at + TAG.len(), KERNELS_PLACE),
    };
    image[field..field + 4].copy_from_slice(&value.to_le_bytes());
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_changes_one_field_of_the_header() {
        let mut image = vec![0; 64];
        image[16..24].copy_from_slice(&[10, 0, 1, 0, 24, 0, 0, 0]);
        image[36] = 1;
        let high = asking_for(&image, Loaded::High).unwrap();
        assert_eq!((high[36], &high[..36]), (2, &image[..36]));
        let elsewhere = asking_for(&image, Loaded::WhereTheKernelGoes).unwrap();
        assert_eq!(elsewhere[24..28], [0, 0, 0, 1]);
        assert!(asking_for(&image[..20], Loaded::High).is_err());
    }
}
