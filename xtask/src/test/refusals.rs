//! What Vidar must refuse, with the sentence that it must print on the serial line and on the screen. A row of the
//! table is a test, and all rows are checked in the same way.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::lane::Lane;
use super::screen::Screen;
use super::screen::font::Font;
use super::small::{BootedGuest, GUEST, Small};
use super::{Tools, folder};
use crate::console::{ANSWER, BOOT};
use crate::grub::Menu;
use crate::guests::{self, Freshness};
use crate::{manifest, probe_image};

/// A boot that Vidar must refuse.
#[derive(Debug)]
struct Refusal {
    name: &'static str,
    kernel: Image,
    /// The size of the initrd in MiB.
    initrd: usize,
    entry: &'static str,
    /// The size of memory in MiB.
    memory: u32,
    /// The only lane of this test; `None` means all.
    lane: Option<Lane>,
    /// True if the test runs only on a machine with a BIOS.
    bios_only: bool,
    cpu: Option<&'static str>,
    /// Everything that Vidar prints after "cannot start: ". Each # stands for a number.
    sentence: &'static str,
}

/// What GRUB loads as the kernel.
#[derive(Debug, Clone, Copy)]
enum Image {
    /// The probe.
    Probe,
    /// The probe with these bytes at this offset.
    Patched(usize, &'static [u8]),
    Truncated,
    Garbage,
    OldProtocol,
    /// The first guest's kernel.
    Stock,
}

const USUAL: Refusal = Refusal {
    name: "",
    kernel: Image::Probe,
    initrd: 0,
    entry: GUEST,
    memory: 256,
    lane: None,
    bios_only: false,
    cpu: None,
    sentence: "",
};

/// What precedes the sentence: the beginning of an error line of Vidar's, and of a refusal.
const VIDAR: &str = "vidar: error: ";
const BEFORE: &str = "cannot start: ";

/// The MiB of memory that UEFI and GRUB use. Without this addition, GRUB itself would refuse some of the boots.
const FIRMWARE: u32 = 32;

/// Menu entries that are wrong, with the names of the tests.
const WRONG_ENTRIES: &[(&str, &[&str])] = &[
    ("no-kernel", &["multiboot2 /boot/vidar.elf", "set gfxpayload=$screen"]),
    ("multiboot1", &["multiboot /boot/vidar.elf", "module /boot/guests/probe/vmlinuz"]),
];

/// The sentence about a CPU without an extension.
const NO_EXTENSION: &str = "this CPU has neither VT-x nor AMD-V: use a machine whose CPU has one of them, or boot the \
                                bare menu entry";

/// The sentence about a CPU without 64-bit mode.
const NO_LONG_MODE: &str =
    "this CPU has no 64-bit mode (long mode); use a 64-bit machine, or boot the bare menu entry.";

/// The table of refusals.
const REFUSALS: &[Refusal] = &[
    Refusal {
        name: "too-little-memory",
        kernel: Image::Stock,
        memory: 64,
        sentence: "too little memory for the kernel: it needs # MiB in one piece between # MiB and 4 GiB, and of \
                   the machine's # MiB the largest free piece there has # MiB: give the machine more memory or use \
                   a smaller kernel",
        ..USUAL
    },
    Refusal {
        name: "cpu-without-vmx",
        lane: Some(Lane::Vmx),
        cpu: Some("p4_prescott_celeron_336"),
        sentence: NO_EXTENSION,
        ..USUAL
    },
    Refusal {
        name: "cpu-without-svm",
        lane: Some(Lane::Svm),
        cpu: Some("EPYC,-hypervisor,-svm"),
        sentence: NO_EXTENSION,
        ..USUAL
    },
    Refusal {
        name: "cpu-of-intel-without-vmx",
        lane: Some(Lane::Svm),
        cpu: Some("Nehalem"),
        sentence: NO_EXTENSION,
        ..USUAL
    },
    Refusal {
        name: "cpu-without-nested-paging",
        lane: Some(Lane::Svm),
        cpu: Some("EPYC,-hypervisor,-npt"),
        sentence: "this CPU's AMD-V lacks nested paging: use a machine with a newer CPU, or boot the bare menu entry",
        ..USUAL
    },
    Refusal {
        name: "cpu-without-64-bits",
        lane: Some(Lane::Vmx),
        cpu: Some("p3_katmai"),
        sentence: NO_LONG_MODE,
        ..USUAL
    },
    Refusal {
        name: "cpu-without-64-bits",
        lane: Some(Lane::Svm),
        // The UEFI firmware itself needs 64-bit mode.
        bios_only: true,
        cpu: Some("pentium3"),
        sentence: NO_LONG_MODE,
        ..USUAL
    },
    Refusal {
        name: "cpu-without-no-execute",
        lane: Some(Lane::Svm),
        // Linux could use this CPU, but 64-bit UEFI firmware could not.
        bios_only: true,
        cpu: Some("EPYC,-hypervisor,-nx"),
        sentence: "this CPU's no-execute pages are switched off: enable them in the firmware's setup (\"Execute Disable\", \
                   \"XD\" or \"NX\"), or boot the bare menu entry",
        ..USUAL
    },
    Refusal {
        name: "no-kernel",
        entry: "no-kernel",
        sentence: "no kernel was given: add a line `module2 /path/to/vmlinuz` below the `multiboot2` line in grub.cfg",
        ..USUAL
    },
    Refusal {
        name: "multiboot1",
        entry: "multiboot1",
        sentence: "Vidar was not started by a Multiboot2 loader (the magic number is 0x2badb002): use `multiboot2` and \
                   `module2` in grub.cfg",
        ..USUAL
    },
    Refusal {
        name: "kernel-truncated",
        kernel: Image::Truncated,
        sentence: "the kernel is truncated: its header promises # bytes and the module has #; copy the file again",
        ..USUAL
    },
    Refusal {
        name: "kernel-garbage",
        kernel: Image::Garbage,
        sentence: "the kernel is not a Linux bzImage (no \"HdrS\" signature): give GRUB the vmlinuz file of a Linux \
                   x86 kernel as the first module",
        ..USUAL
    },
    Refusal {
        name: "kernel-too-old",
        kernel: Image::OldProtocol,
        sentence: "the kernel speaks boot protocol 2.09 and Vidar needs 2.10 or later: use Linux 2.6.31 or newer",
        ..USUAL
    },
    Refusal {
        name: "kernel-damaged",
        // The patch is in the last bytes of the boot sector.
        kernel: Image::Patched(0x1fe, &[0, 0]),
        sentence: "the kernel is damaged: its boot sector does not end in 0xAA55; copy the file again",
        ..USUAL
    },
    Refusal {
        name: "initrd-does-not-fit",
        // According to the patched header, the initrd must be below 16 MiB.
        kernel: Image::Patched(0x22c, &[0xff, 0xff, 0xff, 0]),
        initrd: 20,
        sentence: "too little memory for the initrd: it needs 20 MiB in one piece below 16 MiB, and of the machine's \
                   # MiB the largest free piece there has # MiB: give the machine more memory or use a smaller initrd",
        ..USUAL
    },
];

/// A refusal, and the machine on which it is tested.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    refusal: &'static Refusal,
    lane: Lane,
    uefi: bool,
}

