//! QEMU with KVM in a Linux that runs in an emulator: KVM that nests, on hosts whose own KVM does not or is not there.
//!
//! The emulator is QEMU with AMD-V. The Linux in it (`xtask/nested/init`) is the kernel of the manifest's first guest, with
//! KVM's modules and this host's QEMU. The machine's serial port is the second one of that Linux.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};

use super::qemu::{self, QEMU};
use super::{LOG, Ports, Spec, tied_to_us};
use crate::guests::{self, Freshness};
use crate::{initramfs, manifest, modules, packages, paths};

/// A CPU with AMD-V and nested paging.
const EMULATED_CPU: &str = "EPYC-Milan,-hypervisor,+svm,+npt";
/// The CPU that KVM shows.
const KVM_CPU: &str = "host,+svm";
/// Modules that are loaded, with all that they depend on.
const MODULES: &[&str] = &["kvm_amd"];
/// MiB of memory for the Linux with KVM, beside the machine's own.
const MEMORY: u32 = 1536;
/// Its command line. A panic ends it.
const COMMAND_LINE: &str = "console=ttyS0,115200 quiet loglevel=4 panic=1 mitigations=off tsc=reliable";
/// Where the machine's ISO and the arguments of its QEMU are.
const FOLDER: &str = "machine";
/// Files that QEMU loads into a PC.
const FIRMWARE: &[(&str, &[&str])] = &[
    ("usr/share/seabios", &["bios-256k.bin", "vgabios-stdvga.bin"]),
    ("usr/share/qemu", &["kvmvapic.bin", "linuxboot_dma.bin"]),
];
/// The loader of shared libraries.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// The command that runs the emulator, with `spec` for the machine in KVM.
pub fn command(spec: &Spec, ports: Ports) -> Result<Command> {
    ensure!(
        spec.disks.is_empty() && !spec.uefi,
        "a machine in a nested KVM has a BIOS, and no disks of its own"
    );
    let guest = manifest::load()?.into_iter().next().context("the manifest names no guest")?;
    let initrd = spec.dir.join("nested-initrd");
    fs::write(&initrd, [linux()?, machine(spec)?, fs::read(modules::archive(&guest, MODULES)?)?].concat())?;
    let mut command = tied_to_us(QEMU);
    command.args(["-nodefaults", "-display", "none", "-no-reboot", "-accel", "tcg"]);
    command.args(["-cpu", EMULATED_CPU, "-m", &(spec.memory + MEMORY).to_string()]);
    command.args(["-serial", &format!("file:{LOG}")]);
    if let Some(port) = ports.serial {
        command.args([
            "-chardev",
            &format!("socket,id=com2,host=127.0.0.1,port={port}"),
            "-serial",
            "chardev:com2",
        ]);
    }
    command.arg("-kernel").arg(guests::kernel(&guest, Freshness::Any)?);
    command.arg("-initrd").arg("nested-initrd").args(["-append", COMMAND_LINE]);
    Ok(command)
}

/// Returns true if the machine in KVM was powered off: its QEMU has ended without an error.
pub fn ended_well(status: ExitStatus, log: &str) -> bool {
    status.success() && log.contains("nested: the machine ended with 0")
}

/// What the machine is made of: its ISO, and the arguments of its QEMU, one a line.
fn machine(spec: &Spec) -> Result<Vec<u8>> {
    let inner = Spec {
        dir: "/".into(),
        iso: "vidar.iso".into(),
        verbose: false,
        counts_instructions: false,
        ..spec.clone()
    };
    let mut command = qemu::machine(&inner, Ports { serial: None, monitor: None, debugger: None }, KVM_CPU)?;
    command.args(["-serial", "/dev/ttyS1", "-accel", "kvm"]);
    let arguments = command.get_args().map(|argument| argument.to_str().context("an argument is not UTF-8"));
    let arguments = arguments.collect::<Result<Vec<_>>>()?;
    // The program may come after another that ties it to us.
    let arguments = arguments.split(|argument| *argument == QEMU).next_back().unwrap_or_default();
    let files = [
        (format!("{FOLDER}/vidar.iso"), fs::read(&spec.iso)?),
        (format!("{FOLDER}/arguments"), (arguments.join("\n") + "\n").into_bytes()),
    ];
    initramfs::pack_plain(&[FOLDER.to_owned()], &files)
}

/// What the Linux with KVM is made of, but for the modules: busybox, QEMU with its libraries and firmware.
fn linux() -> Result<Vec<u8>> {
    let program = packages::program(QEMU).with_context(|| format!("there is no {QEMU}"))?;
    let mut files = vec![
        ("init".to_owned(), fs::read(paths::root().join("xtask/nested/init"))?),
        ("bin/busybox".to_owned(), fs::read(guests::busybox(Freshness::Any)?)?),
        (format!("usr/bin/{QEMU}"), fs::read(&program)?),
    ];
    for library in libraries(&program)? {
        files.push((library.trim_start_matches('/').to_owned(), fs::read(&library)?));
    }
    for (folder, names) in FIRMWARE {
        for name in *names {
            let file = format!("{folder}/{name}");
            let content =
                fs::read(Path::new("/").join(&file)).with_context(|| format!("cannot read /{file}"))?;
            files.push((file, content));
        }
    }
    let mut folders: BTreeSet<_> = ["dev", "proc", "sys", "tmp", "var/tmp"].map(str::to_owned).into();
    folders.extend(files.iter().filter_map(|(name, _)| Some(name.rsplit_once('/')?.0.to_owned())));
    let with_parents: BTreeSet<_> = folders.iter().flat_map(|folder| parents(folder)).collect();
    initramfs::pack_plain(&with_parents.into_iter().collect::<Vec<_>>(), &files)
}

/// The folder and all that it is in, by their paths.
fn parents(folder: &str) -> impl Iterator<Item = String> + '_ {
    let ends = folder.match_indices('/').map(|(end, _)| end).chain([folder.len()]);
    ends.map(|end| folder[..end].to_owned())
}

/// The shared libraries that `program` loads, and what loads them.
fn libraries(program: &Path) -> Result<BTreeSet<String>> {
    let output = Command::new(LOADER).arg("--list").arg(program).output();
    let output = output.with_context(|| format!("cannot run {LOADER}"))?;
    ensure!(output.status.success(), "{LOADER} cannot list the libraries of {}", program.display());
    Ok(paths_in(&String::from_utf8_lossy(&output.stdout)).map(str::to_owned).collect())
}

/// The absolute paths in what the loader lists.
fn paths_in(listed: &str) -> impl Iterator<Item = &str> {
    listed.split_whitespace().filter(|word| word.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_lists_libraries_by_their_paths() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths: Vec<_> = paths_in(listed).collect();
        assert_eq!(paths, ["/lib/x86_64-linux-gnu/libz.so.1", LOADER]);
    }

    #[test]
    fn a_folder_comes_after_those_that_it_is_in() {
        assert_eq!(parents("usr/share/qemu").collect::<Vec<_>>(), ["usr", "usr/share", "usr/share/qemu"]);
        assert_eq!(parents("bin").collect::<Vec<_>>(), ["bin"]);
    }
}
