//! The Multiboot headers, and the assembly at which GRUB enters the image.

#![expect(unsafe_code, reason = "this is the assembly")]

use core::arch::global_asm;

use vidar_core::mem::layout::{DIRECT_MAP, DIRECT_MAP_SLOT, IMAGE_BASE, LINK_ADDRESS, REGION_SIZE};

use super::order::start;

global_asm!(
    include_str!("header.S"),
    image_base = const IMAGE_BASE,
    link_address = const LINK_ADDRESS,
    region_size = const REGION_SIZE,
);

global_asm!(
    include_str!("trampoline.S"),
    image_base = const IMAGE_BASE,
    direct_map = const DIRECT_MAP,
    direct_map_slot = const DIRECT_MAP_SLOT,
    start = sym start,
);
