//! The screen of a machine in QEMU, which is read by QEMU's monitor.

pub mod font;
pub mod text;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use self::font::Font;
use self::text::{TEXT_MEMORY, Text};
use crate::machine::RunningMachine;
use crate::machine::monitor::Monitor;

/// The physical address of a VGA's text memory.
const TEXT: u64 = 0xb8000;
/// The file of the last picture if the expected text never appeared.
const LAST: &str = "last.png";
/// The time between two pictures.
const PAUSE: Duration = Duration::from_millis(100);

/// The screen of a machine.
#[derive(Debug)]
pub struct Screen {
    /// QEMU's monitor.
    pub monitor: Monitor,
    /// The folder for pictures of the screen.
    dir: PathBuf,
}

impl Screen {
    /// Returns the screen of a machine. Pictures of it are written to the folder `dir`.
    pub fn of(running: &mut RunningMachine, dir: &Path) -> Result<Self> {
        Ok(Self { monitor: running.monitor()?, dir: dir.to_path_buf() })
    }

    /// Returns the text in the VGA's memory, which the screen shows in text mode.
    pub fn text_memory(&mut self) -> Result<Text> {
        Ok(Text::in_memory(&self.monitor.physical(TEXT, TEXT_MEMORY)?))
    }

    /// Takes pictures of the screen until its text in `font` satisfies `will_do`. Keeps that picture under `name`.
    pub fn wait(
        &mut self,
        name: &str,
        font: &Font,
        within: Duration,
        will_do: impl Fn(&Text) -> bool,
    ) -> Result<Text> {
        let begun = Instant::now();
        loop {
            let picture = self.monitor.screenshot()?;
            let text = Text::in_picture(&picture, font);
            if will_do(&text) {
                picture.save(&self.dir.join(format!("{name}.png")))?;
                return Ok(text);
            }
            if begun.elapsed() > within {
                let last = self.dir.join(LAST);
                picture.save(&last)?;
                let rows = text.rows().join("\n");
                bail!(
                    "the screen never showed what it should for {name}; the last picture is {}, with the text: {}",
                    last.display(),
                    rows.trim_end()
                );
            }
            thread::sleep(PAUSE);
        }
    }
}
