//! VT-x on this CPU: the instructions, the entry assembly, and the virtual CPU. What it decides is in
//! [`vidar_core::vmx`].

pub mod cpu;
mod delivery;
pub mod enable;
pub mod entry;
pub mod physical;
pub mod put_away;
pub mod vmcs;
