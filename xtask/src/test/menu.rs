//! Uses GRUB's menu by keys over the serial line, to choose entries and Vidar's boot options.

use anyhow::{Result, bail, ensure};

use super::Tools;
use super::lane::Lane;
use super::probes::UNDER_VIDAR;
use super::small::Small;
use crate::console::{ANSWER, BOOT, Console};
use crate::grub::{DebugConsole, Menu};

/// The text that the menu shows when it waits for a key.
pub const MENU: &str = "Use the ^ and v keys";
/// Ctrl-N, the key that moves the menu's highlight down.
const DOWN: &str = "\x0e";

type Check = fn(&Tools) -> Result<()>;

/// The names of the tests, and their functions. They run in QEMU only, which is quicker, since GRUB is the same in both
/// lanes.
pub const TESTS: [(&str, Check); 2] =
    [("menu/boot-options", boot_options), ("menu/debug-console-elsewhere", debug_console_elsewhere)];

/// Moves down to the entry `title` in a menu that has just come up, and chooses it.
pub fn choose(console: &mut Console, title: &str) -> Result<()> {
    for _ in 0..16 {
        // The highlighted entry is marked by a star. It is drawn once each time.
        console.expect("*", ANSWER)?;
        if console.expect("  ", ANSWER)? == title {
            return console.press("\r");
        }
        console.press(DOWN)?;
    }
    bail!("the menu has no entry \"{title}\"")
}

fn small(name: &str, menu: Menu, tools: &Tools) -> Result<Small> {
    Ok(Small {
        name: name.replace('/', "-"),
        lane: Lane::Svm,
        kernel: tools.probe()?.to_vec(),
        cmdline: "probe=cpuid".to_owned(),
        menu,
        memory: 256,
        ..Small::default()
    })
}

/// Options can be chosen and cleared, the menu shows them, and Vidar gets them.
fn boot_options(tools: &Tools) -> Result<()> {
    let small = Small { menu_timeout: 60, ..small("menu/boot-options", Menu::default(), tools)? };
    let mut booted = small.boot(tools)?;
    let console = &mut booted.console;
    for title in [
        "Boot options of Vidar",
        "[-] Log everything (log=trace)",
        "Boot options of Vidar: log=trace",
        "[-] Log more (log=debug)",
        "Boot options of Vidar: log=debug",
        "[-] Show Vidar to those who ask CPUID (hypervisor-bit=on)",
        "Boot options of Vidar: log=debug hypervisor-bit=on",
        "[x] Log more (log=debug)",
        "Boot options of Vidar: hypervisor-bit=on",
        "[-] Log more (log=debug)",
        "probe under Vidar",
    ] {
        console.expect(MENU, BOOT)?;
        choose(console, title)?;
    }
    console.expect("vidar: debug: ", BOOT)?;
    console.expect("probe cpuid: ", BOOT)?;
    let said = console.expect("\r\n", ANSWER)?;
    ensure!(said.contains("hypervisor=1"), "Vidar does not show itself: {said}");
    Ok(())
}

/// With Vidar's console on a serial port that this machine does not have, the first port is left to the guest, and
/// nothing waits for a key.
fn debug_console_elsewhere(tools: &Tools) -> Result<()> {
    let menu = Menu { debug_console: Some(DebugConsole::Com2), ..Menu::default() };
    let mut booted = small("menu/debug-console-elsewhere", menu, tools)?.boot(tools)?;
    let before = booted.console.expect("probe: hello", BOOT)?;
    ensure!(before.trim().is_empty(), "there was output before the guest's: {before}");
    booted.console.expect("probe cpuid: ", ANSWER)?;
    let said = booted.console.expect("\r\n", ANSWER)?;
    ensure!(said.contains(UNDER_VIDAR), "the guest is not under Vidar: {said}");
    Ok(())
}
