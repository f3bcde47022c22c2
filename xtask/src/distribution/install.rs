//! Runs the script that copies a Debian to disks, in a machine without Vidar.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::layout::Layout;
use super::system::{LABEL, System};
use crate::console::{ANSWER, BOOT, Console};
use crate::grub::{self, Menu};
use crate::iso::{self, Recipe};
use crate::machine::disk::{Bus, Disk, Format};
use crate::machine::{Machine, Spec};
use crate::manifest::{Guest, Initrd, Kernel};

/// The size of each disk in bytes. The files are sparse.
const SIZE: u64 = 3 << 30;
/// The time that the copy to a disk may take.
const COPY: Duration = Duration::from_secs(1800);
/// The prompt of root's shell.
const SHELL: &str = "root@vidar-debian:~# ";
/// Gives the shell the prompt that a [`Console`] expects, and lines of any length.
pub const PLAIN_SHELL: &str =
    "bind 'set enable-bracketed-paste off'; stty columns 9999; export TERM=dumb PAGER=cat; PS1='guest''# '";

/// Logs in as root at the next prompt for it.
pub fn log_in(console: &mut Console) -> Result<()> {
    console.expect("login: ", BOOT)?;
    console.type_line("root")?;
    console.expect(SHELL, BOOT)?;
    console.type_line(PLAIN_SHELL)?;
    console.expect("guest# ", ANSWER)?;
    Ok(())
}

/// Packs files into an archive on a disk without a file system. The guest unpacks it by `tar --extract`.
pub fn archive(disk: &Path, folder: &Path, names: &[&str]) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(disk).arg("--dereference").arg("--directory").arg(folder);
    let output = tar.args(names).output().context("cannot run tar")?;
    ensure!(output.status.success(), "tar failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Copies `system` by `script` to a disk of each layout, in the folder `dir`.
pub fn to_disks(system: &System, script: &Path, dir: &Path) -> Result<()> {
    let guest = Guest {
        drivers: Vec::new(),
        name: "debian".to_owned(),
        title: "Debian".to_owned(),
        kernel: Kernel::File(system.kernel.clone()),
        initrds: vec![Initrd::File(system.initrd.clone())],
        cmdline: format!("root=LABEL={LABEL} ro console=ttyS0,115200"),
    };
    let menu = Menu { default: Some(grub::bare(&guest.name)), timeout: 0, ..Menu::default() };
    let recipe = Recipe { guests: vec![guest], menu, hypervisor: None, vidarctl: None };
    let iso = dir.join("vidar.iso");
    iso::make(&recipe, &iso)?;
    let disk = |path: &Path| Disk { path: path.to_owned(), format: Format::Raw, bus: Bus::Virtio };
    let scripts = dir.join("scripts");
    let (folder, name) = (script.parent().unwrap_or(script), script.file_name().unwrap_or_default());
    archive(&scripts, folder, &[&name.to_string_lossy()])?;
    let mut disks = vec![disk(&system.disk), disk(&scripts)];
    for layout in Layout::ALL {
        let path = dir.join(layout.disk().file_name().unwrap_or_default());
        File::create(&path)?.set_len(SIZE)?;
        disks.push(disk(&path));
    }
    let spec = Spec {
        dir: dir.to_path_buf(),
        iso,
        memory: 1024,
        disks,
        counts_instructions: true,
        ..Spec::default()
    };
    let mut running = Machine::Qemu.start(&spec)?;
    let mut console = Console::new(running.serial()?, &dir.join("serial.log"))?;
    log_in(&mut console)?;
    console.run("cd /run && tar --extract --file=/dev/vdb")?;
    for (layout, letter) in Layout::ALL.into_iter().zip('c'..) {
        console.run_within(&format!("sh /run/install {} /dev/vd{letter}", layout.name()), COPY)?;
    }
    console.type_line("systemctl poweroff")?;
    console.expect("Power down", BOOT)?;
    ensure!(running.ended(ANSWER)? == Some(true), "the machine is still on");
    Ok(())
}
