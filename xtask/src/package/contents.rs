//! The table of the package's files.

use std::fs;

use anyhow::{Context, Result};

use super::gzip::gzip;
use super::version::Version;
use super::{changelog, manual, tool_pages};
use crate::paths;

/// What the files are made from.
#[derive(Debug)]
pub struct Source {
    /// The package's version.
    pub version: Version,
    /// The date of the source, in seconds since 1970.
    pub date: u64,
    /// The copyright file.
    pub copyright: String,
    /// The hypervisor's image.
    pub image: Vec<u8>,
    /// The program `vidarctl`.
    pub vidarctl: Vec<u8>,
}

/// A file of the package.
#[derive(Debug)]
pub struct File {
    /// The path, from the root of the system. Files below `etc` are configuration files.
    pub path: &'static str,
    /// The permissions.
    pub mode: u32,
    /// The content.
    pub bytes: Vec<u8>,
}

type Make = fn(&Source) -> Result<Vec<u8>>;

/// Each file's path, permissions and content.
const FILES: [(&str, u32, Make); 10] = [
    ("boot/vidar.elf", 0o644, |source| Ok(source.image.clone())),
    ("etc/default/grub.d/vidar.cfg", 0o644, |_| read("grub/vidar.cfg")),
    ("etc/grub.d/45_vidar", 0o755, |_| read("grub/45_vidar")),
    ("usr/bin/vidarctl", 0o755, |source| Ok(source.vidarctl.clone())),
    ("usr/share/bash-completion/completions/vidarctl", 0o644, |_| Ok(tool_pages::completion())),
    ("usr/share/doc/vidar/changelog.gz", 0o644, |source| {
        gzip(changelog::debian(&source.version, source.date)?.as_bytes())
    }),
    ("usr/share/doc/vidar/copyright", 0o644, |source| Ok(source.copyright.clone().into())),
    ("usr/share/lintian/overrides/vidar", 0o644, |_| read("xtask/src/package/lintian-overrides")),
    ("usr/share/man/man1/vidarctl.1.gz", 0o644, |source| {
        gzip(&tool_pages::manual(&source.version, source.date)?)
    }),
    ("usr/share/man/man7/vidar.7.gz", 0o644, |source| gzip(&manual::manual(&source.version, source.date)?)),
];

/// Makes all files.
pub fn files(source: &Source) -> Result<Vec<File>> {
    FILES.iter().map(|(path, mode, make)| Ok(File { path, mode: *mode, bytes: make(source)? })).collect()
}

/// Reads a file of the checkout.
fn read(path: &str) -> Result<Vec<u8>> {
    fs::read(paths::root().join(path)).with_context(|| format!("cannot read {path}"))
}
