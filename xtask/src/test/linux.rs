//! Boots stock Linux kernels, bare and under Vidar. A journey leads from the menu through one kernel after the other.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::facts::Facts;
use super::lane::Lane;
use super::report::Report;
use super::transparency::{COMPARISONS, Comparison};
use super::{LinuxMachine, Tools, menu, test_dir, vidarctl};
use crate::archive::Archive;
use crate::console::{ANSWER, BOOT, Console, PROMPT};
use crate::grub::Menu;
use crate::guests::{self, Freshness};
use crate::machine::abilities::Ability;
use crate::machine::{Machine, RunningMachine, Spec};
use crate::manifest::{self, Guest};

/// The menu entries of a journey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The entries without Vidar.
    Bare,
    /// The entries under Vidar.
    Vidar,
    /// The entries under Vidar, with the option by which it shows itself in CPUID.
    Announced,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Vidar => "vidar",
            Self::Announced => "announced",
        }
    }

    fn under_vidar(self) -> bool {
        self != Self::Bare
    }

    /// Returns the title of the menu entry.
    fn title(self, guest: &Guest) -> String {
        match self {
            Self::Bare => format!("{}, bare (without Vidar)", guest.title),
            Self::Vidar | Self::Announced => format!("{} under Vidar", guest.title),
        }
    }
}

/// The suites of Debian whose newest kernels are guests with `--newest-kernels`.
pub const NEWEST_KERNELS: [&str; 2] = ["stable", "unstable"];

/// Fetches the newest kernels of these suites, unless that has been done.
pub fn fetch_newest() -> Result<()> {
    for suite in NEWEST_KERNELS {
        Archive::new(Some(suite)).update()?;
        for guest in manifest::load()?.into_iter().filter_map(|guest| guest.of_suite(suite)) {
            guests::kernel(&guest, Freshness::Newest)?;
        }
    }
    Ok(())
}

/// What the emulator of `lane` must be able to do to run Linux.
pub fn needs(lane: Lane) -> Vec<Ability> {
    let mut needs = lane.needs();
    if lane.machine() == Machine::Bochs {
        needs.push(Ability::BochsLinux);
    }
    needs
}

/// The journeys with the same kernels in one lane, bare and under Vidar, whose results are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Course {
    lane: Lane,
    /// The suite of Debian that the kernels come from; `None` stands for what this machine follows.
    suite: Option<&'static str>,
}

/// The facts that the journeys have collected, by course, guest and side.
#[derive(Debug, Default)]
pub struct FactStore {
    facts: Mutex<HashMap<(Course, String, Side), Facts>>,
}

impl Course {
    /// Returns all courses. Those with the newest kernels are included if `newest` is true.
    pub fn all(newest: bool) -> Vec<Self> {
        let suites = NEWEST_KERNELS.iter().copied().map(Some).filter(|_| newest);
        let suites: Vec<_> = [None].into_iter().chain(suites).collect();
        let of = |lane| suites.iter().map(move |&suite| Self { lane, suite });
        Lane::ALL.into_iter().flat_map(of).collect()
    }

    /// What the emulator must be able to do.
    pub fn needs(self) -> Vec<Ability> {
        needs(self.lane)
    }

