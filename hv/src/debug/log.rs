//! The log: always into the ring; to the serial line and the screen too, until they are the guest's.

#![expect(unsafe_code, reason = "claims the screen, and the lock in a panic")]

use core::fmt::{self, Write};

use log::{Level, LevelFilter, Log, Metadata, Record};
use spin::Mutex;
use vidar_core::console::framebuffer::{Format, FramebufferGrid};
use vidar_core::console::ring::Ring;
use vidar_core::console::screen::Teletype;
use vidar_core::console::serial::Unusable;
use vidar_core::mem::addr::Hva;

use super::line::{self, Line};
use super::pixels::Mapped;
use super::vga::Vga;

/// A screen, where it is mapped.
#[derive(Debug, Clone, Copy)]
pub enum Screen {
    /// VGA's text memory.
    Text(Hva),
    /// A framebuffer.
    Graphics(Hva, Format),
}

/// What is written on.
enum Writer {
    Text(Teletype<Vga>),
    Graphics(Teletype<FramebufferGrid<Mapped>>),
}

impl Writer {
    /// A clear screen; `None` where nothing can be written on it.
    ///
    /// # Safety
    /// It is mapped for good.
    unsafe fn open(screen: Screen) -> Option<Self> {
        // SAFETY: the caller's promise; Vidar writes the screen nowhere else.
        let mut writer = unsafe {
            match screen {
                Screen::Text(cells) => Self::Text(Teletype::new(Vga::at(cells))),
                Screen::Graphics(start, format) => {
                    let pixels = Mapped::at(start, format.pitch * format.height);
                    Self::Graphics(Teletype::new(FramebufferGrid::new(pixels, format)?))
                }
            }
        };
        writer.clear();
        Some(writer)
    }

    fn clear(&mut self) {
        match self {
            Self::Text(screen) => screen.clear(),
            Self::Graphics(screen) => {
                screen.grid().forget();
                screen.clear();
            }
        }
    }

    fn write(&mut self, text: &[u8]) {
        match self {
            Self::Text(screen) => {
                screen.write(text);
                Vga::set_cursor(screen.cursor());
            }
            Self::Graphics(screen) => screen.write(text),
        }
    }

    fn cursor(&self) -> (u8, u8) {
        match self {
            Self::Text(screen) => screen.cursor(),
            Self::Graphics(screen) => screen.cursor(),
        }
    }
}

/// Where the log goes beside the ring.
struct Consoles {
    ring: Ring,
    serial_port: Option<u16>,
    serial: Option<Line>,
    screen: Option<Writer>,
    /// The consoles are the guest's.
    silent: bool,
}

static CONSOLES: Mutex<Consoles> =
    Mutex::new(Consoles { ring: Ring::new(), serial_port: None, serial: None, screen: None, silent: false });

impl Write for Consoles {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.ring.push(text.as_bytes());
        if !self.silent {
            if let Some(serial) = &mut self.serial {
                serial.write(text.as_bytes());
            }
            if let Some(screen) = &mut self.screen {
                screen.write(text.as_bytes());
            }
        }
        Ok(())
    }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let label = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info => "",
            Level::Debug => "debug: ",
            Level::Trace => "trace: ",
        };
        // The consoles never fail.
        let _ = writeln!(CONSOLES.lock(), "vidar: {label}{}", record.args());
    }

    fn flush(&self) {}
}

/// Starts the log on the serial line at `serial_port` and on `screen`, where given.
///
/// # Safety
/// The screen is mapped for good.
pub unsafe fn start(serial_port: Option<u16>, screen: Option<Screen>) {
    let mut consoles = CONSOLES.lock();
    consoles.serial_port = serial_port;
    let serial = serial_port.map(line::open);
    let stuck = matches!(serial, Some(Err(Unusable::Stuck)));
    consoles.serial = serial.and_then(Result::ok);
    // SAFETY: the caller's promise.
    consoles.screen = screen.and_then(|screen| unsafe { Writer::open(screen) });
    drop(consoles);
    // A second start only moves the consoles.
    let _ = log::set_logger(&Logger);
    log::set_max_level(LevelFilter::Info);
    if let Some(port) = serial_port.filter(|_| stuck) {
        log::warn!(
            "the serial line at port {port:#x} does not send what it is given, and is not used: choose another one by serial=, or \
             console=screen"
        );
    }
}

/// Has the log on `screen` from now on, with all that it holds to begin with.
///
/// # Safety
/// The screen is mapped for good.
pub unsafe fn show_on(screen: Screen) {
    let mut consoles = CONSOLES.lock();
    let Consoles { ring, screen: writer, .. } = &mut *consoles;
    // SAFETY: the caller's promise.
    *writer = unsafe { Writer::open(screen) };
    let (mut position, mut piece) = (0, [0; 256]);
    while let Some(writer) = writer {
        let (start, length) = ring.read(position, &mut piece);
        if length == 0 {
            break;
        }
        writer.write(&piece[..length]);
        position = start + length as u64;
    }
}

/// Leaves the consoles to the guest: from now on the log goes to the ring alone. Returns where the cursor stands.
pub fn hand_over() -> (u8, u8) {
    let mut consoles = CONSOLES.lock();
    if let Some(serial) = &mut consoles.serial {
        serial.drain();
    }
    consoles.silent = true;
    consoles.screen.as_ref().map_or((0, 0), Writer::cursor)
}

/// Takes the consoles back from the guest, for last words. Works with the log's lock held, as in a panic while logging.
pub fn take_back() {
    if CONSOLES.is_locked() {
        // SAFETY: last words are spoken by one CPU that never returns to whoever held the lock.
        unsafe { CONSOLES.force_unlock() };
    }
    let mut consoles = CONSOLES.lock();
    if consoles.silent {
        consoles.silent = false;
        consoles.serial = consoles.serial_port.and_then(|port| line::open(port).ok());
        // The guest may have put the screen into a graphics mode; in text mode this is readable, in others harmless.
        if let Some(screen) = &mut consoles.screen {
            screen.clear();
        }
    }
}

/// Waits until all that was logged has left the serial line.
pub fn drain() {
    if let Some(serial) = &mut CONSOLES.lock().serial {
        serial.drain();
    }
}

/// Reads from the ring, as [`Ring::read`].
pub fn read(position: u64, buffer: &mut [u8]) -> (u64, usize) {
    CONSOLES.lock().ring.read(position, buffer)
}
