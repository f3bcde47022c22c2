//! QEMU with KVM in a Linux that runs in an emulator: KVM that nests, on hosts whose own KVM does not or is not there.
//!
//! The emulator is QEMU with AMD-V, or Bochs with VT-x. The Linux in it (`xtask/nested/init`) is the kernel of the manifest's
//! first guest, with KVM's modules and this host's QEMU. Its own console goes to a file, and its second serial port is the
//! machine's first one.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, ProgramHeader};

use super::qemu::{self, QEMU};
use super::{LINUX_LOG, Medium, Ports, Spec, bochs, kvm, tied_to_us};
use crate::grub::{self, Menu};
use crate::guests::{self, Freshness};
use crate::iso::{self, Recipe};
use crate::manifest::{Guest, Initrd, Kernel};
use crate::{initramfs, manifest, modules, packages, paths};

/// What differs between the emulators.
#[derive(Debug)]
struct Outer {
    /// KVM's module for the extension.
    module: &'static kvm::Module,
    /// The emulated CPU, which has the extension with all that KVM hands on.
    cpu: &'static str,
    /// What the Linux with KVM is told besides [`COMMAND_LINE`].
    command_line: &'static str,
}

const IN_QEMU: Outer = Outer {
    module: &kvm::AMD,
    // Without the bit that CPUs leave to hypervisors: this machine plays metal.
    cpu: "EPYC-Milan,-hypervisor,+svm,+npt",
    command_line: "",
};

const IN_BOCHS: Outer = Outer {
    module: &kvm::INTEL,
    cpu: "corei7_skylake_x",
    // A triple fault ends Bochs, where another reset would start the Linux with KVM once more.
    command_line: " reboot=triple",
};

/// CPUs of the Linux with KVM in Bochs. Bochs 2.7 lets no external interrupt end a guest that was entered with IF clear. So
/// where a guest waits like that, its thread keeps a CPU of the Linux around it, and another must be there for what it waits for.
const CPUS_IN_BOCHS: u32 = 2;
/// MiB of memory for the Linux with KVM, beside the machine's own.
const MEMORY: u32 = 1536;
/// The command line of that Linux. A panic ends it.
const COMMAND_LINE: &str = "console=ttyS0,115200 quiet loglevel=4 panic=1 mitigations=off tsc=reliable";
/// Where the machine's ISO and the arguments of its QEMU are, or what is done in its place.
const FOLDER: &str = "machine";
/// Files that QEMU loads into a PC.
const FIRMWARE: &[(&str, &[&str])] = &[
    ("usr/share/seabios", &["bios-256k.bin", "vgabios-stdvga.bin"]),
    ("usr/share/qemu", &["kvmvapic.bin", "linuxboot_dma.bin"]),
];
/// The loader of shared libraries.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// What the Linux with KVM does in place of running a machine.
#[derive(Debug, Clone, Default)]
pub struct Errand {
    /// The script for its shell. What it prints goes to the machine's serial port.
    pub script: String,
    /// A program of this host that it runs, which is in /usr/bin.
    pub program: PathBuf,
    /// Other files, by their paths.
    pub files: Vec<(String, Vec<u8>)>,
}

/// The Linux with KVM: its kernel, its initramfs in the machine's folder, and its command line.
struct Linux {
    kernel: PathBuf,
    initrd: PathBuf,
    command_line: String,
}

/// The command that runs QEMU, with `spec` for the machine in KVM.
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

/// The command that runs Bochs, with `spec` for the machine in KVM. Bochs starts from an ISO.
pub fn in_bochs(spec: &Spec, ports: Ports) -> Result<Command> {
    let linux = linux(spec, &IN_BOCHS)?;
    let guest = Guest {
        name: "kvm".to_owned(),
        title: "Linux with KVM".to_owned(),
        kernel: Kernel::File(linux.kernel),
        initrds: vec![Initrd::File(linux.initrd)],
        // By the CPU's own word a second of the TSC would take minutes.
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

/// Returns true if the machine in KVM was powered off: its QEMU has ended without an error, as has the emulator around it.
pub fn ended_well(status: ExitStatus, log: &str) -> bool {
    (status.success() || bochs::ended_well(status, log)) && log.contains("nested: the machine ended with 0")
}

/// The Linux with KVM that runs the machine of `spec`, or its errand.
fn linux(spec: &Spec, outer: &Outer) -> Result<Linux> {
    ensure!(
        spec.disks.is_empty() && !spec.uefi,
        "a machine in a nested KVM has a BIOS, and no disks of its own"
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

/// What the machine is made of: its ISO, and the arguments of its QEMU, one a line.
fn machine(spec: &Spec, outer: &Outer) -> Result<Vec<u8>> {
    let inner = Spec {
        dir: "/".into(),
        iso: "vidar.iso".into(),
        medium: Medium::Virtio,
        verbose: false,
        counts_instructions: false,
        ..spec.clone()
    };
    let none = Ports { serial: None, monitor: None, debugger: None };
    let mut command = qemu::machine(&inner, none, &outer.module.cpu())?;
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

/// An errand's script and files.
fn work(errand: &Errand) -> Result<Vec<u8>> {
    let mut files = vec![(format!("{FOLDER}/errand"), errand.script.clone().into_bytes())];
    files.extend(errand.files.iter().cloned());
    initramfs::pack_plain(&folders(&files), &files)
}

/// What the Linux with KVM is made of, but for the modules: busybox, QEMU with its libraries and firmware, and another
/// program with its libraries.
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

/// The folders that the files are in, each after those that it is in itself.
fn folders(files: &[(String, Vec<u8>)]) -> Vec<String> {
    let homes = files.iter().filter_map(|(name, _)| Some(name.rsplit_once('/')?.0));
    homes.flat_map(parents).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The folder and all that it is in, by their paths.
fn parents(folder: &str) -> impl Iterator<Item = String> + '_ {
    let ends = folder.match_indices('/').map(|(end, _)| end).chain([folder.len()]);
    ends.map(|end| folder[..end].to_owned())
}

/// What of a program is loaded. What comes after that is for debuggers, and may be most of it.
fn loaded(program: &[u8]) -> Option<&[u8]> {
    let header = FileHeader64::<Endianness>::parse(program).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, program).ok()?;
    let end = segments.iter().map(|segment| segment.p_offset(endian) + segment.p_filesz(endian)).max()?;
    program.get(..usize::try_from(end).ok()?)
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
        let files = ["init", "usr/share/qemu/a", "bin/b", "usr/c"].map(|name| (name.to_owned(), Vec::new()));
        assert_eq!(folders(&files), ["bin", "usr", "usr/share", "usr/share/qemu"]);
    }

    #[test]
    fn a_program_without_what_debuggers_read_still_runs() {
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