    /// Returns the sides of the journeys. Vidar shows itself only in a journey with this machine's kernels.
    pub fn sides(self) -> &'static [Side] {
        if self.suite.is_none() {
            &[Side::Vidar, Side::Bare, Side::Announced]
        } else {
            &[Side::Vidar, Side::Bare]
        }
    }

    /// Returns the name of a test. `what` says whether it belongs to a journey or to a comparison.
    fn test(self, what: &str, rest: &str) -> String {
        let suite = self.suite.map_or_else(String::new, |suite| format!("-{suite}"));
        self.lane.test(&format!("{what}{suite}/{rest}"))
    }

    /// Returns the guests of a journey. Where Vidar shows itself, this is only the guest with the most drivers, or in
    /// Bochs, where that one boots slowly, the first guest.
    fn guests(self, side: Side) -> Result<Vec<Guest>> {
        let mut guests = manifest::load()?;
        if side == Side::Announced {
            let first =
                if self.lane.machine() == Machine::Bochs { 0 } else { guests.len().saturating_sub(1) };
            guests = guests.into_iter().skip(first).take(1).collect();
        }
        Ok(match self.suite {
            None => guests,
            Some(suite) => guests.into_iter().filter_map(|guest| guest.of_suite(suite)).collect(),
        })
    }

    /// Returns the names of the guests in the names of the tests, without the suite, which is named before them.
    fn labels(self, side: Side) -> Vec<String> {
        let end = self.suite.map_or_else(String::new, |suite| format!("-{suite}"));
        let label = |guest: Guest| guest.name.strip_suffix(&end).unwrap_or(&guest.name).to_owned();
        self.guests(side).unwrap_or_default().into_iter().map(label).collect()
    }

    /// Returns the names of a journey's tests, in their order.
    pub fn journey_names(self, side: Side) -> Vec<String> {
        let mut names = Vec::new();
        for (index, guest) in self.labels(side).iter().enumerate() {
            let name = |what: &str| self.test("linux", &format!("{}/{guest}/{what}", side.name()));
            if index > 0 {
                names.push(name("reboot-to-menu"));
            }
            names.push(name("boot"));
            names.push(name("vidarctl"));
            names.push(name("facts"));
        }
        names.push(self.test("linux", &format!("{}/poweroff", side.name())));
        names
    }

    /// Returns the names of the comparisons.
    pub fn comparison_names(self) -> Vec<String> {
        self.comparisons().iter().map(|(side, guest, one)| self.comparison_name(*side, guest, one)).collect()
    }

    fn comparison_name(self, side: Side, guest: &str, comparison: &Comparison) -> String {
        self.test("transparency", &format!("{}/{guest}/{}", side.name(), comparison.name))
    }

    /// Returns all comparisons with the bare machine.
    fn comparisons(self) -> Vec<(Side, String, &'static Comparison)> {
        let sides = self.sides().iter().copied().filter(|side| side.under_vidar());
        let guests = sides.flat_map(|side| self.labels(side).into_iter().map(move |guest| (side, guest)));
        let compare = |(side, guest): (Side, String)| {
            COMPARISONS.iter().map(move |comparison| (side, guest.clone(), comparison))
        };
        guests.flat_map(compare).collect()
    }

    /// Boots the first guest, reboots, chooses the next one in the menu over the serial line, and so on. The last guest
    /// powers the machine off.
    pub fn journey(self, side: Side, tools: &Tools, found: &FactStore, report: &Report) -> Result<()> {
        let dir = test_dir(&self.test("linux", side.name()).replace('/', "-"))?;
        let log = dir.join("serial.log");
        let mut names = self.journey_names(side).into_iter();
        let mut begun = Instant::now();
        let mut step = |result: Result<()>| -> Result<(), ()> {
            let name = names.next().unwrap_or_default();
            let time = begun.elapsed();
            begun = Instant::now();
            match result {
                Ok(()) => {
                    report.pass(&name, time);
                    Ok(())
                }
                Err(error) => {
                    report.fail(&name, time, &error, Some(&log));
                    for name in names.by_ref() {
                        let cause = anyhow::anyhow!("not reached");
                        report.fail(&name, Duration::ZERO, &cause, None);
                    }
                    Err(())
                }
            }
        };
        let (guests, labels) = (self.guests(side)?, self.labels(side));
        let (mut running, mut console) = start(self.lane, side, &guests, tools, &dir)?;
        // Each step is reported as it ends. The first one that fails is the last.
        let mut walk = || -> Result<(), ()> {
            for (index, (guest, label)) in guests.iter().zip(&labels).enumerate() {
                if index > 0 {
                    step(reboot(&mut console))?;
                    step(
                        menu::choose(&mut console, &side.title(guest))
                            .and_then(|()| boot(&mut console, side, guest)),
                    )?;
                } else {
                    step(boot(&mut console, side, guest))?;
                }
                step(if side.under_vidar() {
                    vidarctl::check(&mut console, self.lane.extension())
                } else {
                    vidarctl::check_bare(&mut console, self.lane)
                })?;
                step(Facts::collect(&mut console, side.under_vidar()).map(|facts| {
                    let facts = Facts { announced: side == Side::Announced, ..facts };
                    found
                        .facts
                        .lock()
                        .expect("no thread panics while it holds the lock")
                        .insert((self, label.clone(), side), facts);
                }))?;
            }
            step(power_off(&mut running, &mut console))
        };
        let _ = walk();
        Ok(())
    }

    /// Compares what the journeys have found.
    pub fn compare(self, found: &FactStore, report: &Report) {
        let facts = found.facts.lock().expect("no thread panics while it holds the lock");
        for (side, guest, comparison) in self.comparisons() {
            let begun = Instant::now();
            let of = |side| {
                facts.get(&(self, guest.clone(), side)).context("the guest's facts were not collected")
            };
            let result = of(Side::Bare).and_then(|bare| (comparison.compare)(bare, of(side)?));
            report.result(&self.comparison_name(side, &guest, comparison), begun, result, None);
        }
    }
}

