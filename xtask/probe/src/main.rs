//! A tiny guest that does what guests should not do, and reports the outcome.
//!
//! It is started at the 32-bit entry of the Linux boot protocol. On the command line, `probe=NAME[,NAME...]` names the
//! scenarios to run; the name `all` stands for all that can be followed by others. The probe writes to COM1: first
//! `probe: hello`, then `probe NAME: RESULT` for each scenario, and last `probe: done`. Then it switches the machine
//! off.

#![cfg_attr(target_os = "none", no_std, no_main)]

/// Declares modules that are compiled for the bare-metal target only.
macro_rules! on_bare_metal {
    ($($name:ident)*) => { $(#[cfg(target_os = "none")] mod $name;)* };
}

on_bare_metal! {
    apic attempt command_line cpu entry frame gdt guard handlers idt image line other registers scenarios serial user
    vidar window
}

/// Does nothing: the probe runs on the bare machine only.
#[cfg(not(target_os = "none"))]
fn main() {}
