//! Boots whole Debians from their disks by their own GRUB, installs Vidar's package in them, and compares what they see
//! bare and under Vidar. The way through a disk's tests is one machine's, which is rebooted in between.

mod debs;
mod guard;
mod guest;
mod menu;
mod packages;
mod state;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};

use self::debs::Debs;
use self::guest::Guest;
use self::state::State;
use super::facts::hidden;
use super::lane::Lane;
use super::report::Report;
use super::{Tools, test_dir};
use crate::console::{ANSWER, BOOT, Console};
use crate::distribution::{self, Layout};
use crate::machine::disk::{Bus, Disk, Format};
use crate::machine::{Chipset, Medium, Spec};

/// What a disk is booted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Firmware {
    Bios,
    Uefi,
    /// UEFI with Secure Boot on.
    SecureBoot,
}

/// A disk and the firmware that boots from it.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    layout: Layout,
    firmware: Firmware,
}

/// All courses, the longest first.
pub const COURSES: [Course; 5] = [
    Course { layout: Layout::Plain, firmware: Firmware::Uefi },
    Course { layout: Layout::Plain, firmware: Firmware::Bios },
    Course { layout: Layout::Lvm, firmware: Firmware::Uefi },
    Course { layout: Layout::Lvm, firmware: Firmware::Bios },
    Course { layout: Layout::Plain, firmware: Firmware::SecureBoot },
];

/// The key that leads back to the menu.
const ESCAPE: &str = "\x1b";

/// Ctrl-A, the key that moves the menu's highlight to the first entry.
const FIRST_ENTRY: &str = "\x01";

/// What a test does.
#[derive(Clone, Copy)]
enum Step {
    /// It does something to the guest. The next one can only be taken if that succeeds.
    Do(fn(&mut Guest) -> Result<()>),
    /// It compares what was collected bare and under Vidar.
    Compare(fn(&State, &State) -> Result<()>),
}

/// The steps of each course, with the last parts of the tests' names.
const FIRST: [(&str, Step); 2] = [("bare", Step::Do(bare)), ("install", Step::Do(packages::install))];

/// The steps that follow where Vidar can be started.
const UNDER_VIDAR: [(&str, Step); 5] = [
    ("vidar", Step::Do(vidar)),
    ("command-line", Step::Compare(State::same_command_line)),
    ("units", Step::Compare(State::same_units)),
    ("messages", Step::Compare(State::same_messages)),
    ("journal", Step::Compare(State::same_journal)),
];

/// The step that follows from a BIOS.
const GUARD: [(&str, Step); 1] = [("guard", Step::Do(guard::refuses))];

/// The steps that follow on the plain disk.
const MORE: [(&str, Step); 5] = [
    ("second-kernel", Step::Do(packages::second_kernel)),
    ("upgrade", Step::Do(packages::upgrade)),
    ("by-default", Step::Do(by_default)),
    ("purge", Step::Do(packages::purge)),
    ("as-before", Step::Do(as_before)),
];

/// The step that follows from a BIOS, as the control of `guard`.
const UNGUARDED: [(&str, Step); 1] = [("unguarded", Step::Do(guard::bare))];

/// The step that follows where Vidar cannot be started.
const REFUSAL: [(&str, Step); 1] = [("refusal", Step::Do(refusal))];

/// The last step.
const POWER_OFF: (&str, Step) = ("poweroff", Step::Do(power_off));

impl Course {
    /// Returns the names of the tests, in their order.
    pub fn names(self, lane: Lane) -> Vec<String> {
        self.steps().map(|(step, _)| lane.test(&format!("{}/{step}", self.name()))).collect()
    }

    fn name(self) -> String {
        let firmware = match self.firmware {
            Firmware::Bios => "bios",
            Firmware::Uefi => "uefi",
            Firmware::SecureBoot => "secure-boot",
        };
        format!("distribution/{firmware}/{}", self.layout.name())
    }

    fn steps(self) -> impl Iterator<Item = (&'static str, Step)> {
        let next: &[&[_]] = match (self.firmware, self.layout) {
            (Firmware::SecureBoot, _) => &[&REFUSAL],
            (Firmware::Bios, Layout::Plain) => &[&UNDER_VIDAR, &GUARD, &MORE, &UNGUARDED],
            (_, Layout::Plain) => &[&UNDER_VIDAR, &MORE],
            (_, Layout::Lvm) => &[&UNDER_VIDAR],
        };
        FIRST.into_iter().chain(next.iter().copied().flatten().copied()).chain([POWER_OFF])
    }

