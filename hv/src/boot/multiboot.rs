//! The loader's information, which is found by its physical address.

#![expect(unsafe_code, reason = "the loader's information is found by its address")]

use vidar_core::boot::refusal::Refusal;
use vidar_core::linux::boot_params::FramebufferInfo;
use vidar_core::loader::info::BootInfo;
use vidar_core::loader::multiboot1::{self, SIZE};
use vidar_core::loader::multiboot2;
use vidar_core::loader::tags::Malformed;
use vidar_core::mem::addr::Hpa;
use vidar_core::mem::layout::direct;

/// Returns the framebuffer that the Multiboot 1 information at physical address `address` describes, or `None` if it
/// describes none.
pub fn framebuffer_of_version_1(address: u32) -> Option<FramebufferInfo> {
    if address == 0 || address.checked_add(SIZE as u32).is_none() {
        return None;
    }
    let start = direct(Hpa(u64::from(address))).0 as *const [u8; SIZE];
    // SAFETY: the trampoline's direct map covers the first 4 GiB, nothing writes to the loader's information, and the
    // read does not need an aligned address.
    let information = unsafe { start.read_unaligned() };
    multiboot1::framebuffer(&information)
}

/// Parses the Multiboot2 information at physical address `address`, which the loader has passed in EBX.
///
/// # Errors
/// [`Refusal::BootInformation`] if it does not conform to the Multiboot2 specification.
pub fn read(address: u32) -> Result<BootInfo<'static>, Refusal> {
    let start = Hpa(u64::from(address));
    let pointer = direct(start).0 as *const u32;
    if address == 0 || !address.is_multiple_of(8) {
        return Err(Refusal::BootInformation);
    }
    // SAFETY: the direct map covers the first 4 GiB, and the address is a multiple of 8.
    let size = unsafe { *pointer };
    if size < 8 || address.checked_add(size).is_none() {
        return Err(Refusal::BootInformation);
    }
    // SAFETY: the information ends below 4 GiB, so the direct map covers it. Only the last move of the hand-over may
    // overwrite it, and nothing reads it after that.
    let bytes = unsafe { core::slice::from_raw_parts(pointer.cast(), size as usize) };
    multiboot2::parse(bytes, start).map_err(|Malformed| Refusal::BootInformation)
}