/// The refusals of a lane, on machines with a BIOS and, in the lane of AMD-V, with UEFI.
pub fn cases(lane: Lane) -> impl Iterator<Item = Case> {
    let here = move |refusal: &&Refusal| refusal.lane.is_none_or(|only| only == lane);
    let with = move |uefi: bool| {
        let tried = move |refusal: &&Refusal| !uefi || lane == Lane::Svm && !refusal.bios_only;
        REFUSALS.iter().filter(here).filter(tried).map(move |refusal| Case { refusal, lane, uefi })
    };
    with(false).chain(with(true))
}

impl Case {
    /// The test's name, without its lane.
    pub fn name(self) -> String {
        let firmware = if self.uefi { "uefi/" } else { "" };
        format!("{firmware}refusal/{}", self.refusal.name)
    }

    /// Boots the machine, and compares what Vidar says.
    pub fn check(self, tools: &Tools) -> Result<()> {
        let Self { refusal, lane, uefi } = self;
        let menu = Menu {
            default: Some(refusal.entry.to_owned()),
            extra: WRONG_ENTRIES.to_vec(),
            ..Menu::default()
        };
        let name = lane.folder(&self.name());
        let small = Small {
            name: name.clone(),
            lane,
            uefi,
            kernel: refusal.kernel.bytes(tools)?,
            initrd: vec![0; refusal.initrd << 20],
            menu,
            memory: refusal.memory + if uefi { FIRMWARE } else { 0 },
            cpu: refusal.cpu,
            ..Small::default()
        };
        let mut booted = small.boot(tools)?;
        booted.console.expect(BEFORE, BOOT)?;
        let said = booted.console.expect("\r\n", BOOT)?;
        let wanted = refusal.sentence;
        ensure!(matches(wanted, &said), "Vidar should have said \"{wanted}\", but it said \"{said}\"");
        let more = booted.console.listen(Duration::from_secs(2));
        ensure!(more.is_empty(), "after the refusal there was more output: {more}");
        // Programs cannot read the screen of Bochs.
        if lane == Lane::Svm {
            on_screen(&mut booted, &name, uefi, &format!("{VIDAR}{BEFORE}{said}"))?;
        }
        ensure!(booted.running.ended(Duration::ZERO)?.is_none(), "the machine did not stay on");
        Ok(())
    }
}

