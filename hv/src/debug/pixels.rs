//! The memory of a framebuffer.

#![expect(unsafe_code, reason = "pixels are written here")]

use vidar_core::console::framebuffer::Pixels;
use vidar_core::mem::addr::Hva;

/// The mapped memory of a framebuffer.
#[derive(Debug)]
pub struct FramebufferMemory {
    start: Hva,
    bytes: usize,
}

impl FramebufferMemory {
    /// Returns the framebuffer whose `bytes` bytes are mapped at `start`.
    ///
    /// # Safety
    /// The bytes are mapped, writable, for good, and hold nothing of Vidar's.
    pub const unsafe fn at(start: Hva, bytes: usize) -> Self {
        Self { start, bytes }
    }
}

impl Pixels for FramebufferMemory {
    fn put(&mut self, offset: usize, pixel: u32, size: usize) {
        if offset + size > self.bytes {
            return;
        }
        let at = (self.start.0 as *mut u8).wrapping_add(offset);
        // SAFETY: the pixel lies within the bytes, which the caller of `at` has promised to be mapped and writable.
        unsafe {
            if size == 4 && offset.is_multiple_of(4) {
                at.cast::<u32>().write_volatile(pixel);
                return;
            }
            for (index, byte) in pixel.to_le_bytes().into_iter().take(size).enumerate() {
                at.wrapping_add(index).write_volatile(byte);
            }
        }
    }
}
