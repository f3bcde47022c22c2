//! Input from firmware, GRUB and users, in sizes and shapes that a machine at hand may not have.

use std::fs;
use std::num::NonZeroU32;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::lane::Lane;
use super::small::Small;
use super::{LinuxMachine, Tools, test_dir};
use crate::console::{ANSWER, BOOT, Console, PROMPT};
use crate::grub::Menu;
use crate::machine::{RunningMachine, Spec};
use crate::manifest::{Guest, Initrd};
use crate::{initramfs, probe_image};

type Check = fn(&Tools) -> Result<()>;

/// The names of the tests, which are in the lane of AMD-V, and their functions.
pub const TESTS: [(&str, Check); 9] = [
    ("given/three-initrds", |tools| three_initrds("given/three-initrds", true, tools)),
    ("given/three-initrds-bare", |tools| three_initrds("given/three-initrds-bare", false, tools)),
    ("given/300-regions", many_regions),
    ("given/large-ssdt-bios", |tools| large_table("given/large-ssdt-bios", false, 1, tools)),
    ("given/large-ssdt-bios-4-cpus", |tools| large_table("given/large-ssdt-bios-4-cpus", false, 4, tools)),
    ("given/large-ssdt-uefi", |tools| large_table("given/large-ssdt-uefi", true, 1, tools)),
    ("given/large-ssdt-uefi-4-cpus", |tools| large_table("given/large-ssdt-uefi-4-cpus", true, 4, tools)),
    ("given/no-screen", no_screen),
    ("given/kernel-without-its-last-bytes", short_kernel),
];

/// A Linux that has booted to its shell.
struct BootedGuest {
    console: Console,
    _running: RunningMachine,
}

/// A boot of a stock Linux with unusual input.
struct Input<'a> {
    name: &'a str,
    under_vidar: bool,
    cmdline: &'a str,
    options: &'a str,
    /// Additional parts of the initrd.
    initrds: Vec<Vec<u8>>,
    /// A file for GRUB. On the ISO it is the initrd of a guest that is not booted.
    file: Vec<u8>,
    last: &'static [&'static str],
    /// Bytes that are replaced everywhere on the ISO, and the bytes that replace them, of the same length.
    patch: Option<(&'a [u8], &'a [u8])>,
    spec: Spec,
}

impl Default for Input<'_> {
    fn default() -> Self {
        Self {
            name: "",
            under_vidar: true,
            cmdline: "",
            options: "",
            initrds: Vec::new(),
            file: Vec::new(),
            last: &[],
            patch: None,
            spec: Spec::default(),
        }
    }
}

impl Input<'_> {
    fn boot(self, tools: &Tools) -> Result<BootedGuest> {
        let dir = test_dir(&Lane::Svm.folder(self.name))?;
        let mut machine = LinuxMachine::new(Lane::Svm, dir.clone())?;
        for (index, bytes) in self.initrds.into_iter().enumerate() {
            let file = dir.join(format!("part{index}"));
            fs::write(&file, bytes)?;
            machine.add_initrd(file);
        }
        let guest = machine.guest();
        guest.cmdline = format!("{} {}", guest.cmdline, self.cmdline);
        if !self.file.is_empty() {
            let file = dir.join("file");
            fs::write(&file, self.file)?;
            let initrds = vec![Initrd::File(file)];
            let guest = Guest { name: "file".to_owned(), initrds, ..machine.guest().clone() };
            machine.guests.push(guest);
        }
        machine.bare_unless(self.under_vidar);
        machine.menu = Menu { options: self.options.to_owned(), last: self.last, ..machine.menu };
        machine.make_iso(tools)?;
        if let Some((from, to)) = self.patch {
            patch(&machine.spec.iso, from, to)?;
        }
        let Spec { dir, iso, .. } = machine.spec;
        machine.spec = Spec { dir, iso, memory: 1024, fixed_clock: true, verbose: true, ..self.spec };
        let (running, mut console) = machine.start_from_iso()?;
        // The first messages are not waited for, since with many regions Linux has no room for them and drops them.
        console.expect(PROMPT, BOOT)?;
        Ok(BootedGuest { console, _running: running })
    }
}

