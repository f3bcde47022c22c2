//! The information of a Multiboot 1 loader, as far as Vidar wants it to refuse that loader where it is seen: the framebuffer.
//! Multiboot Specification 0.6.96, 3.3 "Boot information format".

use super::multiboot2::direct_colour;
use crate::linux::boot_params::Framebuffer;

/// What a Multiboot 1 loader leaves in EAX.
pub const MAGIC: u32 = 0x2bad_b002;

/// Bytes of the information.
pub const SIZE: usize = 116;
/// Bit of the flags: the framebuffer's fields are there.
const HAS_FRAMEBUFFER: u32 = 1 << 12;
/// Its first field: address, pitch, width, height, depth, kind, colours, as in Multiboot 2 but for two bytes before the
/// colours.
const FRAMEBUFFER: usize = 88;

/// The framebuffer in `information`.
pub fn framebuffer(information: &[u8; SIZE]) -> Option<Framebuffer> {
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
    fn a_framebuffer_is_there_if_the_flags_say_so() {
        let mut information = [0; SIZE];
        information[FRAMEBUFFER..FRAMEBUFFER + 8].copy_from_slice(&0xe000_0000_u64.to_le_bytes());
        for (offset, value) in [(8, 4096_u32), (12, 1024), (16, 768)] {
            information[FRAMEBUFFER + offset..][..4].copy_from_slice(&value.to_le_bytes());
        }
        information[FRAMEBUFFER + 20..].copy_from_slice(&[32, 1, 16, 8, 8, 8, 0, 8]);
        assert_eq!(framebuffer(&information), None);
        information[1] = 0x10;
        let found = framebuffer(&information).expect("all of it");
        assert_eq!((found.base, found.pitch, found.width, found.height), (Hpa(0xe000_0000), 4096, 1024, 768));
        assert_eq!((found.red.position, found.blue.size), (16, 8));
        information[FRAMEBUFFER + 21] = 2;
        assert_eq!(framebuffer(&information), None, "text");
    }
}
