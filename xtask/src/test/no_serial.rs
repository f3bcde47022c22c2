//! Boots Linux under Vidar on modern machines, which have UEFI, a screen and a keyboard, and no serial port. The text
//! on the screen is read from pictures, which are kept.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::lane::Lane;
use super::linux::release;
use super::report::Report;
use super::screen::Screen;
use super::screen::font::Font;
use super::{LinuxMachine, Tools, test_dir};
use crate::console::{ANSWER, PROMPT};
use crate::grub::Menu;
use crate::guests::{self, Freshness};
use crate::machine::{Chipset, Keyboard, Medium, RunningMachine, Spec};
use crate::manifest::{self, Guest};

/// A machine without a serial port.
#[derive(Debug)]
pub struct Desktop {
    /// The first part of its tests' names.
    name: &'static str,
    /// True if the ISO is on a USB stick and has the guests of a user's stick, and the only keyboard is at USB.
    /// Otherwise the ISO is a CD with the guest for emulators, and the keyboard is at the PS/2 port.
    usb: bool,
}

/// The table of machines.
pub const DESKTOPS: [Desktop; 2] =
    [Desktop { name: "uefi/no-serial", usb: false }, Desktop { name: "uefi/usb-alone", usb: true }];

/// The size of memory in MiB.
const MEMORY: u32 = 512;
/// The seconds that the menu waits, which are more than the test needs to press a key.
const MENU_WAITS: u32 = 300;
/// What is added to the kernel's command line, so that Linux reboots by a triple fault.
const OWN_WORDS: &str = "reboot=triple";
/// What the menu adds to the command line, since it finds no serial port.
const ADDED: &str = "console=tty0";
/// Vidar's boot options.
const OPTIONS: &str = "on-crash=halt";
/// The bytes of memory that are searched at once for the menu's font. The search begins at the top, where firmware
/// loads its drivers.
const PIECE: usize = 32 << 20;

type Step = fn(&mut Machine) -> Result<()>;

/// The steps in their order: the last part of each test's name, and the function that does it.
const STEPS: [(&str, Step); 6] = [
    ("menu", menu),
    ("vidar", vidar),
    ("linux", linux),
    ("shell", shell),
    ("keyboard", keyboard),
    ("crash-report", crash_report),
];

struct Machine {
    guest: Guest,
    release: String,
    screen: Screen,
    running: RunningMachine,
}

impl Desktop {
    /// Returns the names of the tests that [`Self::all`] runs.
    pub fn names(&self, lane: Lane) -> Vec<String> {
        STEPS.iter().map(|(step, _)| lane.test(&format!("{}/{step}", self.name))).collect()
    }

    /// Takes the steps, up to the first that fails.
    pub fn all(&self, lane: Lane, tools: &Tools, report: &Report) -> Result<()> {
        let begun = Instant::now();
        let mut machine = self.start(lane, tools)?;
        let steps = self.names(lane).into_iter().zip(STEPS.map(|(_, step)| step));
        report.steps(&mut machine, steps, begun, None);
        Ok(())
    }

    fn start(&self, lane: Lane, tools: &Tools) -> Result<Machine> {
        let dir = test_dir(&lane.folder(self.name))?;
        let mut guests = if self.usb { manifest::load_for_iso()? } else { manifest::load()? };
        guests.truncate(if self.usb { guests.len() } else { 1 });
        let guest = guests.first_mut().context("the manifest names no guest")?;
        guest.cmdline = format!("{} {OWN_WORDS}", guest.cmdline);
        let guest = guest.clone();
        let image = fs::read(guests::kernel(&guest, Freshness::Any)?)?;
        let release = release(&image).context("the kernel has no release")?.to_owned();
        let mut machine = LinuxMachine::with(lane, dir.clone(), guest.clone());
        machine.guests = guests;
        // The default is the entry below the one that the test chooses.
        machine.bare_unless(false);
        machine.menu = Menu { timeout: MENU_WAITS, options: OPTIONS.to_owned(), ..machine.menu };
        machine.spec = Spec {
            medium: if self.usb { Medium::Usb } else { Medium::Cd },
            chipset: Chipset::Q35,
            no_serial: true,
            keyboard: if self.usb { Keyboard::Usb } else { Keyboard::Ps2 },
            memory: MEMORY,
            uefi: true,
            fixed_clock: true,
            counts_instructions: true,
            ..machine.spec
        };
        machine.make_iso(tools)?;
        let mut running = lane.machine().start(&machine.spec)?;
        ensure!(running.serial().is_err(), "the machine has a serial port");
        let screen = Screen::of(&mut running, &dir)?;
        Ok(Machine { guest, release, screen, running })
    }
}

