//! Adds memory to the machine while Linux runs. Programs then use more memory than there was before, and execute
//! instructions that cause exits there.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::lane::Lane;
use super::{LinuxMachine, Tools, test_dir};
use crate::console::Console;
use crate::machine::{Chipset, Spec};
use crate::manifest;

/// The guest whose kernel supports memory hotplug.
const GUEST: &str = "generic";
/// The MiB that the machine starts with.
const MEMORY: u32 = 384;
/// The MiB that are added.
const ADDED: u32 = 512;
/// The time that Linux has to put the new memory to use.
const PATIENCE: Duration = Duration::from_secs(60);

/// The machine of a test.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    cpus: u32,
}

/// The machines of all tests.
pub const SETUPS: [Setup; 2] = [Setup { cpus: 1 }, Setup { cpus: 2 }];

impl Setup {
    /// Returns the name of the test.
    pub fn test(self) -> String {
        Lane::Svm.test(&format!("memory-added/{}-cpus", self.cpus))
    }

    /// Returns the folder of the test.
    pub fn folder(self) -> String {
        self.test().replace('/', "-")
    }

    /// Boots the machine, adds the memory, and uses it.
    pub fn run(self, tools: &Tools) -> Result<()> {
        let dir = test_dir(&self.folder())?;
        let mut guests = manifest::load()?.into_iter();
        let guest = guests.find(|guest| guest.name == GUEST).context("the manifest lacks the guest")?;
        let mut machine = LinuxMachine::with(Lane::Svm, dir, guest);
        machine.spec = Spec {
            chipset: Chipset::Q35,
            memory: MEMORY,
            max_memory: Some(MEMORY + 2 * ADDED),
            cpus: NonZeroU32::new(self.cpus),
            ..machine.spec
        };
        let (mut running, mut console) = machine.boot(tools)?;
        let before = total(&mut console)?;
        running.monitor()?.add_memory(ADDED.into())?;
        let begun = Instant::now();
        while total(&mut console)? < before + u64::from(ADDED) * 1000 {
            ensure!(begun.elapsed() < PATIENCE, "Linux does not put the added memory to use");
            // Some kernels leave this to user space.
            console.run(
                "for b in /sys/devices/system/memory/memory*; do echo online > $b/state; done 2>/dev/null; true",
            )?;
        }
        use_it(&mut console, before)
    }
}

/// Returns the KiB of memory that Linux has.
fn total(console: &mut Console) -> Result<u64> {
    let said = console.run("awk '/MemTotal/ { print $2 }' /proc/meminfo")?;
    said.trim().parse().with_context(|| format!("/proc/meminfo says {said:?}"))
}

/// Fills more memory than the `before` KiB that there were with copies of programs, and runs these, so that code in the
/// new memory is executed. Busybox executes CPUID when it starts, as does vidarctl.
fn use_it(console: &mut Console, before: u64) -> Result<()> {
    console.run("mkdir -p /new && mount -t tmpfs -o size=100% tmpfs /new && cat /bin/busybox /bin/busybox > /new/size")?;
    let size = console.run("wc -c < /new/size")?;
    let size: u64 = size.trim().parse().with_context(|| format!("wc says {size:?}"))?;
    let copies = (before + 64 * 1024) * 1024 * 2 / size + 1;
    console.run(&format!("for n in $(seq {copies}); do cp /bin/busybox /new/busybox$n || break; done"))?;
    let shmem = console.run("awk '/Shmem:/ { print $2 }' /proc/meminfo")?;
    ensure!(
        shmem.trim().parse::<u64>()? > before,
        "only {shmem:?} KiB are in use, and there were {before} KiB before"
    );
    let ran = console.run(&format!(
        "for n in $(seq {copies}); do /new/busybox$n true && /new/busybox$n rm /new/busybox$n && echo; done | wc -l"
    ))?;
    ensure!(ran.trim() == copies.to_string(), "of {copies} programs only {ran:?} ran");
    let said = console.run("cp /bin/vidarctl /new/ && /new/vidarctl status")?;
    ensure!(said.contains("exits"), "vidarctl says {said:?}");
    Ok(())
}
