//! The scripts by which dpkg keeps the previous image and GRUB's menu up to date (Debian Policy 6.5 "Summary of ways
//! maintainer scripts are called").
//!
//! | when | script | what it does |
//! |---|---|---|
//! | upgrade | preinst | copies the installed image to `/boot/vidar-OLDVERSION.elf` |
//! | install, upgrade | postinst | removes images older than that one, and runs `update-grub` |
//! | a failed upgrade | postrm | removes the copy; the installed version's postinst then runs `update-grub` |
//! | remove, purge | postrm | removes the previous image, and runs `update-grub` |
//!
//! dpkg may install into another root, which `DPKG_ROOT` then names. All names that `/boot/vidar-[0-9]*.elf` matches
//! are the package's.

use super::version::Version;

/// A shell function that two of the scripts have.
const UPDATE_MENU: &str = include_str!("scripts/update-menu");

/// The scripts by the names that dpkg has for them.
const SCRIPTS: [(&str, &str); 3] = [
    ("preinst", include_str!("scripts/preinst")),
    ("postinst", include_str!("scripts/postinst")),
    ("postrm", include_str!("scripts/postrm")),
];

/// Returns the name and the text of each script of a version.
pub fn all(version: &Version) -> impl Iterator<Item = (&'static str, String)> {
    SCRIPTS.into_iter().map(move |(name, text)| {
        (name, text.replace("@UPDATE_MENU@", UPDATE_MENU).replace("@VERSION@", version.as_str()))
    })
}
