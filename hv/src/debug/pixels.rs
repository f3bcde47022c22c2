//! The memory of a framebuffer.

#![expect(unsafe_code, reason = "pixels are written here")]

use vidar_core::console::framebuffer::Pixels;
use vidar_core::mem::addr::Hva;

/// The framebuffer's memory.
#[derive(Debug)]
pub struct Mapped {
    start: Hva,
    bytes: usize,
}

impl Mapped {
    /// So many bytes from `start` on.
    ///
    /// # Safety
    /// They are mapped there, writable, for good, and nothing of Vidar's is in them.
    pub const unsafe fn at(start: Hva, bytes: usize) -> Self {
        Self { start, bytes }
    }
}

impl Pixels for Mapped {
    fn put(&mut self, offset: usize, pixel: u32, size: usize) {
        if offset + size > self.bytes {
            return;
        }
        let at = (self.start.0 as *mut u8).wrapping_add(offset);
        // SAFETY: `at` was promised that the bytes are there.
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
