//! The programs of a release.

use crate::paths::{BARE_TARGET, GUEST_TARGET};

/// A program of a release.
pub struct Program {
    /// The name of its package.
    pub package: &'static str,
    /// The folder of its package in the checkout.
    pub folder: &'static str,
    /// The target that it is built for.
    pub target: &'static str,
    /// The name of its file.
    pub file: &'static str,
    /// The name of the file with the list of its crates.
    pub list: &'static str,
}

/// The programs of a release: the hypervisor and the guest's tool.
pub const PROGRAMS: [Program; 2] = [
    Program { package: "hv", folder: "hv", target: BARE_TARGET, file: "vidar.elf", list: "vidar.cdx.json" },
    Program {
        package: "vidarctl",
        folder: "iso/vidarctl",
        target: GUEST_TARGET,
        file: "vidarctl",
        list: "vidarctl.cdx.json",
    },
];
