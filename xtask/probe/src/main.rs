//! A tiny guest that does what guests should not, and tells what came of it.
//!
//! A loader of the Linux boot protocol enters it at its 32-bit entry. The command line says what to do:
//! `probe=NAME[,NAME...]` names scenarios, or `all`. The answers go to COM1: `probe: hello`, a line
//! `probe NAME: RESULT` for each scenario, `probe: done`. Then it switches the machine off.

#![cfg_attr(target_os = "none", no_std, no_main)]

/// The modules of the program, of which the host has none.
macro_rules! on_bare_metal {
    ($($name:ident)*) => { $(#[cfg(target_os = "none")] mod $name;)* };
}

on_bare_metal! {
    apic attempt command_line cpu entry frame gdt guard handlers idt image line other registers scenarios serial user
    vidar window
}

/// On the host there is nothing to probe.
#[cfg(not(target_os = "none"))]
fn main() {}