fn start(
    lane: Lane,
    side: Side,
    guests: &[Guest],
    tools: &Tools,
    dir: &Path,
) -> Result<(RunningMachine, Console)> {
    let first = guests.first().context("the manifest names no guest")?.clone();
    let mut machine = LinuxMachine::with(lane, dir.to_path_buf(), first);
    machine.guests = guests.to_vec();
    machine.bare_unless(side.under_vidar());
    let options = if side == Side::Announced { "hypervisor-bit=on" } else { "" };
    machine.menu = Menu { timeout: 5, options: options.to_owned(), ..machine.menu };
    machine.spec = Spec { memory: 1024, fixed_clock: true, counts_instructions: true, ..machine.spec };
    machine.start(tools)
}

/// Waits for the shell, and checks that it runs on the kernel of `guest`.
fn boot(console: &mut Console, side: Side, guest: &Guest) -> Result<()> {
    console.expect("Linux version", BOOT)?;
    console.expect(PROMPT, BOOT)?;
    ensure!(console.run("echo $((6 * 7))")? == "42\n", "the shell does not answer");
    let image = fs::read(guests::kernel(guest, Freshness::Any)?)?;
    let (runs, wanted) = (console.run("uname -r")?, release(&image).context("the kernel has no release")?);
    ensure!(runs.trim_end() == wanted, "the kernel is {} and should be {wanted}", runs.trim_end());
    // Without Vidar, GRUB's loader adds the file's name to the command line.
    if side.under_vidar() {
        let command_line = console.run("cat /proc/cmdline")?;
        ensure!(command_line.trim_end() == guest.cmdline, "the command line is {command_line:?}");
    }
    Ok(())
}

/// Returns the release of a bzImage, which is the first word of the text that its field `kernel_version` points to.
pub fn release(image: &[u8]) -> Option<&str> {
    let pointer = image.get(0x20e..0x210)?.try_into().ok()?;
    let text = image.get(0x200 + usize::from(u16::from_le_bytes(pointer))..)?;
    let word = text.split(|byte| [b' ', 0].contains(byte)).next()?;
    str::from_utf8(word).ok().filter(|word| !word.is_empty())
}

fn reboot(console: &mut Console) -> Result<()> {
    console.type_line("reboot")?;
    console.expect(menu::MENU, ANSWER)?;
    Ok(())
}

/// Powers the machine off by the guest's shell.
pub fn power_off(running: &mut RunningMachine, console: &mut Console) -> Result<()> {
    console.type_line("poweroff")?;
    console.expect("Power down", ANSWER)?;
    let ended = running.ended(ANSWER)?;
    ensure!(ended == Some(true), "the machine is still on");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_a_kernel() {
        let mut image = vec![0; 0x800];
        assert_eq!(release(&image), None);
        image[0x20e..0x210].copy_from_slice(&0x500_u16.to_le_bytes());
        assert_eq!(release(&image), None);
        image[0x700..0x70e].copy_from_slice(b"6.1.0-9 (a@b)\0");
        assert_eq!(release(&image), Some("6.1.0-9"));
        assert_eq!(release(&image[..0x20f]), None);
        assert_eq!(release(&image[..0x700]), None);
    }
}
