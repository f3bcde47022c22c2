//! The map by which the guest's accesses to the line's I/O ports exit.

#![expect(unsafe_code, reason = "the map is filled")]

use vidar_core::debugger::port::{MAP_FRAMES, place_in_map};
use vidar_core::mem::addr::Hpa;

use crate::host::physical;
use crate::host::tables::Frames;

/// Returns a map with which accesses to the UART at `port` exit, and no others. Returns `None` if too few frames are
/// free.
#[cold]
pub fn map(port: u16, frames: &mut Frames) -> Option<Hpa> {
    let map = frames.allocate_run(MAP_FRAMES)?;
    // SAFETY: the frames are new, so no CPU uses them.
    unsafe { physical::write(map + place_in_map(port), &[0xff]) };
    Some(map)
}
