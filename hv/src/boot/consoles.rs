//! Where the log goes until the guest runs: the serial line and the screen, as loader and options have them.

#![expect(unsafe_code, reason = "screens are claimed by their addresses")]

use vidar_core::boot::options::Options;
use vidar_core::boot::refusal::Refusal;
use vidar_core::console::framebuffer::{self, Format};
use vidar_core::console::serial;
use vidar_core::linux::boot_params::{ColourField, FramebufferInfo, ScreenInfo};
use vidar_core::loader::info::BootInfo;
use vidar_core::mem::addr::Hpa;
use vidar_core::mem::layout::direct;

use crate::debug::log as console;
use crate::host::memory::HostMemory;

/// VGA text memory.
const TEXT_MEMORY: Hpa = Hpa(0xb_8000);
/// Words of the command line that are complained of one by one.
const MOST_WARNINGS: usize = 8;
/// How far the trampoline's tables reach.
const REACH: u64 = 4 << 30;

/// Before anything is known: COM1, and the screen that every BIOS has.
pub fn start() {
    // SAFETY: text memory is in the direct map, in the trampoline's tables as in Vidar's.
    unsafe { console::start(Some(serial::COM1), Some(console::Screen::Text(direct(TEXT_MEMORY)))) };
}

/// Reads Vidar's options and moves the log to where they want it.
pub fn choose(info: &BootInfo<'_>) -> Options {
    let options = Options::parse(info.command_line);
    let usual = options.console == Options::default().console && options.serial == Options::default().serial;
    if !usual || !matches!(info.screen, Some(ScreenInfo::Text { .. })) {
        let screen = info.screen.as_ref().filter(|_| options.console.screen).and_then(early);
        // SAFETY: as in `start`; the framebuffer is in the direct map as well.
        unsafe { console::start(options.console.serial.then_some(options.serial.port()), screen) };
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

/// Adds the framebuffer of a loader that is refused.
pub fn add(framebuffer: &FramebufferInfo) {
    if let Some(screen) = early(&ScreenInfo::Framebuffer(*framebuffer)) {
        // SAFETY: as in `choose`.
        unsafe { console::start(Some(serial::COM1), Some(screen)) };
    }
}

/// The screen while the trampoline's tables are in use; `None` where it is out of their reach.
fn early(screen: &ScreenInfo) -> Option<console::Screen> {
    let ScreenInfo::Framebuffer(framebuffer) = screen else {
        return Some(console::Screen::Text(direct(TEXT_MEMORY)));
    };
    let end = framebuffer.base.0.checked_add(bytes(framebuffer))?;
    (end <= REACH).then(|| console::Screen::Graphics(direct(framebuffer.base), format(framebuffer)))
}

/// Moves the log to the framebuffer's own mapping, which is fast, and reaches it wherever it is.
///
/// # Errors
/// [`Refusal::TooMuchMemory`] where no frame is free.
pub fn map_screen(info: &BootInfo<'_>, options: &Options, memory: &mut HostMemory) -> Result<(), Refusal> {
    if let Some(ScreenInfo::Framebuffer(framebuffer)) = &info.screen
        && options.console.screen
        && format(framebuffer).is_usable()
    {
        let mapped = memory.map_screen(framebuffer.base, bytes(framebuffer));
        let mapped = mapped.map_err(|_| Refusal::TooMuchMemory)?;
        // SAFETY: it is mapped there for good.
        unsafe { console::show_on(console::Screen::Graphics(mapped, format(framebuffer))) };
    }
    Ok(())
}

fn bytes(framebuffer: &FramebufferInfo) -> u64 {
    u64::from(framebuffer.pitch) * u64::from(framebuffer.height)
}

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
