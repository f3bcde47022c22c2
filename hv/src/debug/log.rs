//! The log. It always goes to the memory that is kept over a reset. Until the guest gets the serial line and the
//! screen, it goes to them as well.

#![expect(unsafe_code, reason = "the screen's memory is accessed, and a panic takes the lock by force")]

use core::fmt::{self, Write};

use log::{Level, LevelFilter, Log, Metadata, Record};
use spin::{Mutex, Once};
use vidar_core::console::framebuffer::{Format, FramebufferGrid};
use vidar_core::console::screen::{Grid, Teletype};
use vidar_core::console::serial::Unusable;
use vidar_core::console::wrap::Wrapped;
use vidar_core::kept_log::area::Area;
use vidar_core::kept_log::log::Log as KeptLog;
use vidar_core::mem::addr::Hva;

use super::line::{self, Line};
use super::pixels::FramebufferMemory;
use super::vga::Vga;
use crate::arch::instructions;

/// A screen, with the address at which it is mapped.
#[derive(Debug, Clone, Copy)]
pub enum Screen {
    /// VGA's text memory, at this address.
    Text(Hva),
    /// A framebuffer, at this address and in this format.
    Graphics(Hva, Format),
}

/// An open screen.
enum Writer {
    Text(Teletype<Vga>),
    Graphics(Teletype<FramebufferGrid<FramebufferMemory>>),
}

impl Writer {
    /// Opens a screen and clears it. Returns `None` if its format cannot be written.
    ///
    /// # Safety
    /// The screen is mapped for good, and nothing else in Vidar writes to it.
    unsafe fn open(screen: Screen) -> Option<Self> {
        // SAFETY: the caller promises that the screen is mapped for good and that nothing else in Vidar writes to it.
        let mut writer = unsafe {
            match screen {
                Screen::Text(cells) => Self::Text(Teletype::new(Vga::at(cells))),
                Screen::Graphics(start, format) => {
                    let pixels = FramebufferMemory::at(start, format.pitch * format.height);
                    Self::Graphics(Teletype::new(FramebufferGrid::new(pixels, format)?))
                }
            }
        };
        writer.clear();
        Some(writer)
    }

    /// Clears the screen. A framebuffer is redrawn as a whole, since the guest may have written to it.
    fn clear(&mut self) {
        match self {
            Self::Text(screen) => screen.clear(),
            Self::Graphics(screen) => {
                screen.grid().forget();
                screen.clear();
            }
        }
    }

    /// Writes `text` at the cursor, and moves the cursor.
    fn write(&mut self, text: &[u8]) {
        match self {
            Self::Text(screen) => {
                screen.write(text);
                Vga::set_cursor(screen.cursor());
            }
            Self::Graphics(screen) => screen.write(text),
        }
    }

    /// Returns the number of rows.
    fn rows(&mut self) -> usize {
        match self {
            Self::Text(screen) => screen.grid().rows(),
            Self::Graphics(screen) => screen.grid().rows(),
        }
    }

    /// Returns the column and the row of the cursor.
    fn cursor(&self) -> (u8, u8) {
        match self {
            Self::Text(screen) => screen.cursor(),
            Self::Graphics(screen) => screen.cursor(),
        }
    }
}

/// The log in memory, and the consoles to which it goes as well.
struct Consoles {
    /// The log of this start, once its memory is known.
    kept: Option<&'static mut KeptLog>,
    serial_port: Option<u16>,
    serial: Option<Line>,
    screen: Option<Writer>,
    /// True while the consoles belong to the guest.
    silent: bool,
    /// True while a report is written, whose long lines are broken.
    wraps: bool,
    /// True while the screen does not show what is logged.
    hides: bool,
}

/// The log and the consoles of the whole machine.
static CONSOLES: Mutex<Consoles> = Mutex::new(Consoles {
    kept: None,
    serial_port: None,
    serial: None,
    screen: None,
    silent: false,
    wraps: false,
    hides: false,
});

/// The log of the start before this one, if it was found.
static LAST: Once<&'static KeptLog> = Once::new();

