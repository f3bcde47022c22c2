//! Stock Linux kernels, bare and under Vidar: journeys from the menu through one kernel after the other.

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
use super::{Tools, menu, test_dir, vidarctl};
use crate::console::{ANSWER, BOOT, Console, PROMPT};
use crate::grub::{self, Menu};
use crate::guests::{self, Freshness};
use crate::iso::{self, Recipe};
use crate::machine::abilities::Ability;
use crate::machine::{Machine, Running, Spec};
use crate::manifest::{self, Guest};

/// Whether a journey is made with or without Vidar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The menu entries without Vidar.
    Bare,
    /// Those under Vidar.
    Vidar,
    /// Those under Vidar, which shows itself in CPUID.
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

    /// The guests of a journey: a Vidar that shows itself is tried with one alone, which has the most drivers.
    fn guests(self) -> Result<Vec<Guest>> {
        let mut guests = manifest::load()?;
        if self == Self::Announced {
            guests.drain(..guests.len().saturating_sub(1));
        }
        Ok(guests)
    }

    /// The title of the menu entry.
    fn title(self, guest: &Guest) -> String {
        match self {
            Self::Bare => format!("{}, bare (without Vidar)", guest.title),
            Self::Vidar | Self::Announced => format!("{} under Vidar", guest.title),
        }
    }
}

/// What the journeys have found.
#[derive(Debug, Default)]
pub struct Found {
    facts: Mutex<HashMap<(Lane, String, Side), Facts>>,
}

/// The names of the tests that a journey makes, in its order.
pub fn journey_names(lane: Lane, side: Side) -> Vec<String> {
    let guests = side.guests().unwrap_or_default();
    let mut names = Vec::new();
    for (index, guest) in guests.iter().enumerate() {
        let name = |what: &str| lane.test(&format!("linux/{}/{}/{what}", side.name(), guest.name));
        if index > 0 {
            names.push(name("reboot-to-menu"));
        }
        names.push(name("boot"));
        names.push(name("vidarctl"));
        names.push(name("facts"));
    }
    names.push(lane.test(&format!("linux/{}/poweroff", side.name())));
    names
}

/// The names of the comparisons of a lane.
pub fn comparison_names(lane: Lane) -> Vec<String> {
    let comparisons = comparisons().unwrap_or_default();
    comparisons.iter().map(|(side, guest, one)| comparison_name(lane, *side, guest, one)).collect()
}

fn comparison_name(lane: Lane, side: Side, guest: &str, comparison: &Comparison) -> String {
    lane.test(&format!("transparency/{}/{guest}/{}", side.name(), comparison.name))
}

/// All that is compared with the bare machine.
fn comparisons() -> Result<Vec<(Side, String, &'static Comparison)>> {
    let mut all = Vec::new();
    for side in [Side::Vidar, Side::Announced] {
        for guest in side.guests()? {
            all.extend(COMPARISONS.iter().map(|comparison| (side, guest.name.clone(), comparison)));
        }
    }
    Ok(all)
}

/// What the emulator of `lane` must be able to do for Linux.
pub fn needs(lane: Lane) -> Vec<Ability> {
    let mut needs = lane.needs();
    if lane.machine() == Machine::Bochs {
        needs.push(Ability::BochsLinux);
    }
    needs
}

/// Boots the first guest, reboots, chooses the next one in the menu over the serial line, and so on; the last is
/// powered off.
pub fn journey(lane: Lane, side: Side, tools: &Tools, found: &Found, report: &Report) -> Result<()> {
    let dir = test_dir(&lane.folder(&format!("linux-{}", side.name())))?;
    let log = dir.join("serial.log");
    let mut names = journey_names(lane, side).into_iter();
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
    let guests = side.guests()?;
    let (mut running, mut console) = start(lane, side, &guests, tools, &dir)?;
    // Every step is reported as it ends; the first that fails is the last.
    let mut walk = || -> Result<(), ()> {
        for (index, guest) in guests.iter().enumerate() {
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
                vidarctl::check(&mut console, lane.extension())
            } else {
                vidarctl::check_bare(&mut console)
            })?;
            step(Facts::collect(&mut console, side.under_vidar()).map(|facts| {
                let facts = Facts { announced: side == Side::Announced, ..facts };
                found
                    .facts
                    .lock()
                    .expect("nobody panics with it")
                    .insert((lane, guest.name.clone(), side), facts);
            }))?;
        }
        step(power_off(&mut running, &mut console))
    };
    let _ = walk();
    Ok(())
}

/// Compares what the journeys of a lane have found.
pub fn compare(lane: Lane, found: &Found, report: &Report) {
    let facts = found.facts.lock().expect("nobody panics with it");
    for (side, guest, comparison) in comparisons().unwrap_or_default() {
        let begun = Instant::now();
        let of =
            |side| facts.get(&(lane, guest.clone(), side)).context("the guest's facts were not collected");
        let result = of(Side::Bare).and_then(|bare| (comparison.compare)(bare, of(side)?));
        report.result(&comparison_name(lane, side, &guest, comparison), begun, result, None);
    }
}

fn start(lane: Lane, side: Side, guests: &[Guest], tools: &Tools, dir: &Path) -> Result<(Running, Console)> {
    let first = &guests.first().context("the manifest names no guest")?.name;
    let default = if side == Side::Bare { grub::bare(first) } else { first.clone() };
    let options = if side == Side::Announced { "hypervisor-bit=on" } else { "" };
    let menu = Menu { default: Some(default), timeout: 5, options: options.to_owned(), ..Menu::default() };
    let iso = dir.join("vidar.iso");
    let recipe = Recipe {
        guests: guests.to_vec(),
        menu,
        hypervisor: Some(tools.hypervisor.clone()),
        vidarctl: Some(tools.vidarctl.clone()),
    };
    iso::make(&recipe, &iso)?;
    let spec = Spec {
        dir: dir.to_path_buf(),
        iso,
        memory: 1024,
        fixed_clock: true,
        counts_instructions: true,
        verbose: true,
        ..Spec::default()
    };
    let running = lane.machine().start(&spec)?;
    let console = Console::new(running.serial()?, &dir.join("serial.log"))?;
    Ok((running, console))
}

/// Waits for the shell, which must be that of `guest`'s kernel.
fn boot(console: &mut Console, side: Side, guest: &Guest) -> Result<()> {
    console.expect("Linux version", BOOT)?;
    console.expect(PROMPT, BOOT)?;
    ensure!(console.run("echo $((6 * 7))")? == "42\n", "the shell does not answer");
    let image = fs::read(guests::kernel(guest, Freshness::Any)?)?;
    let (runs, wanted) = (console.run("uname -r")?, release(&image).context("the kernel has no release")?);
    ensure!(runs.trim_end() == wanted, "the kernel is {} and should be {wanted}", runs.trim_end());
    // GRUB's own loader adds the file's name.
    if side.under_vidar() {
        let command_line = console.run("cat /proc/cmdline")?;
        ensure!(command_line.trim_end() == guest.cmdline, "the command line is {command_line:?}");
    }
    Ok(())
}

/// What a bzImage says of its release: the first word of the text that its field `kernel_version` points to.
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

/// Powers the machine off by its shell.
pub fn power_off(running: &mut Running, console: &mut Console) -> Result<()> {
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
    fn a_kernel_names_its_release() {
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
