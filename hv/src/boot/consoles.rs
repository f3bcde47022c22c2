//! The consoles of the log until the guest runs: the serial line and the screen, as the loader and the options say.

#![expect(unsafe_code, reason = "screens are accessed by their addresses")]

use core::ops::Range;

use vidar_core::boot::options::Options;
use vidar_core::boot::refusal::Refusal;
use vidar_core::console::framebuffer::{self, Format};
use vidar_core::console::serial;
use vidar_core::kept_log::area;
use vidar_core::linux::boot_params::{ColourField, FramebufferInfo, ScreenInfo};
use vidar_core::loader::info::BootInfo;
use vidar_core::mem::addr::{Hpa, Hva};
use vidar_core::mem::layout::direct;

use crate::debug::log as console;
use crate::host::image;
use crate::host::memory::HostMemory;

/// The address of VGA's text memory.
const TEXT_MEMORY: Hpa = Hpa(0xb_8000);
/// The number of words of the command line that get a warning of their own. Any others are only counted.
const MOST_WARNINGS: usize = 8;
/// The end of the memory that the trampoline's page tables map.
const REACH: u64 = 4 << 30;

/// Starts the log in the memory that is kept over a reset, on COM1, and on VGA's text screen, before the options are
/// known. The loader's information is `info`, if it could be read.
pub fn start(info: Option<&BootInfo<'_>>) {
    let (place, address) = image::kept();
    // What the loader has put there could not be read any more. GRUB loads the image as one piece, and puts nothing
    // there.
    let is_free = info.is_some_and(|info| !info.occupies(&place));
    if is_free {
        // SAFETY: the region has this memory for the logs alone, at the same address in the trampoline's page tables
        // and in Vidar's own, and it begins with a page and is as long as an area. Nothing that is still to be read is
        // there.
        unsafe { console::keep(address) };
    }
    log_to(Some(serial::COM1), Some(Early::text()));
    if let Some(info) = info.filter(|_| !is_free) {
        let is_taken = |log: Range<u64>| info.occupies(&(place.start + log.start..place.start + log.end));
        for distance in area::outdated(is_taken) {
            // SAFETY: the region has this memory for a log alone, at the same address in the trampoline's page tables
            // and in Vidar's own, and the loader has put nothing into it.
            unsafe { console::retire(Hva(address.0 + distance)) };
        }
        log::warn!(
            "there will be no `vidarctl log`, since the loader has put something into the memory for it: use GRUB"
        );
    }
}

/// A screen at its address in the direct map, where the trampoline's page tables and Vidar's own both have it.
struct Early(console::Screen);

impl Early {
    /// Returns VGA's text screen.
    fn text() -> Self {
        Self(console::Screen::Text(direct(TEXT_MEMORY)))
    }

    /// Returns `screen`, or `None` if the trampoline's page tables do not map all of it.
    fn new(screen: &ScreenInfo) -> Option<Self> {
        let ScreenInfo::Framebuffer(framebuffer) = screen else { return Some(Self::text()) };
        let end = framebuffer.base.0.checked_add(bytes(framebuffer))?;
        let graphics = || console::Screen::Graphics(direct(framebuffer.base), format(framebuffer));
        (end <= REACH).then(|| Self(graphics()))
    }
}

/// Moves the log to the serial line with this port and to `screen`.
fn log_to(port: Option<u16>, screen: Option<Early>) {
    // SAFETY: the screen is text memory or a framebuffer below 4 GiB. Both are in the direct map for good.
    unsafe { console::start(port, screen.map(|screen| screen.0)) };
}

/// Parses Vidar's options, moves the log to the consoles that they name, and warns of words that were not understood.
pub fn choose(info: &BootInfo<'_>) -> Options {
    let options = Options::parse(info.command_line);
    let usual = options.console == Options::default().console && options.serial == Options::default().serial;
    if !usual || !matches!(info.screen, Some(ScreenInfo::Text { .. })) {
        let screen = info.screen.as_ref().filter(|_| options.console.screen).and_then(Early::new);
        log_to(options.console.serial.then_some(options.serial.port()), screen);
    }
    log::set_max_level(options.log);
    let mut warnings = Options::warnings(info.command_line);
    warnings.by_ref().take(MOST_WARNINGS).for_each(|warning| log::warn!("{warning}"));
    match warnings.count() {
        0 => {}
        more => {
            log::warn!("{more} more words of Vidar's command line were not understood and have no effect");
        }
    }
    options
}

/// Moves the log from the text screen to `framebuffer`, so that the refusal of a Multiboot 1 loader can be read there.
/// The log stays on COM1.
pub fn add(framebuffer: &FramebufferInfo) {
    if let Some(screen) = Early::new(&ScreenInfo::Framebuffer(*framebuffer)) {
        log_to(Some(serial::COM1), Some(screen));
    }
}

/// Maps the framebuffer so that writes to it are fast, wherever it lies, and moves the log to that mapping. Does
/// nothing if the log is not to go to a framebuffer.
///
/// # Errors
/// [`Refusal::TooMuchMemory`] if too few frames are free.
pub fn map_screen(info: &BootInfo<'_>, options: &Options, memory: &mut HostMemory) -> Result<(), Refusal> {
    if let Some(ScreenInfo::Framebuffer(framebuffer)) = &info.screen
        && options.console.screen
        && format(framebuffer).is_usable()
    {
        let mapped = memory.map_screen(framebuffer.base, bytes(framebuffer));
        let mapped = mapped.map_err(|_| Refusal::TooMuchMemory)?;
        // SAFETY: `map_screen` has mapped the framebuffer for good.
        unsafe { console::show_on(console::Screen::Graphics(mapped, format(framebuffer))) };
    }
    Ok(())
}

/// Returns the size of the framebuffer in bytes.
fn bytes(framebuffer: &FramebufferInfo) -> u64 {
    u64::from(framebuffer.pitch) * u64::from(framebuffer.height)
}

/// Converts the loader's description of the framebuffer to that of the console.
fn format(framebuffer: &FramebufferInfo) -> Format {
    let channel =
        |channel: ColourField| framebuffer::Channel { position: channel.position, size: channel.size };
    Format {
        width: framebuffer.width as usize,
        height: framebuffer.height as usize,
        pitch: framebuffer.pitch as usize,
        pixel: usize::from(framebuffer.bits_per_pixel.div_ceil(8)),
        channels: [framebuffer.red, framebuffer.green, framebuffer.blue].map(channel),
    }
}