/// Replaces each `from` in a file by `to`, which has the same length.
fn patch(file: &Path, from: &[u8], to: &[u8]) -> Result<()> {
    let mut bytes = fs::read(file)?;
    let mut found = 0;
    while let Some(at) = bytes.windows(from.len()).position(|bytes| bytes == from) {
        bytes[at..at + to.len()].copy_from_slice(to);
        found += 1;
    }
    ensure!(found > 0, "{} is not on the ISO", String::from_utf8_lossy(from));
    Ok(fs::write(file, bytes)?)
}

/// Linux unpacks all parts of an initrd, and command lines may contain any bytes.
fn three_initrds(name: &str, under_vidar: bool, tools: &Tools) -> Result<()> {
    let part = |file: &str| initramfs::pack_files(&[], &[(file.to_owned(), file.as_bytes().to_vec())]);
    let input = Input {
        name,
        under_vidar,
        cmdline: "name=f_PATCH_r",
        options: "log=debug f_PATCH_r",
        initrds: vec![part("second")?, part("third")?],
        patch: Some((b"f_PATCH_r", b"f\xfc......r")),
        ..Input::default()
    };
    let console = &mut input.boot(tools)?.console;
    let files = console.run("cat /second /third")?;
    ensure!(files.contains("secondthird"), "the files of the initrd's parts contain {files:?}");
    let bytes = console.run("tr -d '\\000-\\177' </proc/cmdline | wc -c")?;
    ensure!(bytes.trim() == "1", "{bytes} bytes of the command line are above 0x7f");
    if under_vidar {
        let log = console.run("vidarctl log")?;
        for words in ["there is no option \"f\\xfc......r\"", "debug: ", "initrd of 3 files"] {
            ensure!(log.contains(words), "Vidar's log has no {words}:\n{log}");
        }
    }
    Ok(())
}

/// GRUB commands that cut 320 pages out of memory, so that the map has an entry on either side of each.
const CUTS: &[&str] =
    &["for a in 8 9; do for b in 0 1 2 3 4 5 6 7 8 9; do for c in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do \
                         cutmem 0x1${a}${b}${c}0000 0x1${a}${b}${c}1000; done; done; done"];
/// The least number of entries that the map then has.
const REGIONS: usize = 320;

/// Linux gets all RAM from a memory map that has more entries than boot_params has room for.
fn many_regions(tools: &Tools) -> Result<()> {
    let input = Input { name: "given/300-regions", last: CUTS, ..Input::default() };
    let console = &mut input.boot(tools)?.console;
    let count =
        |what: &str, text: String| text.trim().parse::<usize>().with_context(|| format!("{what}: {text}"));
    let pieces = count("System RAM", console.run("grep -c 'System RAM' /proc/iomem")?)?;
    ensure!(pieces > REGIONS, "Linux has RAM in {pieces} pieces");
    let regions = count("regions", console.run("ls /sys/firmware/memmap | wc -l")?)?;
    ensure!(regions > REGIONS, "Linux has a map of {regions} regions");
    let total = count("MemTotal", console.run("awk '/MemTotal/ { print $2 }' /proc/meminfo")?)?;
    ensure!(total > (1024 - 96) << 10, "of 1 GiB of memory Linux has {total} KiB");
    Ok(())
}

/// The GRUB command that adds the file of [`Input::file`] to the machine's ACPI tables.
const LOAD_TABLE: &str = "acpi /boot/guests/file/initrd";
/// The size of the large table in bytes.
const LARGE: usize = 1 << 20;

