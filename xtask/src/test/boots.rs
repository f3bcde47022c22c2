//! Boots the ISO to the shell of a stock kernel, on the machines that people have: with BIOS and UEFI, from CD and USB
//! stick, with an old and a new chipset, with little and much memory, and with Vidar loaded at unusual places.

use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};

use super::lane::Lane;
use super::scenario::CHECK;
use super::{Tools, facts, folder, smp, test_dir, vidarctl};
use crate::console::{BOOT, Console, PROMPT};
use crate::grub::{self, Menu};
use crate::iso::{self, Recipe};
use crate::machine::{Chipset, Medium, Spec};
use crate::manifest;

/// A machine, and the place where Vidar is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    /// The last part of the test's name.
    pub name: &'static str,
    lane: Lane,
    uefi: bool,
    medium: Medium,
    chipset: Chipset,
    /// The size of memory in MiB.
    memory: u32,
    cpus: u32,
    /// Vidar's boot options.
    options: &'static str,
    placement: Placement,
}

/// The place where Vidar is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placement {
    /// The lowest free place, which its header asks for.
    Usual,
    /// The highest free place.
    High,
    /// The place that kernels prefer.
    WhereTheKernelGoes,
}

/// The address that Debian's kernels prefer.
const KERNELS_PLACE: u32 = 0x100_0000;

/// What the log says if the rules for entering the guest are checked.
const CHECKED: &str = "checks the manual's rules before each entry (check=on)";

const USUAL: Boot = Boot {
    name: "",
    lane: Lane::Svm,
    uefi: false,
    medium: Medium::Cd,
    chipset: Chipset::Pc,
    memory: 1024,
    cpus: 1,
    options: "",
    placement: Placement::Usual,
};

/// The table of boots. In Bochs no Linux with two CPUs has its rules checked: where Vidar starts the CPUs, their timers
/// exit, and the checks take most of the time from one tick to the next.
pub const BOOTS: [Boot; 10] = [
    Boot { name: "boots/uefi-in-bochs", lane: Lane::Vmx, uefi: true, ..USUAL },
    Boot { name: "boots/bios-cd-pc", ..USUAL },
    Boot { name: "boots/bios-usb-q35", medium: Medium::Usb, chipset: Chipset::Q35, memory: 6144, ..USUAL },
    Boot { name: "boots/uefi-cd-q35", uefi: true, chipset: Chipset::Q35, ..USUAL },
    Boot { name: "boots/uefi-usb-pc", uefi: true, medium: Medium::Usb, ..USUAL },
    Boot { name: "boots/loaded-high", uefi: true, placement: Placement::High, ..USUAL },
    Boot { name: "boots/loaded-where-the-kernel-goes", placement: Placement::WhereTheKernelGoes, ..USUAL },
    Boot { name: "boots/checked", lane: Lane::Vmx, options: CHECK, ..USUAL },
    Boot { name: "boots/checked", options: CHECK, ..USUAL },
    Boot { name: "boots/checked-2-cpus", cpus: 2, options: CHECK, ..USUAL },
];

impl Boot {
    /// Returns the test's name.
    pub fn test(&self) -> String {
        self.lane.test(self.name)
    }

    /// Returns the folder of the test's files.
    pub fn folder(&self) -> String {
        self.lane.folder(self.name)
    }

