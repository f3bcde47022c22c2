//! From GRUB's first instruction to the guest's. `order.rs` has the boot order, with what it calls.

pub mod consoles;
pub mod linux;
pub mod machine;
pub mod multiboot;
pub mod order;
pub mod trampoline;
