//! QEMU with nested KVM, on hosts without a usable KVM of their own: its Linux runs in an emulator.
//!
//! The emulator is QEMU with AMD-V, or Bochs with VT-x. The Linux in it (`xtask/nested/init`) has the kernel of the
//! manifest's first guest, KVM's modules and this host's QEMU. Its console goes to a file, and its second serial port
//! is connected to the first one of the machine in KVM.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, ProgramHeader};

use super::abilities::QEMU;
use super::line::Ports;
use super::spec::{Errand, LINUX_LOG, Medium, Spec};
use super::tie::tied_to_us;
use super::{bochs, kvm, qemu};
use crate::grub::{self, Menu};
use crate::guests::{self, Freshness};
use crate::iso::{self, Recipe};
use crate::manifest::{Guest, Initrd, Kernel};
use crate::{initramfs, manifest, modules, packages, paths};

/// What differs between the two emulators.
#[derive(Debug)]
struct Outer {
    /// KVM's module for the extension.
    module: &'static kvm::Module,
    /// The emulated CPU. It has the extension, with everything that KVM passes on to its guests.
    cpu: &'static str,
    /// What is appended to [`COMMAND_LINE`].
    command_line: &'static str,
}

const IN_QEMU: Outer = Outer {
    module: &kvm::AMD,
    // This machine stands for a physical one, which does not have CPUID's hypervisor bit.
    cpu: "EPYC-Milan,-hypervisor,+svm,+npt",
    command_line: "",
};

const IN_BOCHS: Outer = Outer {
    module: &kvm::INTEL,
    cpu: "corei7_skylake_x",
    // A triple fault ends Bochs, while any other reset would start the Linux with KVM again.
    command_line: " reboot=triple",
};

/// The number of CPUs of the Linux with KVM in Bochs. In Bochs, an external interrupt does not cause an exit from a
/// guest that was entered with IF clear. A guest that waits with IF clear therefore keeps one CPU of this Linux busy,
/// and another CPU is needed to make happen what the guest waits for.
const CPUS_IN_BOCHS: u32 = 2;
/// MiB of memory for the Linux with KVM, in addition to the machine's own.
const MEMORY: u32 = 1536;
/// The command line of that Linux. A panic makes it reboot, which ends the emulator.
const COMMAND_LINE: &str = "console=ttyS0,115200 quiet loglevel=4 panic=1 mitigations=off tsc=reliable";
/// The folder with the machine's ISO and the arguments of its QEMU, or with the errand.
const FOLDER: &str = "machine";
/// The firmware files that QEMU loads into a PC.
const FIRMWARE: &[(&str, &[&str])] = &[
    ("usr/share/seabios", &["bios-256k.bin", "vgabios-stdvga.bin"]),
    ("usr/share/qemu", &["linuxboot_dma.bin"]),
];
/// The dynamic loader.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// The Linux with KVM: its kernel, its initramfs, which is in the machine's folder, and its command line.
struct Linux {
    kernel: PathBuf,
    initrd: PathBuf,
    command_line: String,
}

/// Returns the command that runs QEMU as the emulator. `spec` describes the machine in KVM.
pub fn in_qemu(spec: &Spec, ports: Ports) -> Result<Command> {
    let linux = linux(spec, &IN_QEMU)?;
    let mut command = tied_to_us(QEMU);
    command.args(["-nodefaults", "-display", "none", "-no-reboot", "-accel", "tcg"]);
    command.args(["-cpu", &qemu::emulated(IN_QEMU.cpu), "-m", &(spec.memory + MEMORY).to_string()]);
    command.args(["-serial", &format!("file:{LINUX_LOG}")]);
    if let Some(port) = ports.serial {
        command.args([
            "-chardev",
            &format!("socket,id=com2,host=127.0.0.1,port={port}"),
            "-serial",
            "chardev:com2",
        ]);
    }
    command.arg("-kernel").arg(linux.kernel).args(["-append", &linux.command_line]);
    command.arg("-initrd").arg(linux.initrd.file_name().context("the initramfs has no name")?);
    Ok(command)
}

