//! The CPUs: making each of them Vidar's own, starting the further ones, running the guest on them, and their end.

pub mod ap;
pub mod cpu;
pub mod end;
pub mod further;
