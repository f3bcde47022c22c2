//! Memory that is put into the machine while Linux runs: programs then use more than there was before, and execute what
//! exits from there.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::lane::Lane;
use super::{Tools, test_dir};
use crate::console::{BOOT, Console, PROMPT};
use crate::grub::Menu;
use crate::iso::{self, Recipe};
use crate::machine::{Chipset, Spec};
use crate::manifest;

/// The kernel that can take memory in.
const GUEST: &str = "generic";
/// MiB that the machine starts with.
const MEMORY: u32 = 384;
/// MiB that are added.
const ADDED: u32 = 512;
/// How long Linux may take to have it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine with so many CPUs.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    cpus: u32,
}

/// All of them.
pub const SETUPS: [Setup; 2] = [Setup { cpus: 1 }, Setup { cpus: 2 }];

impl Setup {
    /// The name of its test.
    pub fn test(self) -> String {
        Lane::Svm.test(&format!("memory-added/{}-cpus", self.cpus))
    }

    /// The folder of its test.
    pub fn folder(self) -> String {
        self.test().replace('/', "-")
    }

    /// Boots it, adds the memory and has it used.
    pub fn run(self, tools: &Tools) -> Result<()> {
        let dir = test_dir(&self.folder())?;
        let guests = manifest::load()?.into_iter().filter(|guest| guest.name == GUEST).collect();
        let menu = Menu { default: Some(GUEST.to_owned()), timeout: 0, ..Menu::default() };
        let iso = dir.join("vidar.iso");
        let hypervisor = Some(tools.hypervisor.clone());
        iso::make(&Recipe { guests, menu, hypervisor, vidarctl: Some(tools.vidarctl.clone()) }, &iso)?;
        let spec = Spec {
            dir: dir.clone(),
            iso,
            chipset: Chipset::Q35,
            memory: MEMORY,
            max_memory: Some(MEMORY + 2 * ADDED),
            cpus: NonZeroU32::new(self.cpus),
            ..Spec::default()
        };
        let mut running = Lane::Svm.machine().start(&spec)?;
        let mut console = Console::new(running.serial()?, &dir.join("serial.log"))?;
        console.expect("vidar: ", BOOT)?;
        console.expect(PROMPT, BOOT)?;
        let before = total(&mut console)?;
        running.monitor()?.add_memory(ADDED.into())?;
        let begun = Instant::now();
        while total(&mut console)? < before + u64::from(ADDED) * 1000 {
            ensure!(begun.elapsed() < PATIENCE, "Linux does not take the memory in");
            // Some kernels leave it to user space to put it to use.
            console.run(
                "for b in /sys/devices/system/memory/memory*; do echo online > $b/state; done 2>/dev/null; true",
            )?;
        }
        used(&mut console, before)
    }
}

/// KiB of memory that Linux has.
fn total(console: &mut Console) -> Result<u64> {
    let said = console.run("awk '/MemTotal/ { print $2 }' /proc/meminfo")?;
    said.trim().parse().with_context(|| format!("/proc/meminfo says {said:?}"))
}

/// Has more memory used than the `before` KiB that there were, by copies of programs: so pages of the new memory hold
/// code. Busybox looks at CPUID when it starts, and so does the tool.
fn used(console: &mut Console, before: u64) -> Result<()> {
    console.run("mkdir -p /new && mount -t tmpfs -o size=100% tmpfs /new && cat /bin/busybox /bin/busybox > /new/size")?;
    let size = console.run("wc -c < /new/size")?;
    let size: u64 = size.trim().parse().with_context(|| format!("wc says {size:?}"))?;
    let copies = (before + 64 * 1024) * 1024 * 2 / size + 1;
    console.run(&format!("for n in $(seq {copies}); do cp /bin/busybox /new/busybox$n || break; done"))?;
    let shmem = console.run("awk '/Shmem:/ { print $2 }' /proc/meminfo")?;
    ensure!(shmem.trim().parse::<u64>()? > before, "of {before} KiB before, {shmem:?} are in use");
    let ran = console.run(&format!(
        "for n in $(seq {copies}); do /new/busybox$n true && /new/busybox$n rm /new/busybox$n && echo; done | wc -l"
    ))?;
    ensure!(ran.trim() == copies.to_string(), "of {copies} programs {ran:?} ran");
    let told = console.run("cp /bin/vidarctl /new/ && /new/vidarctl status")?;
    ensure!(told.contains("exits"), "vidarctl says {told:?}");
    Ok(())
}