/// Returns the command that runs Bochs as the emulator. `spec` describes the machine in KVM. Bochs boots the Linux with
/// KVM from an ISO.
pub fn in_bochs(spec: &Spec, ports: Ports) -> Result<Command> {
    let linux = linux(spec, &IN_BOCHS)?;
    let guest = Guest {
        name: "kvm".to_owned(),
        title: "Linux with KVM".to_owned(),
        kernel: Kernel::File(linux.kernel),
        initrds: vec![Initrd::File(linux.initrd)],
        // With the TSC frequency that the CPU states, a second would take minutes.
        cmdline: format!("{} tsc_early_khz={}", linux.command_line, bochs::INSTRUCTIONS_PER_SECOND / 1000),
        drivers: Vec::new(),
    };
    let menu = Menu { default: Some(grub::bare(&guest.name)), timeout: 0, ..Menu::default() };
    let iso = spec.dir.join("nested.iso");
    iso::make(&Recipe { guests: vec![guest], menu, hypervisor: None, vidarctl: None }, &iso)?;
    let outer = Spec {
        dir: spec.dir.clone(),
        iso,
        memory: spec.memory + MEMORY,
        cpus: NonZeroU32::new(CPUS_IN_BOCHS),
        cpu: Some(IN_BOCHS.cpu.to_owned()),
        stops_at_triple_fault: true,
        runs_kvm: true,
        ..Spec::default()
    };
    bochs::command(&outer, ports)
}

/// Returns true if the guest powered off the machine in KVM: both its QEMU and the emulator around it have ended
/// without an error.
pub fn ended_well(status: ExitStatus, log: &str) -> bool {
    (status.success() || bochs::ended_well(status, log)) && log.contains("nested: the machine ended with 0")
}

/// Returns the Linux with KVM that runs the machine of `spec`, or that does its errand.
fn linux(spec: &Spec, outer: &Outer) -> Result<Linux> {
    ensure!(
        spec.disks.is_empty() && !spec.uefi,
        "a machine in a nested KVM can have neither UEFI nor disks of its own"
    );
    let guest = manifest::load()?.into_iter().next().context("the manifest names no guest")?;
    let work = match &spec.errand {
        Some(errand) => work(errand)?,
        None => machine(spec, outer)?,
    };
    let modules = fs::read(modules::archive(&guest, &[outer.module.name])?)?;
    let initrd = spec.dir.join("nested-initrd");
    let program = spec.errand.as_ref().map(|errand| errand.program.as_path());
    fs::write(&initrd, [system(program)?, work, modules].concat())?;
    let kernel = guests::kernel(&guest, Freshness::Any)?;
    Ok(Linux { kernel, initrd, command_line: COMMAND_LINE.to_owned() + outer.command_line })
}

/// Returns the files for a machine: its ISO, and the arguments of its QEMU, one on each line.
fn machine(spec: &Spec, outer: &Outer) -> Result<Vec<u8>> {
    let inner = Spec {
        dir: "/".into(),
        iso: "vidar.iso".into(),
        medium: Medium::Virtio,
        verbose: false,
        counts_instructions: false,
        ..spec.clone()
    };
    let none = Ports { serial: None, monitor: None, debugger: None, second_serial: None };
    let mut command = qemu::machine(&inner, none, &outer.module.cpu())?;
    command.args(["-serial", "/dev/ttyS1"]).args(kvm::ACCELERATOR);
    let arguments = command.get_args().map(|argument| argument.to_str().context("an argument is not UTF-8"));
    let arguments = arguments.collect::<Result<Vec<_>>>()?;
    // The name of the program may come after that of `setpriv` and its arguments.
    let arguments = arguments.split(|argument| *argument == QEMU).next_back().unwrap_or_default();
    let files = [
        (format!("{FOLDER}/vidar.iso"), fs::read(&spec.iso)?),
        (format!("{FOLDER}/arguments"), (arguments.join("\n") + "\n").into_bytes()),
    ];
    initramfs::pack_plain(&[FOLDER.to_owned()], &files)
}

/// Returns the files for an errand.
fn work(errand: &Errand) -> Result<Vec<u8>> {
    let mut files = vec![(format!("{FOLDER}/errand"), errand.script.clone().into_bytes())];
    files.extend(errand.files.iter().cloned());
    initramfs::pack_plain(&folders(&files), &files)
}

