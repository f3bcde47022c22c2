//! The framebuffer of a Multiboot 1 loader. Vidar refuses such a loader, and must show the refusal on the screen.
//! Multiboot Specification 0.6.96, 3.3 "Boot information format".

use super::multiboot2::direct_colour;
use crate::linux::boot_params::FramebufferInfo;

/// The value that a Multiboot 1 loader leaves in EAX.
pub const MAGIC: u32 = 0x2bad_b002;

/// Size of the boot information in bytes.
pub const SIZE: usize = 116;
/// Flag: the framebuffer's fields are valid.
const HAS_FRAMEBUFFER: u32 = 1 << 12;
/// Offset of the framebuffer's fields: address, pitch, width, height, depth, type and colours. Multiboot2 has the same,
/// but for two more bytes before the colours.
const FRAMEBUFFER: usize = 88;

/// Returns the framebuffer that `information` describes; `None` without one, or if it has no direct colour.
pub fn framebuffer(information: &[u8; SIZE]) -> Option<FramebufferInfo> {
    let flags = information.first_chunk().map(|flags| u32::from_le_bytes(*flags))?;
    let fields = information.get(FRAMEBUFFER..)?;
    let (fixed, colours) = fields.split_at_checked(22)?;
    (flags & HAS_FRAMEBUFFER != 0).then(|| direct_colour(fixed, colours)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::addr::Hpa;

    #[test]
    fn framebuffer_needs_its_flag_and_direct_colour() {
        let mut information = [0; SIZE];
        information[FRAMEBUFFER..FRAMEBUFFER + 8].copy_from_slice(&0xe000_0000_u64.to_le_bytes());
        for (offset, value) in [(8, 4096_u32), (12, 1024), (16, 768)] {
            information[FRAMEBUFFER + offset..][..4].copy_from_slice(&value.to_le_bytes());
        }
        information[FRAMEBUFFER + 20..].copy_from_slice(&[32, 1, 16, 8, 8, 8, 0, 8]);
        assert_eq!(framebuffer(&information), None);
        information[1] = 0x10;
        let found = framebuffer(&information).expect("a framebuffer with direct colour");
        assert_eq!((found.base, found.pitch, found.width, found.height), (Hpa(0xe000_0000), 4096, 1024, 768));
        assert_eq!((found.red.position, found.blue.size), (16, 8));
        information[FRAMEBUFFER + 21] = 2;
        assert_eq!(framebuffer(&information), None, "a text screen");
    }
}