/// The menu is on the screen, and the keyboard moves through it.
fn menu(machine: &mut Machine) -> Result<()> {
    let font = firmware_font(&mut machine.screen)?;
    let title = &machine.guest.title;
    let (bare, under_vidar) = (format!("*{title}, bare"), format!("*{title} under Vidar"));
    machine.screen.wait("grub-menu-at-first", &font, ANSWER, |text| text.shows(&bare))?;
    machine.screen.monitor.press(&["up"])?;
    machine.screen.wait("grub-menu", &font, ANSWER, |text| text.shows(&under_vidar) && !text.shows(&bare))?;
    machine.screen.monitor.press(&["ret"])
}

/// Returns the font of the firmware, in which GRUB shows its menu. It is in memory once the firmware uses the screen.
fn firmware_font(screen: &mut Screen) -> Result<Font> {
    let begun = Instant::now();
    while begun.elapsed() < ANSWER {
        for start in (0..(MEMORY as usize) << 20).step_by(PIECE).rev() {
            if let Some(font) = Font::firmware(&screen.monitor.physical(start as u64, PIECE)?) {
                return Ok(font);
            }
        }
    }
    anyhow::bail!("the firmware has no font in memory")
}

/// Vidar's messages are on the screen before Linux takes it over.
fn vidar(machine: &mut Machine) -> Result<()> {
    let wanted = [
        concat!("vidar: Vidar ", env!("CARGO_PKG_VERSION")).to_owned(),
        ", started by GRUB ".to_owned(),
        "vidar: AMD-V with nested pages".to_owned(),
        format!("vidar: kernel {}, ", machine.release),
        format!("vidar: command line \"{} {ADDED}\"", machine.guest.cmdline),
        "vidar: the machine is the guest's now; run `vidarctl` in it for details".to_owned(),
    ];
    machine
        .screen
        .wait("vidar", &Font::vidar(), ANSWER, |text| wanted.iter().all(|line| text.shows(line)))?;
    Ok(())
}

/// Linux uses the framebuffer as its console. Some characters of its font differ from the VGA's (0, 4, M, T, W, X, f,
/// m, v and w), so the text that is looked for has none of them. Linux' first messages have scrolled away by the time
/// that a picture is read.
fn linux(machine: &mut Machine) -> Result<()> {
    let wanted = ["] Freeing unused kernel i", "] Run /init as init process"];
    machine
        .screen
        .wait("linux", &Font::linux()?, ANSWER, |text| wanted.iter().all(|line| text.shows(line)))?;
    Ok(())
}

fn shell(machine: &mut Machine) -> Result<()> {
    let at_prompt = |rows: &[String]| rows.iter().any(|row| row.starts_with(PROMPT.trim_end()));
    let text = machine.screen.wait("shell", &Font::linux()?, ANSWER, |text| {
        text.shows("built-in shell (ash)") && at_prompt(&text.rows())
    })?;
    // `/init` must not complain, for instance about a missing serial port.
    ensure!(!text.shows("sh: "), "the screen shows:\n{}", text.rows().join("\n"));
    Ok(())
}

/// A command that is typed is executed, and its output is on the screen.
fn keyboard(machine: &mut Machine) -> Result<()> {
    machine.screen.monitor.keys("clear; echo epyt | rev; vidarctl status\n")?;
    machine.screen.wait("commands", &Font::linux()?, ANSWER, |text| {
        let rows = text.rows();
        rows.iter().any(|row| row == "type") && rows.iter().any(|row| row.starts_with("runs on  A"))
    })?;
    Ok(())
}

/// After a triple fault of Linux, Vidar takes the screen back and shows its report.
fn crash_report(machine: &mut Machine) -> Result<()> {
    machine.screen.monitor.keys("reboot -f\n")?;
    let last = "vidar: error: the machine is halted (on-crash=halt)";
    let text = machine.screen.wait("crash-report", &Font::vidar(), ANSWER, |text| text.ends_with(last))?;
    // The names of functions have moved the first line off the screen, so the last lines say it once more.
    const STOPPED: &str = "CPU 0 stopped at native_machine_emergency_restart+";
    for wanted in [STOPPED, "(user mode)", "rip ", "rflags ", "cr4 ", "idtr "] {
        ensure!(
            text.shows(wanted),
            "{wanted:?} is not on the screen, which shows:\n{}",
            text.rows().join("\n")
        );
    }
    ensure!(machine.running.ended(Duration::ZERO)?.is_none(), "the machine did not stay on");
    Ok(())
}