/// In an SSDT that is larger than Vidar's heap, Vidar changes the name of a sleep state and nothing else.
fn large_table(name: &str, uefi: bool, cpus: u32, tools: &Tools) -> Result<()> {
    let input = Input {
        name,
        file: ssdt(LARGE),
        last: &[LOAD_TABLE],
        spec: Spec { uefi, cpus: NonZeroU32::new(cpus), ..Spec::default() },
        ..Input::default()
    };
    let console = &mut input.boot(tools)?.console;
    let online = console.run("nproc")?;
    ensure!(online.trim() == cpus.to_string(), "{online} CPUs are online");
    let table = console.run(
        "for t in /sys/firmware/acpi/tables/SSDT*; do wc -c <$t; grep -c XS3_ $t; grep -c _S3_ $t; done; true",
    )?;
    let lines: Vec<_> = table.split_whitespace().collect();
    let large = LARGE.to_string();
    let found = lines.chunks(3).any(|of_table| of_table == [large.as_str(), "1", "0"]);
    ensure!(
        found,
        "of each SSDT, the size and the numbers of lines with the new and the old name: {lines:?}"
    );
    let sleep = console.run("cat /sys/power/mem_sleep")?;
    ensure!(!sleep.contains("deep"), "Linux can suspend to RAM: {sleep}");
    let complaints = console.run("dmesg | grep -c 'Incorrect checksum' || true")?;
    ensure!(complaints.trim() == "0", "the table's checksum is wrong");
    Ok(())
}

/// Returns an SSDT of `size` bytes with one object, which is a buffer that ends in the name of a sleep state. ACPI
/// Specification 6.5, 20.2 "AML Grammar Definition".
fn ssdt(size: usize) -> Vec<u8> {
    /// The length of what precedes the buffer: the header, NameOp with a name, BufferOp, PkgLength of four bytes, and
    /// the buffer's size with its prefix.
    const BEFORE: usize = 36 + 5 + 1 + 4 + 5;
    let mut table = b"SSDT\0\0\0\0\x02\0VIDAR VIDAR   \x01\0\0\0VDR \x01\0\0\0".to_vec();
    table[4..8].copy_from_slice(&(size as u32).to_le_bytes());
    table.extend_from_slice(b"\x08BIGB\x11");
    // PkgLength counts itself and everything after it.
    let length = size - BEFORE + 4 + 5;
    table.push(0xc0 | (length & 0xf) as u8);
    table.extend_from_slice(&((length >> 4) as u32).to_le_bytes()[..3]);
    table.push(0x0c); // DWordPrefix
    table.extend_from_slice(&((size - BEFORE) as u32).to_le_bytes());
    table.resize(size - 5, b'\n');
    table.extend_from_slice(b"_S3_\n");
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    table
}

/// Under UEFI without a screen, Linux has no screen either, and does not assume a PC's text screen.
fn no_screen(tools: &Tools) -> Result<()> {
    let spec = Spec { uefi: true, no_screen: true, ..Spec::default() };
    let console = &mut Input { name: "given/no-screen", spec, ..Input::default() }.boot(tools)?.console;
    let said = console.run("dmesg | grep 'Console: '")?;
    ensure!(said.contains("dummy device") && !said.contains("VGA"), "Linux has another screen: {said}");
    Ok(())
}

/// A kernel boots although its header, which counts units of 16 bytes, claims some bytes more than the file has.
fn short_kernel(tools: &Tools) -> Result<()> {
    let small = Small {
        name: Lane::Svm.folder("given/kernel-without-its-last-bytes"),
        lane: Lane::Svm,
        kernel: probe_image::rounded_up(tools.probe()?),
        cmdline: "probe=cpuid".to_owned(),
        memory: 256,
        ..Small::default()
    };
    let mut booted = small.boot(tools)?;
    booted.console.expect("probe cpuid: ", BOOT)?;
    booted.console.expect("\r\n", ANSWER)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_right_lengths_and_a_right_checksum() {
        let table = ssdt(0x1_2345);
        assert_eq!((table.len(), table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte))), (0x1_2345, 0));
        assert_eq!(table[36..42], *b"\x08BIGB\x11");
        let length =
            usize::from(table[42] & 0xf) | usize::from(table[43]) << 4 | usize::from(table[44]) << 12;
        assert_eq!(42 + length, table.len(), "the package ends with the table");
        assert_eq!(table.len() - 51, u32::from_le_bytes(table[47..51].try_into().unwrap()) as usize);
    }
}
