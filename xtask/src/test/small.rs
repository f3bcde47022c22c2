//! Boots small guests, which are the probe and damaged images, each alone on an ISO.

use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::Result;

use super::lane::Lane;
use super::{Tools, test_dir};
use crate::console::Console;
use crate::grub::Menu;
use crate::iso::{self, Recipe};
use crate::machine::{Iommu, Medium, RunningMachine, Spec, Threads};
use crate::manifest::{Guest, Initrd, Kernel};

/// The name of the only guest.
pub const GUEST: &str = "probe";

/// A small guest and its machine.
#[derive(Debug, Clone, Default)]
pub struct Small {
    /// The name of the folder for the files.
    pub name: String,
    /// The lane of the machine.
    pub lane: Lane,
    /// The kernel's image.
    pub kernel: Vec<u8>,
    /// The kernel's command line.
    pub cmdline: String,
    /// The initrd; if it is empty, the guest has none.
    pub initrd: Vec<u8>,
    /// The menu, whose timeout is ignored.
    pub menu: Menu,
    /// The seconds that the menu waits.
    pub menu_timeout: u32,
    /// The machine's memory in MiB.
    pub memory: u32,
    /// The number of CPUs; 0 means one.
    pub cpus: u32,
    /// How QEMU runs the CPUs. This has an effect only with `clock_of_host`.
    pub threads: Threads,
    /// True if the clock is the host's, and does not count instructions. In Bochs it always counts instructions.
    pub clock_of_host: bool,
    /// True if the firmware is UEFI.
    pub uefi: bool,
    /// True if the ISO is on a disk, and not on a CD.
    pub disk: bool,
    /// True if the machine resets at a triple fault, as real machines do. Otherwise it stops.
    pub survives_triple_fault: bool,
    /// Commands for the debugger of Bochs, which then also stops at the guest's marks.
    pub debugger: Option<String>,
    /// True if MSRs that the machine lacks read as 0 and ignore writes. Otherwise they fault.
    pub lenient_msrs: bool,
    /// True if the machine waits for its debugger.
    pub waits_for_debugger: bool,
    /// True if the machine has a second serial port. Nobody is at its other end.
    pub second_serial: bool,
    /// The IOMMU of a machine with a device that attacks memory.
    pub attacker: Option<Iommu>,
    /// The emulator's name for the CPU model.
    pub cpu: Option<&'static str>,
}

/// A small guest that is booting.
#[derive(Debug)]
pub struct BootedGuest {
    /// The machine.
    pub running: RunningMachine,
    /// The machine's serial console.
    pub console: Console,
}

/// Returns the serial log of the small guest `name`.
pub fn log(name: &str) -> PathBuf {
    super::folder(name).join("serial.log")
}

impl Small {
    /// Makes the ISO, in a folder of its own.
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

    /// Makes the ISO and boots it.
    pub fn boot(&self, tools: &Tools) -> Result<BootedGuest> {
        self.boot_from(self.iso(tools)?)
    }

    /// Boots `iso`, which has been made before.
    pub fn boot_from(&self, iso: PathBuf) -> Result<BootedGuest> {
        let spec = Spec {
            dir: super::folder(&self.name),
            iso,
            medium: if self.disk { Medium::Disk } else { Medium::Cd },
            memory: self.memory,
            cpus: NonZeroU32::new(self.cpus),
            threads: self.threads,
            uefi: self.uefi,
            attacker: self.attacker,
            cpu: self.cpu.map(str::to_owned),
            waits_for_debugger: self.waits_for_debugger,
            fixed_clock: true,
            counts_instructions: !self.clock_of_host,
            stops_at_triple_fault: !self.survives_triple_fault,
            debugger: self.debugger.clone(),
            stops_at_marks: self.debugger.is_some(),
            second_serial: self.second_serial,
            strict_msrs: !self.lenient_msrs,
            verbose: true,
            ..Spec::default()
        };
        let running = self.lane.machine().start(&spec)?;
        let console = Console::new(running.serial()?, &log(&self.name))?;
        Ok(BootedGuest { running, console })
    }
}
