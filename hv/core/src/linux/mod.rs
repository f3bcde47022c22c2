//! The Linux boot protocol: what a kernel file says about itself, where the kernel is placed, and what it is handed.
//!
//! | file | what it is for |
//! |---|---|
//! | [`bzimage`] | Checks a kernel file and reads its header. |
//! | [`placement`] | Decides where the kernel, its initrd and the hand-over block go. |
//! | [`boot_params`] | Fills boot_params, the page that describes the machine to the kernel. |
//! | [`handover`] | Lays out the block that the guest finds in its memory: boot_params, a GDT, the command line, and long memory maps. |

pub mod boot_params;
pub mod bzimage;
pub mod handover;
pub mod placement;
