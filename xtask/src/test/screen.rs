//! The screen: what Vidar refuses is to be read there as well. QEMU without KVM has no VT-x, and its monitor reads
//! the text memory of the VGA.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Tools;
use super::refusals::NO_EXTENSION;
use super::small::Small;
use crate::grub::Menu;

/// The test's name.
pub const NAME: &str = "refusal/on-screen";
/// The folder of its files.
pub const FOLDER: &str = "refusal-on-screen";

/// Where the text of a VGA is, and the size of a character cell: the character, and its colours.
const TEXT: u64 = 0xb8000;
const CELL: usize = 2;
const COLUMNS: usize = 80;
const ROWS: usize = 25;

/// Seconds after which the machine is ended, whatever becomes of us.
const LIFETIME: &str = "120";

/// Boots it, and waits until the sentence is on the screen.
pub fn check(tools: &Tools) -> Result<()> {
    let small = Small {
        name: FOLDER.to_owned(),
        kernel: tools.probe()?.to_vec(),
        menu: Menu::default(),
        ..Small::default()
    };
    let mut qemu = Qemu::start(&small.iso(tools)?)?;
    let sentence = format!("vidar: error: cannot start: {NO_EXTENSION}");
    let begun = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(500));
        let screen = qemu.screen()?;
        if shows(&screen, &sentence) {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(60) {
            bail!("the screen does not show \"{sentence}\" but:\n{}", rows(&screen).join("\n").trim_end());
        }
    }
}

/// A running QEMU, whose monitor reads what we write. Dropping it ends it.
struct Qemu(Child);

impl Qemu {
    fn start(iso: &Path) -> Result<Self> {
        let (dir, name) = iso.parent().zip(iso.file_name()).context("the ISO has no place")?;
        let name = name.display();
        let output = fs::File::create(dir.join("emulator.out"))?;
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", LIFETIME, "qemu-system-x86_64"]).current_dir(dir);
        command.args(["-accel", "tcg", "-cpu", "Nehalem", "-m", "256", "-nodefaults", "-vga", "std"]);
        command.args(["-display", "none", "-monitor", "stdio"]);
        // By bare names: a comma or a quote in a path would be syntax.
        command.args(["-serial", "file:serial.log", "-drive"]);
        command.arg(format!("file={name},media=cdrom,readonly=on"));
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        Ok(Self(command.spawn().context("cannot start QEMU")?))
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        let monitor = self.0.stdin.as_mut().context("QEMU's monitor is gone")?;
        writeln!(monitor, "{line}").context("QEMU has ended")
    }

    /// The characters on the screen.
    fn screen(&mut self) -> Result<Vec<u8>> {
        let file = tempfile::NamedTempFile::new()?;
        let size = CELL * COLUMNS * ROWS;
        self.tell(&format!("pmemsave {TEXT:#x} {size} \"{}\"", file.path().display()))?;
        let begun = Instant::now();
        while fs::metadata(file.path())?.len() < size as u64 {
            ensure!(begun.elapsed() < Duration::from_secs(10), "QEMU does not save the screen");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(fs::read(file.path())?.into_iter().step_by(CELL).collect())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        if self.tell("quit").is_ok() {
            let _ = self.0.wait();
        }
    }
}

/// Whether a row begins with `sentence`, which may go on over the next ones, and nothing comes behind it.
fn shows(screen: &[u8], sentence: &str) -> bool {
    let blank = |cell: &u8| matches!(cell, b' ' | 0);
    let after = |start: usize| screen[start..].strip_prefix(sentence.as_bytes());
    (0..screen.len()).step_by(COLUMNS).filter_map(after).any(|rest| rest.iter().all(blank))
}

fn rows(screen: &[u8]) -> Vec<String> {
    let text = |row: &[u8]| String::from_utf8_lossy(row).trim_end_matches([' ', '\0']).to_owned();
    screen.chunks(COLUMNS).map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(lines: &[&str]) -> Vec<u8> {
        let mut cells: Vec<_> = lines.iter().flat_map(|line| format!("{line:80}").into_bytes()).collect();
        cells.resize(COLUMNS * ROWS, b' ');
        cells
    }

    #[test]
    fn a_sentence_is_the_last_and_whole() {
        let sentence = "cannot start: ".repeat(10);
        let (first, rest) = sentence.trim_end().split_at(COLUMNS);
        let shown = |lines: &[&str]| shows(&screen(lines), sentence.trim_end());
        assert!(shown(&["hello", first, rest]));
        assert!(shown(&[first, rest]));
        for lines in [
            &[first, "", rest] as &[&str],
            &[first],
            &[" ", rest],
            &[first, rest, "more"],
            &[first, &format!("{rest}\r\n")],
            &["", &first[1..], rest],
        ] {
            assert!(!shown(lines), "{lines:?}");
        }
        assert_eq!(rows(&screen(&["a", "b"]))[..3], ["a", "b", ""]);
    }
}