/// Checks that the screen also shows the sentence, and nothing below it.
fn on_screen(booted: &mut BootedGuest, name: &str, uefi: bool, sentence: &str) -> Result<()> {
    let mut screen = Screen::of(&mut booted.running, &folder(name))?;
    if uefi {
        screen.wait("refusal", &Font::vidar(), ANSWER, |text| text.ends_with(sentence))?;
    } else {
        let text = screen.text_memory()?;
        ensure!(text.ends_with(sentence), "the screen shows:\n{}", text.rows().join("\n").trim_end());
        // The picture also has a cursor, so what is below the sentence is not checked there.
        screen.wait("refusal", &Font::text_mode()?, ANSWER, |text| text.shows(sentence))?;
    }
    let status = screen.monitor.status()?;
    ensure!(status == "running", "the machine is {status}");
    Ok(())
}

impl Image {
    fn bytes(self, tools: &Tools) -> Result<Vec<u8>> {
        let probe = tools.probe()?;
        Ok(match self {
            Self::Probe => probe.to_vec(),
            Self::Patched(offset, bytes) => {
                let mut image = probe.to_vec();
                image[offset..offset + bytes.len()].copy_from_slice(bytes);
                image
            }
            Self::Truncated => probe_image::truncated(probe),
            Self::Garbage => probe_image::garbage(),
            Self::OldProtocol => probe_image::old_protocol(probe),
            Self::Stock => std::fs::read(guests::kernel(&manifest::load()?[0], Freshness::Any)?)?,
        })
    }
}

/// Returns true if `text` matches `pattern`, in which each # stands for a number.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('#');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    for part in parts {
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        if after.len() == rest.len() {
            return false;
        }
        match after.strip_prefix(part) {
            Some(next) => rest = next,
            None => return false,
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_matches_a_number_and_nothing_else() {
        assert!(matches("needs # MiB of #", "needs 12 MiB of 3"));
        assert!(matches("plain", "plain"));
        for text in ["needs MiB of 3", "needs x MiB of 3", "needs 12 MiB of 3.", "needs 12 MiB of ", "x"] {
            assert!(!matches("needs # MiB of #", text), "{text}");
        }
    }

    #[test]
    fn each_test_has_a_folder_of_its_own() {
        for lane in Lane::ALL {
            let mut names: Vec<_> = cases(lane).map(|case| lane.folder(&case.name())).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all);
            assert!(names.iter().all(|name| !name.contains('/')));
        }
    }
}
