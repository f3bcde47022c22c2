//! The screen of a machine in QEMU, whose monitor shows it.

pub mod font;
pub mod text;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use self::font::Font;
use self::text::{TEXT_MEMORY, Text};
use crate::machine::Running;
use crate::machine::monitor::Monitor;

/// Where the text memory of a VGA is.
const TEXT: u64 = 0xb8000;
/// The last picture on which something was missed.
const LAST: &str = "last.png";
/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// A screen.
#[derive(Debug)]
pub struct Screen {
    /// The monitor that shows it.
    pub monitor: Monitor,
    /// Where pictures of it go.
    dir: PathBuf,
}

impl Screen {
    /// The screen of a machine; pictures of it go to the folder `dir`.
    pub fn of(running: &mut Running, dir: &Path) -> Result<Self> {
        Ok(Self { monitor: running.monitor()?, dir: dir.to_path_buf() })
    }

    /// What it shows in text mode, from the VGA's memory.
    pub fn text_memory(&mut self) -> Result<Text> {
        Ok(Text::in_memory(&self.monitor.physical(TEXT, TEXT_MEMORY)?))
    }

    /// Looks at it again and again until what it shows in `font` will do, and keeps that picture as `name`.
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
                    "the screen never was as it should be for {name}; see {}: {}",
                    last.display(),
                    rows.trim_end()
                );
            }
            thread::sleep(PAUSE);
        }
    }
}
