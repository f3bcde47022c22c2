//! AMD-V on this CPU: the instructions, the entry assembly, and the virtual CPU. What it decides is in
//! [`vidar_core::svm`].

pub mod cpu;
pub mod enable;
pub mod entry;
pub mod instructions;
pub mod vmcb;
