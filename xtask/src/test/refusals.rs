//! What Vidar must refuse, and the sentence that it must say: a table, and the one way to check a row.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Tools;
use super::lane::Lane;
use super::small::{GUEST, Small};
use crate::console::BOOT;
use crate::grub::Menu;
use crate::guests::{self, Freshness};
use crate::{manifest, probe_image};

/// Something that Vidar must refuse.
#[derive(Debug)]
pub struct Refusal {
    /// The test's name.
    pub name: &'static str,
    kernel: Image,
    /// MiB.
    initrd: usize,
    entry: &'static str,
    /// MiB.
    memory: u32,
    /// The only lane where it is refused so; `None` is all.
    lane: Option<Lane>,
    cpu: Option<&'static str>,
    /// All that Vidar says after "cannot start: "; each # stands for a number.
    sentence: &'static str,
}

/// What GRUB gives as the kernel.
#[derive(Debug, Clone, Copy)]
enum Image {
    /// The probe, a good one.
    Probe,
    /// The probe with some bytes of its header changed.
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
    cpu: None,
    sentence: "",
};

/// Menu entries that are wrong by themselves.
const WRONG_ENTRIES: &[(&str, &[&str])] = &[
    ("no-kernel", &["multiboot2 /boot/vidar.elf"]),
    ("multiboot1", &["multiboot /boot/vidar.elf", "module /boot/guests/probe/vmlinuz"]),
];

/// What is said of a CPU without an extension.
pub const NO_EXTENSION: &str = "this CPU has neither VT-x nor AMD-V: use a machine whose CPU has one of them, or boot the \
                                bare menu entry";

/// What is said of one that is too old for either.
const NO_LONG_MODE: &str =
    "this CPU has no 64-bit mode (long mode); use a 64-bit machine, or boot the bare menu entry.";

/// The table.
const REFUSALS: &[Refusal] = &[
    Refusal {
        name: "refusal/too-little-memory",
        kernel: Image::Stock,
        memory: 64,
        sentence: "too little memory for the kernel: it needs # MiB in one piece between # MiB and 4 GiB, and of \
                   the machine's # MiB the largest free piece there has # MiB: give the machine more memory or use \
                   a smaller kernel",
        ..USUAL
    },
    Refusal {
        name: "refusal/cpu-without-vmx",
        lane: Some(Lane::Vmx),
        cpu: Some("p4_prescott_celeron_336"),
        sentence: NO_EXTENSION,
        ..USUAL
    },
    Refusal {
        name: "refusal/cpu-without-svm",
        lane: Some(Lane::Svm),
        cpu: Some("EPYC,-hypervisor,-svm"),
        sentence: NO_EXTENSION,
        ..USUAL
    },
    Refusal {
        name: "refusal/cpu-without-nested-paging",
        lane: Some(Lane::Svm),
        cpu: Some("EPYC,-hypervisor,-npt"),
        sentence: "this CPU's AMD-V lacks nested paging: use a machine with a newer CPU, or boot the bare menu entry",
        ..USUAL
    },
    Refusal {
        name: "refusal/cpu-without-64-bits",
        lane: Some(Lane::Vmx),
        cpu: Some("p3_katmai"),
        sentence: NO_LONG_MODE,
        ..USUAL
    },
    Refusal {
        name: "refusal/cpu-without-64-bits",
        lane: Some(Lane::Svm),
        cpu: Some("pentium3"),
        sentence: NO_LONG_MODE,
        ..USUAL
    },
    Refusal {
        name: "refusal/no-kernel",
        entry: "no-kernel",
        sentence: "no kernel was given: add a line `module2 /path/to/vmlinuz` behind the `multiboot2` line in grub.cfg",
        ..USUAL
    },
    Refusal {
        name: "refusal/multiboot1",
        entry: "multiboot1",
        sentence: "it was not started by a Multiboot2 loader (the magic number is 0x2badb002): in grub.cfg write \
                   `multiboot2` and `module2`",
        ..USUAL
    },
    Refusal {
        name: "refusal/kernel-truncated",
        kernel: Image::Truncated,
        sentence: "the kernel is truncated: its header promises # bytes and the module has #; copy the file again",
        ..USUAL
    },
    Refusal {
        name: "refusal/kernel-garbage",
        kernel: Image::Garbage,
        sentence: "the kernel is not a Linux bzImage (no \"HdrS\" signature): give GRUB the vmlinuz file of a Linux \
                   x86 kernel as the first module",
        ..USUAL
    },
    Refusal {
        name: "refusal/kernel-too-old",
        kernel: Image::OldProtocol,
        sentence: "the kernel speaks boot protocol 2.09 and Vidar needs 2.10 or later: use Linux 2.6.31 or newer",
        ..USUAL
    },
    Refusal {
        name: "refusal/kernel-damaged",
        // The last bytes of the boot sector.
        kernel: Image::Patched(0x1fe, &[0, 0]),
        sentence: "the kernel is damaged: its boot sector does not end in 0xAA55; copy the file again",
        ..USUAL
    },
    Refusal {
        name: "refusal/initrd-does-not-fit",
        // The kernel takes initrds below 16 MiB only.
        kernel: Image::Patched(0x22c, &[0xff, 0xff, 0xff, 0]),
        initrd: 20,
        sentence: "too little memory for the initrd: it needs 20 MiB in one piece below 16 MiB, and of the machine's \
                   # MiB the largest free piece there has # MiB: give the machine more memory or use a smaller initrd",
        ..USUAL
    },
];

/// The refusals of a lane.
pub fn refusals(lane: Lane) -> impl Iterator<Item = &'static Refusal> {
    REFUSALS.iter().filter(move |refusal| refusal.lane.is_none_or(|only| only == lane))
}

impl Refusal {
    /// Boots it and compares what Vidar says.
    pub fn check(&self, lane: Lane, tools: &Tools) -> Result<()> {
        let menu =
            Menu { default: Some(self.entry.to_owned()), extra: WRONG_ENTRIES.to_vec(), ..Menu::default() };
        let small = Small {
            name: lane.folder(self.name),
            lane,
            kernel: self.kernel.bytes(tools)?,
            initrd: vec![0; self.initrd << 20],
            menu,
            memory: self.memory,
            cpu: self.cpu,
            ..Small::default()
        };
        let mut booted = small.boot(tools)?;
        booted.console.expect("cannot start: ", BOOT)?;
        let said = booted.console.expect("\r\n", BOOT)?;
        ensure!(
            matches(self.sentence, &said),
            "Vidar should have said \"{}\" and said \"{said}\"",
            self.sentence
        );
        let more = booted.console.listen(Duration::from_secs(2));
        ensure!(more.is_empty(), "after the refusal there was more: {more}");
        ensure!(booted.running.ended(Duration::ZERO)?.is_none(), "the machine did not stay on");
        Ok(())
    }
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

/// Whether `text` is `pattern`, in which each # stands for a number.
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
    fn names_are_folders() {
        for lane in Lane::ALL {
            let mut names: Vec<_> = refusals(lane).map(|refusal| lane.folder(refusal.name)).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all);
            assert!(names.iter().all(|name| !name.contains('/')));
        }
    }
}
