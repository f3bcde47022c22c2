//! Makes a medium bootable by GRUB, from a BIOS and from UEFI.
//!
//! grub-mkrescue does much the same, but it names the medium by the time at which it runs, and newer versions search
//! for that name. Two media with the same contents would then differ. This also leaves out what grub-mkrescue adds for
//! Macs without UEFI, and for other platforms whose GRUB happens to be installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Cmd, Shell, cmd};

use crate::{packages, paths, source};

/// The folder of GRUB's platforms.
const PLATFORMS: &str = "/usr/lib/grub";
/// The place of GRUB's folder on the medium.
const HOME: &str = "boot/grub";
/// The place of GRUB for a BIOS.
const BIOS_IMAGE: &str = "boot/grub/i386-pc/eltorito.img";
/// The place of the file system for UEFI.
const UEFI_IMAGE: &str = "efi.img";
/// The name by which UEFI finds a program on a removable medium (UEFI Specification 2.10, 3.5.1.1 "Removable Media Boot
/// Behavior").
const UEFI_PROGRAM: &str = "bootx64.efi";

/// A platform of GRUB.
struct Platform {
    /// The name of the platform's folder.
    name: &'static str,
    /// The format of its image.
    format: &'static str,
    /// The path of [`HOME`] for GRUB. With `()` it is on the disk that the firmware has loaded GRUB from. A BIOS tells
    /// no more than the disk anyway.
    prefix: &'static str,
    /// The modules in its image. They find the others on the medium.
    modules: &'static [&'static str],
}

const BIOS: Platform = Platform {
    name: "i386-pc",
    format: "i386-pc-eltorito",
    prefix: "/boot/grub",
    modules: &["biosdisk", "iso9660"],
};
const UEFI: Platform = Platform {
    name: "x86_64-efi",
    format: "x86_64-efi",
    prefix: "()/boot/grub",
    modules: &["part_gpt", "part_msdos", "part_apple", "iso9660"],
};

/// Makes the hybrid image `image` of the files in the folder `tree`, and adds GRUB to that folder.
pub fn make(tree: &Path, image: &Path) -> Result<()> {
    let (shell, date) = (Shell::new()?, source::date()?);
    for (name, value) in [(source::DATE_VARIABLE, date.to_string().as_str()), ("TZ", "UTC"), ("LC_ALL", "C")]
    {
        shell.set_var(name, value);
    }
    let bios = tree.join(BIOS_IMAGE);
    BIOS.copy_modules(tree)?;
    BIOS.make_image(&shell, &bios)?;
    UEFI.copy_modules(tree)?;
    let volume = tempfile::tempdir()?;
    let programs = volume.path().join("efi");
    UEFI.make_image(&shell, &paths::ensure(programs.join("boot"))?.join(UEFI_PROGRAM))?;

    let uefi = tree.join(UEFI_IMAGE);
    // A floppy of 2,880 KiB is the usual form of this file system. It is named by the date in place of a random number.
    let (serial, geometry) = (format!("{:08x}", date as u32), ["-f", "2880", "-L", "16"]);
    run(cmd!(shell, "mformat -C {geometry...} -N {serial} -i {uefi} ::"))?;
    run(cmd!(shell, "mcopy -s -i {uefi} {programs} ::/"))?;

    let mbr = BIOS.file("boot_hybrid.img");
    let for_bios = ["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "--grub2-boot-info"];
    let for_uefi = ["--efi-boot", UEFI_IMAGE, "-efi-boot-part", "--efi-boot-image"];
    // Some BIOSes boot from a stick only if a partition in its MBR is active. The partition that protects the GPT must
    // not be active (UEFI Specification 2.10, 5.2.3 "Protective MBR"), so this adds an empty partition of one block.
    let active = ["-boot_image", "any", "mbr_force_bootable=on"];
    let dates = ["-volume_date".to_owned(), "all_file_dates".to_owned(), format!("={date}")];
    let xorriso = cmd!(
        shell,
        "xorriso -no_rc -as mkisofs -b {BIOS_IMAGE} {for_bios...} --grub2-mbr {mbr} {for_uefi...}"
    );
    let xorriso = xorriso.args(["--protective-msdos-label", "-r", "-o"]).args([image, tree]);
    run(xorriso.args(["--", "-volid", "VIDAR"]).args(active).args(dates))
}

impl Platform {
    fn file(&self, name: &str) -> PathBuf {
        Path::new(PLATFORMS).join(self.name).join(name)
    }

    /// Copies the modules, and the lists of what is in which, into the folder `tree`.
    fn copy_modules(&self, tree: &Path) -> Result<()> {
        let to = paths::ensure(tree.join(HOME).join(self.name))?;
        let from = self.file("");
        let files = fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))?;
        for file in files {
            let file = file?.path();
            let name = file.file_name().unwrap_or_default();
            if file.extension().is_some_and(|end| end == "mod" || end == "lst") {
                fs::copy(&file, to.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
            }
        }
        Ok(())
    }

    /// Makes the image that the firmware loads.
    fn make_image(&self, shell: &Shell, image: &Path) -> Result<()> {
        let tool = ["grub-mkimage", "grub2-mkimage"].into_iter().find(|tool| packages::has_program(tool));
        let tool = tool.context("there is no grub-mkimage: `cargo xtask setup` installs it")?;
        let list = self.file("partmap.lst");
        let list = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        let config = tempfile::NamedTempFile::new()?;
        fs::write(&config, commands(&list))?;
        let (config, from) = (config.path(), self.file(""));
        let Self { format, prefix, modules, .. } = *self;
        run(cmd!(shell, "{tool} -O {format} -d {from} -p {prefix} -c {config} -o {image} {modules...}"))
    }
}

/// GRUB's commands before it reads its configuration. They load the modules of `list`, for all formats of partitions.
fn commands(list: &str) -> String {
    list.split_whitespace().map(|module| format!("insmod {module}\n")).collect()
}

fn run(command: Cmd<'_>) -> Result<()> {
    let what = command.to_string();
    let tool = what.split(' ').next().unwrap_or_default();
    let output = command.quiet().ignore_status().output().with_context(|| format!("cannot run {tool}"))?;
    if !output.status.success() {
        bail!("{tool} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_formats_of_partitions_are_loaded() {
        assert_eq!(commands("part_gpt\npart_msdos\n"), "insmod part_gpt\ninsmod part_msdos\n");
    }
}