    /// Boots the machine and checks it.
    pub fn run(&self, tools: &Tools) -> Result<()> {
        let dir = test_dir(&self.folder())?;
        let iso = dir.join("vidar.iso");
        match self.placement {
            Placement::Usual if self.options.is_empty() => {
                fs::copy(the_iso(tools)?, &iso).context("cannot copy the ISO")?;
            }
            Placement::Usual => self.make(&iso, &tools.hypervisor, tools)?,
            placement => {
                let hypervisor = dir.join("vidar.elf");
                fs::write(&hypervisor, with_placement(&fs::read(&tools.hypervisor)?, placement)?)?;
                self.make(&iso, &hypervisor, tools)?;
            }
        }
        let spec = Spec {
            dir: dir.clone(),
            iso,
            medium: self.medium,
            chipset: self.chipset,
            memory: self.memory,
            cpus: NonZeroU32::new(self.cpus),
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

    /// Makes the ISO.
    fn make(&self, iso: &Path, hypervisor: &Path, tools: &Tools) -> Result<()> {
        let mut guests = manifest::load()?;
        if self.cpus > 1 {
            let more = smp::for_several_cpus(self.lane);
            guests.iter_mut().for_each(|guest| guest.cmdline += more);
        }
        let recipe = Recipe {
            guests,
            menu: Menu { options: self.options.to_owned(), ..Menu::default() },
            hypervisor: Some(hypervisor.to_path_buf()),
            vidarctl: Some(tools.vidarctl.clone()),
        };
        iso::make(&recipe, iso)
    }

    /// Checks that Linux has all of the machine's memory and firmware services, and that Vidar is at the right place.
    fn check(&self, console: &mut Console) -> Result<()> {
        let kept = facts::hidden(&console.run("vidarctl status --json")?)?;
        let (base, size) = *kept.first().context("Vidar keeps no memory")?;
        let fits = match self.placement {
            Placement::Usual => base < u64::from(KERNELS_PLACE),
            Placement::High => base + size > (u64::from(self.memory) << 20) - (64 << 20),
            Placement::WhereTheKernelGoes => base == u64::from(KERNELS_PLACE),
        };
        ensure!(fits, "Vidar is at {base:#x}");
        // The firmware keeps some memory, most of all QEMU's UEFI, and Linux keeps 64 bytes for each page.
        let total = console.run("awk '/MemTotal/ { print $2 }' /proc/meminfo")?;
        let total: u64 = total.trim().parse().context("/proc/meminfo has no total")?;
        let all = u64::from(self.memory) << 10;
        let least = all - all / 32 - (160 << 10);
        ensure!(total > least, "of {} MiB of memory Linux has {total} KiB", self.memory);
        let efi = console.run("cat /sys/firmware/efi/runtime-map/0/phys_addr || true")?;
        ensure!(efi.starts_with("0x") == self.uefi, "Linux has EFI runtime services at {efi:?}");
        let cpus = console.run("nproc")?;
        ensure!(cpus.trim() == self.cpus.to_string(), "Linux has {} CPUs", cpus.trim());
        let log = console.run("vidarctl log")?;
        let checks = [self.options, grub::added_options()].iter().any(|options| options.contains(CHECK));
        ensure!(log.contains(CHECKED) == checks, "the log does not say if rules are checked: {log}");
        vidarctl::names_no_rule(&log)
    }
}

/// Returns the ISO for all boots with the usual placement, which is made once, as users make it.
fn the_iso(tools: &Tools) -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<bool> = Mutex::new(false);
    let mut made = ONE_AT_A_TIME.lock().expect("no thread panics while it holds the lock");
    let iso = folder("boots").join("vidar.iso");
    if !*made {
        test_dir("boots")?;
        USUAL.make(&iso, &tools.hypervisor, tools)?;
        *made = true;
    }
    Ok(iso)
}

/// Changes the relocatable tag of the image's header, so that it asks for another placement. Multiboot2 Specification
/// 2.0, 3.1.11 "Relocatable header tag".
fn with_placement(image: &[u8], placement: Placement) -> Result<Vec<u8>> {
    /// The beginning of the tag: type 10, optional, 24 bytes. The lowest address, the highest address, the alignment
    /// and the preference follow.
    const TAG: [u8; 8] = [10, 0, 1, 0, 24, 0, 0, 0];
    const PREFERENCE: usize = 20;
    const HIGHEST: u32 = 2;
    let at = image.windows(TAG.len()).position(|bytes| bytes == TAG);
    let at = at.context("Vidar's header has no relocatable tag")?;
    let mut image = image.to_vec();
    let (field, value) = match placement {
        Placement::High => (at + PREFERENCE, HIGHEST),
        _ => (at + TAG.len(), KERNELS_PLACE),
    };
    image[field..field + 4].copy_from_slice(&value.to_le_bytes());
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_placement_changes_one_field_of_the_header() {
        let mut image = vec![0; 64];
        image[16..24].copy_from_slice(&[10, 0, 1, 0, 24, 0, 0, 0]);
        image[36] = 1;
        let high = with_placement(&image, Placement::High).unwrap();
        assert_eq!((high[36], &high[..36]), (2, &image[..36]));
        let elsewhere = with_placement(&image, Placement::WhereTheKernelGoes).unwrap();
        assert_eq!(elsewhere[24..28], [0, 0, 0, 1]);
        assert!(with_placement(&image[..20], Placement::High).is_err());
    }
}
