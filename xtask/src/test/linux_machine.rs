//! The machine in which a test boots Linux, from the guests in GRUB's menu to the shell.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Tools;
use super::lane::Lane;
use crate::console::{BOOT, Console, PROMPT};
use crate::grub::{self, Menu};
use crate::iso::{self, Recipe};
use crate::machine::{RunningMachine, Spec};
use crate::manifest::{self, Guest, Initrd};
use crate::{build, initramfs};

/// A machine in which a test boots Linux. A test changes what it needs otherwise, and starts the machine.
#[derive(Debug)]
pub struct LinuxMachine {
    lane: Lane,
    /// The guests, in the order of GRUB's menu.
    pub guests: Vec<Guest>,
    /// GRUB's menu.
    pub menu: Menu,
    /// The machine.
    pub spec: Spec,
}

impl LinuxMachine {
    /// A machine whose files are in `dir`, with 512 MiB of memory. GRUB starts the first guest of the manifest under
    /// Vidar, without waiting for a key.
    pub fn new(lane: Lane, dir: PathBuf) -> Result<Self> {
        let guest = manifest::load()?.into_iter().next().context("the manifest names no guest")?;
        Ok(Self::with(lane, dir, guest))
    }

    /// The same machine with another guest.
    pub fn with(lane: Lane, dir: PathBuf, guest: Guest) -> Self {
        let menu = Menu { default: Some(guest.name.clone()), timeout: 0, ..Menu::default() };
        let (iso, cpu) = (dir.join("vidar.iso"), lane.cpu().map(str::to_owned));
        let spec = Spec { dir, iso, cpu, memory: 512, verbose: true, ..Spec::default() };
        Self { lane, guests: vec![guest], menu, spec }
    }

    /// Has GRUB start the first guest without Vidar, unless `under_vidar` is true.
    pub fn bare_unless(&mut self, under_vidar: bool) {
        let name = &self.guests[0].name;
        self.menu.default = Some(if under_vidar { name.clone() } else { grub::bare(name) });
    }

    /// The guest that the machine was made with.
    pub fn guest(&mut self) -> &mut Guest {
        &mut self.guests[0]
    }

    /// Gives the guest another part of its initrd.
    pub fn add_initrd(&mut self, path: PathBuf) {
        self.guest().initrds.push(Initrd::File(path));
    }

    /// Gives the guest these programs of the tests, in its root directory. They are not executable there.
    pub fn add_programs(&mut self, names: &[&str]) -> Result<()> {
        let file = |name: &&str| Ok(((*name).to_owned(), fs::read(build::guest_program(name)?)?));
        let files = names.iter().map(file).collect::<Result<Vec<_>>>()?;
        let archive = self.spec.dir.join("programs");
        fs::write(&archive, initramfs::pack_files(&[], &files)?)?;
        self.add_initrd(archive);
        Ok(())
    }

    /// Makes the ISO.
    pub fn make_iso(&self, tools: &Tools) -> Result<()> {
        let recipe = Recipe {
            guests: self.guests.clone(),
            menu: self.menu.clone(),
            hypervisor: Some(tools.hypervisor.clone()),
            vidarctl: Some(tools.vidarctl.clone()),
        };
        iso::make(&recipe, &self.spec.iso)
    }

    /// Starts the machine from an ISO that has been made.
    pub fn start_from_iso(&self) -> Result<(RunningMachine, Console)> {
        let running = self.lane.machine().start(&self.spec)?;
        let console = Console::new(running.serial()?, &self.spec.dir.join("serial.log"))?;
        Ok((running, console))
    }

    /// Makes the ISO and starts the machine.
    pub fn start(&self, tools: &Tools) -> Result<(RunningMachine, Console)> {
        self.make_iso(tools)?;
        self.start_from_iso()
    }

    /// Makes the ISO, starts the machine, and waits for Linux' shell.
    pub fn boot(&self, tools: &Tools) -> Result<(RunningMachine, Console)> {
        let (running, mut console) = self.start(tools)?;
        console.expect("Linux version", BOOT)?;
        console.expect(PROMPT, BOOT)?;
        Ok((running, console))
    }
}