impl Write for Consoles {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(kept) = &mut self.kept {
            kept.push(text.as_bytes());
        }
        if !self.silent {
            if let Some(serial) = &mut self.serial {
                serial.write(text.as_bytes());
            }
            if let Some(screen) = self.screen.as_mut().filter(|_| !self.hides) {
                screen.write(text.as_bytes());
            }
        }
        Ok(())
    }
}

impl Consoles {
    /// Writes the log from the CPU's caches back to memory. An INIT, with which a PC's keyboard controller may reset
    /// it, leaves the caches alone, but a RESET, as by port CF9h and at a chip set's answer to a triple fault,
    /// invalidates them without writing them back: Intel SDM Vol. 3A, 10.1.1 "Processor State After Reset", and AMD APM
    /// Vol. 2, 14.1.3 "Processor Initialization State".
    fn write_back(&mut self) {
        if let Some(kept) = &self.kept {
            instructions::write_back::<KeptLog>(kept);
        }
    }
}

/// Begins the log of this start in the memory at `area`, where it is kept over a reset, and looks there for the log of
/// the last start. Both are written back from the CPU's caches, so that a reset finds them as they are now. Must be
/// called before anything is logged. Does nothing at a second call.
///
/// # Safety
/// At `area` are as many bytes as an [`Area`] has, mapped and writable for good, aligned to a page, and used for
/// nothing else.
pub unsafe fn keep(area: Hva) {
    let mut consoles = CONSOLES.lock();
    if consoles.kept.is_none() {
        // SAFETY: the caller promises that the memory is there for good and is used for nothing else, and a second call
        // does not get here. An area consists of integers, so whatever the memory holds is a valid value.
        let area = unsafe { &mut *(area.0 as *mut Area) };
        let (kept, last) = area.open(instructions::write_back::<KeptLog>);
        consoles.kept = Some(kept);
        if let Some(last) = last {
            LAST.call_once(|| last);
        }
    }
}

/// Makes sure that the log at `log` is not found by a later start. This start keeps none of its own.
///
/// # Safety
/// At `log` are as many bytes as a [`KeptLog`] has, mapped and writable, aligned to a page, and used for nothing else.
pub unsafe fn retire(log: Hva) {
    // SAFETY: the caller promises that the memory is there and is used for nothing else. A log consists of integers, so
    // whatever the memory holds is a valid value.
    let log = unsafe { &mut *(log.0 as *mut KeptLog) };
    log.retire();
    instructions::write_back::<KeptLog>(log);
}

/// Returns the log of the last start, if it was found.
pub fn last() -> Option<&'static KeptLog> {
    LAST.get().copied()
}

/// The logger of the crate `log`, which writes each record as a line to memory and the consoles.
struct Logger;

impl Log for Logger {
    /// The crate gdbstub tells its log of every question of gdb that it does not know.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !metadata.target().starts_with("gdbstub")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let label = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info => "",
            Level::Debug => "debug: ",
            Level::Trace => "trace: ",
        };
        let mut consoles = CONSOLES.lock();
        let text = format_args!("vidar: {label}{}\n", record.args());
        // Writing to the consoles cannot fail.
        let _ = if consoles.wraps {
            Wrapped::new(&mut *consoles).write_fmt(text)
        } else {
            consoles.write_fmt(text)
        };
        consoles.write_back();
    }

    fn flush(&self) {}
}

/// Starts the log on the serial line at `serial_port` and on `screen`, if they are given. A later call moves the log to
/// other consoles.
///
/// # Safety
/// The screen is mapped for good, and nothing else in Vidar writes to it.
pub unsafe fn start(serial_port: Option<u16>, screen: Option<Screen>) {
    let mut consoles = CONSOLES.lock();
    consoles.serial_port = serial_port;
    let serial = serial_port.map(line::open);
    let stuck = matches!(serial, Some(Err(Unusable::Stuck)));
    consoles.serial = serial.and_then(Result::ok);
    // SAFETY: the caller promises that the screen is mapped for good and that nothing else in Vidar writes to it.
    consoles.screen = screen.and_then(|screen| unsafe { Writer::open(screen) });
    drop(consoles);
    // At a later call the logger is set already, which is no error.
    let _ = log::set_logger(&Logger);
    log::set_max_level(LevelFilter::Info);
    if let Some(port) = serial_port.filter(|_| stuck) {
        log::warn!(
            "the serial line at port {port:#x} does not transmit and is not used: choose another one with serial=, or \
             use console=screen"
        );
    }
}

