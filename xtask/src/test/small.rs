//! Small guests: the probe and damaged images, each alone on an ISO, in seconds.

use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::Result;

use super::lane::Lane;
use super::{Tools, test_dir};
use crate::console::Console;
use crate::grub::Menu;
use crate::iso::{self, Recipe};
use crate::machine::{Medium, Running, Spec, Threads};
use crate::manifest::{Guest, Initrd, Kernel};

/// The name of the only guest.
pub const GUEST: &str = "probe";

/// What is booted, and in what.
#[derive(Debug, Clone, Default)]
pub struct Small {
    /// Names the folder of its files.
    pub name: String,
    /// The machine.
    pub lane: Lane,
    /// The kernel's image.
    pub kernel: Vec<u8>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Its initrd; none if empty.
    pub initrd: Vec<u8>,
    /// The menu; its waiting time does not count.
    pub menu: Menu,
    /// Seconds that it waits.
    pub menu_timeout: u32,
    /// The machine's memory in MiB.
    pub memory: u32,
    /// Its CPUs; 0 is one.
    pub cpus: u32,
    /// How QEMU runs them, which takes `clock_of_host`.
    pub threads: Threads,
    /// Whether its clock is the host's, and not the number of its instructions; that of Bochs never is.
    pub clock_of_host: bool,
    /// Whether its firmware is UEFI.
    pub uefi: bool,
    /// Whether the ISO is on a disk, and not on a CD.
    pub disk: bool,
    /// Whether the machine resets at a triple fault, as real ones do; it stops otherwise.
    pub survives_triple_fault: bool,
    /// What the debugger of Bochs is told before the machine starts; it then stops at the guest's marks.
    pub debugger: Option<&'static str>,
    /// Whether MSRs that the machine lacks read 0 and take what is written; they fault otherwise.
    pub lenient_msrs: bool,
    /// Whether the machine waits for its debugger.
    pub waits_for_debugger: bool,
    /// The machine's CPU, as its emulator names it.
    pub cpu: Option<&'static str>,
}

/// A small guest's machine.
#[derive(Debug)]
pub struct Booted {
    /// The machine.
    pub running: Running,
    /// Its serial console.
    pub console: Console,
}

/// The serial log of the small guest `name`.
pub fn log(name: &str) -> PathBuf {
    super::folder(name).join("serial.log")
}

impl Small {
    /// Makes its ISO, in a folder of its own.
    pub fn iso(&self, tools: &Tools) -> Result<PathBuf> {
        let dir = test_dir(&self.name)?;
        let kernel = dir.join("kernel");
        fs::write(&kernel, &self.kernel)?;
        let mut initrds = Vec::new();
        if !self.initrd.is_empty() {
            let file = dir.join("initrd");
            fs::write(&file, &self.initrd)?;
            initrds.push(Initrd::File(file));
        }
        let guest = Guest {
            name: GUEST.to_owned(),
            title: GUEST.to_owned(),
            kernel: Kernel::File(kernel),
            initrds,
            cmdline: self.cmdline.clone(),
            drivers: Vec::new(),
        };
        let recipe = Recipe {
            guests: vec![guest],
            menu: Menu { timeout: self.menu_timeout, ..self.menu.clone() },
            hypervisor: Some(tools.hypervisor.clone()),
            vidarctl: None,
        };
        let iso = dir.join("vidar.iso");
        iso::make(&recipe, &iso)?;
        Ok(iso)
    }

    /// Makes its ISO and boots it.
    pub fn boot(&self, tools: &Tools) -> Result<Booted> {
        self.boot_from(self.iso(tools)?)
    }

    /// Boots `iso`, which has been made before.
    pub fn boot_from(&self, iso: PathBuf) -> Result<Booted> {
        let spec = Spec {
            dir: super::folder(&self.name),
            iso,
            medium: if self.disk { Medium::Disk } else { Medium::Cd },
            memory: self.memory,
            cpus: NonZeroU32::new(self.cpus),
            threads: self.threads,
            uefi: self.uefi,
            cpu: self.cpu.map(str::to_owned),
            waits_for_debugger: self.waits_for_debugger,
            fixed_clock: true,
            counts_instructions: !self.clock_of_host,
            stops_at_triple_fault: !self.survives_triple_fault,
            debugger: self.debugger.map(str::to_owned),
            stops_at_marks: self.debugger.is_some(),
            strict_msrs: !self.lenient_msrs,
            verbose: true,
            ..Spec::default()
        };
        let running = self.lane.machine().start(&spec)?;
        let console = Console::new(running.serial()?, &log(&self.name))?;
        Ok(Booted { running, console })
    }
}