    /// Takes the steps, up to the first that fails. A comparison that fails keeps no other step from being taken.
    pub fn run(self, lane: Lane, tools: &Tools, report: &Report) -> Result<()> {
        let mut begun = Instant::now();
        let (mut guest, log) = self.start(lane, tools)?;
        let mut failed = false;
        for ((_, step), name) in self.steps().zip(self.names(lane)) {
            let result = match step {
                Step::Do(_) if failed => Err(anyhow!("not reached")),
                Step::Do(work) => work(&mut guest),
                Step::Compare(compare) => guest.both().and_then(|(bare, vidar)| compare(bare, vidar)),
            };
            failed |= result.is_err() && matches!(step, Step::Do(_));
            report.result(&name, begun, result, Some(&log));
            begun = Instant::now();
        }
        Ok(())
    }

    /// Starts the machine. What the guest writes to its disk is lost when the machine ends.
    fn start(self, lane: Lane, tools: &Tools) -> Result<(Guest, PathBuf)> {
        distribution::get()?;
        let dir = test_dir(&lane.folder(&self.name()))?;
        let (debs, path) = Debs::new(tools, &dir)?;
        let spec = Spec {
            dir: dir.clone(),
            iso: self.layout.disk(),
            medium: Medium::Virtio,
            disks: vec![Disk { path, format: Format::Raw, bus: Bus::Virtio }],
            memory: 1024,
            cpus: NonZeroU32::new(2),
            // With the older chipset and two CPUs, OVMF did not come up again after a reset, bare.
            chipset: if self.firmware == Firmware::Bios { Chipset::Pc } else { Chipset::Q35 },
            uefi: self.firmware == Firmware::Uefi,
            secure_boot: self.firmware == Firmware::SecureBoot,
            // When it counts instructions, QEMU 7.2 hangs as Linux starts the second CPU, bare as under Vidar.
            counts_instructions: false,
            verbose: true,
            ..Spec::default()
        };
        let running = lane.machine().start(&spec)?;
        let log = dir.join("serial.log");
        let console = Console::new(running.serial()?, &log)?;
        Ok((Guest { running, console, debs, bare: None, vidar: None }, log))
    }
}

/// Boots to the login prompt without Vidar.
fn bare(guest: &mut Guest) -> Result<()> {
    distribution::log_in(&mut guest.console)?;
    guest.console.run("! test -e /boot/vidar.elf")?;
    guest.bare = Some(State::collect(&mut guest.console)?);
    Ok(())
}

/// Boots the entry under Vidar, which is chosen for one boot by GRUB's own command.
fn vidar(guest: &mut Guest) -> Result<()> {
    guest.console.run("grub-reboot vidar")?;
    guest.reboot()?;
    under_vidar(guest)?;
    guest.vidar = Some(State::collect(&mut guest.console)?);
    Ok(())
}

/// Chooses the entry that the menu has in place of those under Vidar. It says why there are none, and a key leads back
/// to the menu.
fn refusal(guest: &mut Guest) -> Result<()> {
    const WHY: &str = "Vidar has no signature, so GRUB cannot start it while Secure Boot is on.";
    let console = &mut guest.console;
    let doctor = console.run("vidarctl doctor --json; echo status=$?")?;
    ensure!(
        doctor.contains("status=1") && doctor.contains("Secure Boot is on"),
        "vidarctl doctor says: {doctor}"
    );
    console.run("grub-reboot vidar-secure-boot")?;
    console.type_line("systemctl reboot")?;
    console.expect(super::menu::MENU, BOOT)?;
    console.expect(WHY, ANSWER)?;
    console.press(ESCAPE)?;
    console.expect(super::menu::MENU, ANSWER)?;
    // The entry is still highlighted, so another one has to be chosen.
    console.press(FIRST_ENTRY)?;
    console.press("\r")?;
    distribution::log_in(console)
}

/// Boots what the menu starts by itself, which is the newest kernel under Vidar by the setting of the package.
fn by_default(guest: &mut Guest) -> Result<()> {
    guest.reboot()?;
    under_vidar(guest)?;
    let release = guest.console.run("uname -r")?;
    ensure!(release.trim() == guest.debs.release, "the kernel is {release}");
    Ok(())
}

/// Boots the first kernel without Vidar, once its package has been purged.
fn as_before(guest: &mut Guest) -> Result<()> {
    menu::boot_first_kernel_next(&mut guest.console, &guest.debs.release)?;
    guest.reboot()?;
    packages::as_before(guest)
}

/// Checks that Vidar is there, as its tool says, and that both CPUs are.
fn under_vidar(guest: &mut Guest) -> Result<()> {
    let status = guest.console.run("vidarctl status --json")?;
    ensure!(hidden(&status).is_ok(), "vidarctl says: {status}");
    let cpus = guest.console.run("nproc")?;
    ensure!(cpus.trim() == "2", "nproc says {cpus}");
    Ok(())
}

fn power_off(guest: &mut Guest) -> Result<()> {
    guest.console.type_line("systemctl poweroff")?;
    guest.console.expect("Power down", BOOT)?;
    ensure!(guest.running.ended(ANSWER)? == Some(true), "the machine is still on");
    Ok(())
}