/// Writes the log to `screen` from now on, and first all that memory holds of it.
///
/// # Safety
/// The screen is mapped for good, and nothing else in Vidar writes to it.
pub unsafe fn show_on(screen: Screen) {
    let mut consoles = CONSOLES.lock();
    let Consoles { kept, screen: writer, .. } = &mut *consoles;
    // SAFETY: the caller promises that the screen is mapped for good and that nothing else in Vidar writes to it.
    *writer = unsafe { Writer::open(screen) };
    let (mut position, mut piece) = (0, [0; 256]);
    while let Some(writer) = writer {
        let (start, length) = kept.as_ref().map_or((0, 0), |kept| kept.read(position, &mut piece));
        if length == 0 {
            break;
        }
        writer.write(&piece[..length]);
        position = start + length as u64;
    }
}

/// Leaves the consoles to the guest: from now on the log goes to memory alone. Returns the position of the cursor as
/// column and row, or zeros if there is no screen.
pub fn hand_over() -> (u8, u8) {
    let mut consoles = CONSOLES.lock();
    if let Some(serial) = &mut consoles.serial {
        serial.drain();
    }
    consoles.silent = true;
    consoles.screen.as_ref().map_or((0, 0), Writer::cursor)
}

/// Looks at the log's lock before a report takes it by force: some tenths of a second. A record takes milliseconds on a
/// serial line, and a line that sends nothing is given up after a fifth of a second.
const PATIENCE: u32 = 4_000_000;

/// Takes the consoles back from the guest, for a report. This works even if the log's lock is held, as in a panic while
/// logging.
pub fn take_back() {
    // Another CPU may be writing a record: a machine check in Vidar stops no other.
    let is_free = |_| {
        core::hint::spin_loop();
        !CONSOLES.is_locked()
    };
    if !(0..PATIENCE).any(is_free) {
        // SAFETY: no record takes that long to write, so the code that holds the lock does not continue: it ran on this
        // CPU, which never returns to it, or on one that has been stopped. A CPU that has not been stopped would have
        // to be kept from running for that long, which only a hypervisor below can do.
        unsafe { CONSOLES.force_unlock() };
    }
    let mut consoles = CONSOLES.lock();
    if consoles.silent {
        consoles.silent = false;
        consoles.serial = consoles.serial_port.and_then(|port| line::open(port).ok());
        // The guest may have switched the screen to a graphics mode. What is written then is readable in text mode, and
        // harmless in any other.
        if let Some(screen) = &mut consoles.screen {
            screen.clear();
        }
    }
}

/// Takes the consoles back as [`take_back`] does, and breaks the lines of what is logged from now on. The kept log
/// notes that this is the report of a crash, which the next start shows.
pub fn take_back_for_report() {
    take_back();
    let mut consoles = CONSOLES.lock();
    consoles.wraps = true;
    if let Some(kept) = &mut consoles.kept {
        kept.begin_report();
    }
}

/// Notes in the kept log that the main part of the report follows.
pub fn begin_main() {
    if let Some(kept) = &mut CONSOLES.lock().kept {
        kept.begin_main();
    }
}

/// Returns the number of rows on the screen, or 0 if there is no screen.
pub fn rows() -> usize {
    CONSOLES.lock().screen.as_mut().map_or(0, Writer::rows)
}

/// Decides if the screen shows what is logged from now on. The serial line and the kept log always get it.
pub fn show_on_screen(show: bool) {
    CONSOLES.lock().hides = !show;
}

/// Waits until the serial line has sent all that was logged.
pub fn drain() {
    if let Some(serial) = &mut CONSOLES.lock().serial {
        serial.drain();
    }
}

/// Reads from the log of this start, as [`KeptLog::read`] does.
pub fn read(position: u64, buffer: &mut [u8]) -> (u64, usize) {
    CONSOLES.lock().kept.as_ref().map_or((0, 0), |kept| kept.read(position, buffer))
}

/// Reads from the log of the last start, which is empty if it was not found.
pub fn read_last(position: u64, buffer: &mut [u8]) -> (u64, usize) {
    last().map_or((0, 0), |last| last.read(position, buffer))
}