/// Returns the root file system of the Linux with KVM, without the modules: busybox, QEMU with its libraries and
/// firmware, and another program with its libraries.
fn system(program: Option<&Path>) -> Result<Vec<u8>> {
    let qemu = packages::program(QEMU).with_context(|| format!("there is no {QEMU}"))?;
    let mut files = vec![
        ("init".to_owned(), fs::read(paths::root().join("xtask/nested/init"))?),
        ("bin/busybox".to_owned(), fs::read(guests::busybox(Freshness::Any)?)?),
    ];
    let mut shared = BTreeSet::new();
    for program in [qemu.as_path()].into_iter().chain(program) {
        let name = program.file_name().context("a program has no name")?.to_string_lossy().into_owned();
        let content = fs::read(program)?;
        files.push((format!("usr/bin/{name}"), loaded(&content).unwrap_or(&content).to_vec()));
        shared.extend(libraries(program)?);
    }
    for library in shared {
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
    let mut all: BTreeSet<_> = folders(&files).into_iter().collect();
    all.extend(["dev", "proc", "sys", "tmp", "var", "var/tmp"].map(str::to_owned));
    initramfs::pack_plain(&all.into_iter().collect::<Vec<_>>(), &files)
}

/// Returns all folders that the files are in. Each comes after those that contain it.
fn folders(files: &[(String, Vec<u8>)]) -> Vec<String> {
    let homes = files.iter().filter_map(|(name, _)| Some(name.rsplit_once('/')?.0));
    homes.flat_map(parents).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Returns the paths of a folder and of all folders that contain it.
fn parents(folder: &str) -> impl Iterator<Item = String> + '_ {
    let ends = folder.match_indices('/').map(|(end, _)| end).chain([folder.len()]);
    ends.map(|end| folder[..end].to_owned())
}

/// Returns the part of a program's file that is loaded. The rest is for debuggers, and may be most of the file.
fn loaded(program: &[u8]) -> Option<&[u8]> {
    let header = FileHeader64::<Endianness>::parse(program).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, program).ok()?;
    let end = segments.iter().map(|segment| segment.p_offset(endian) + segment.p_filesz(endian)).max()?;
    program.get(..usize::try_from(end).ok()?)
}

/// Returns the shared libraries that `program` needs, and the dynamic loader.
fn libraries(program: &Path) -> Result<BTreeSet<String>> {
    let output = Command::new(LOADER).arg("--list").arg(program).output();
    let output = output.with_context(|| format!("cannot run {LOADER}"))?;
    ensure!(output.status.success(), "{LOADER} cannot list the libraries of {}", program.display());
    Ok(paths_in(&String::from_utf8_lossy(&output.stdout)).map(str::to_owned).collect())
}

/// Returns the absolute paths in the loader's list.
fn paths_in(listed: &str) -> impl Iterator<Item = &str> {
    listed.split_whitespace().filter(|word| word.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn library_paths_are_read_from_the_loaders_list() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths: Vec<_> = paths_in(listed).collect();
        assert_eq!(paths, ["/lib/x86_64-linux-gnu/libz.so.1", LOADER]);
    }

    #[test]
    fn a_folder_comes_after_those_that_contain_it() {
        assert_eq!(parents("usr/share/qemu").collect::<Vec<_>>(), ["usr", "usr/share", "usr/share/qemu"]);
        let files = ["init", "usr/share/qemu/a", "bin/b", "usr/c"].map(|name| (name.to_owned(), Vec::new()));
        assert_eq!(folders(&files), ["bin", "usr", "usr/share", "usr/share/qemu"]);
    }

    #[test]
    fn the_loaded_part_of_a_program_still_runs() {
        let whole = fs::read(std::env::current_exe().unwrap()).unwrap();
        let part = loaded(&whole).unwrap();
        assert!(part.len() < whole.len());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("part");
        fs::copy(std::env::current_exe().unwrap(), &file).unwrap();
        fs::write(&file, part).unwrap();
        let output = Command::new(&file).args(["--list", "--exact", "none"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(loaded(b"#!/bin/sh"), None);
    }
}
