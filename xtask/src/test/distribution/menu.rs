//! The entries in a Debian's `grub.cfg`.

use anyhow::{Context, Result, ensure};

use crate::console::Console;

/// Prints the titles and the ids of all entries, with a tab between.
const ENTRIES: &str = r#"sed -En "s/^\s*(menuentry|submenu) '([^']*)'.*menuentry_id_option '([^']*)'.*/\2\t\3/p" /boot/grub/grub.cfg"#;

/// Returns the titles and the ids of all entries, in their order.
pub fn entries(console: &mut Console) -> Result<Vec<(String, String)>> {
    let said = console.run(ENTRIES)?;
    let entry = |line: &str| line.split_once('\t').map(|(title, id)| (title.to_owned(), id.to_owned()));
    let entries: Vec<_> = said.lines().filter_map(entry).collect();
    ensure!(!entries.is_empty(), "grub.cfg has no entries: {said}");
    Ok(entries)
}

/// Checks that the first entry under Vidar has the id `vidar`, and that there is one for the kernel `release`.
pub fn has_kernel(console: &mut Console, release: &str) -> Result<()> {
    let entries = entries(console)?;
    let first = entries.iter().find(|(title, _)| title.ends_with(", under Vidar"));
    ensure!(first.is_some_and(|(_, id)| id == "vidar"), "the entries are {entries:?}");
    let title = format!("with Linux {release}, under Vidar");
    ensure!(
        entries.iter().any(|(entry, _)| entry.ends_with(&title)),
        "no entry ends with \"{title}\": {entries:?}"
    );
    Ok(())
}

/// Makes GRUB start a kernel without Vidar at the next boot: one that is not `other`.
pub fn boot_first_kernel_next(console: &mut Console, other: &str) -> Result<()> {
    let entries = entries(console)?;
    let submenu = entries.iter().find(|(_, id)| id.starts_with("gnulinux-advanced-"));
    let kernel = entries.iter().find(|(title, id)| {
        id.starts_with("gnulinux-")
            && id.contains("-advanced-")
            && !title.contains(other)
            && title.contains("with Linux")
    });
    let ((_, submenu), (_, kernel)) =
        submenu.zip(kernel).with_context(|| format!("no entry is for another kernel: {entries:?}"))?;
    console.run(&format!("grub-reboot '{submenu}>{kernel}'"))?;
    Ok(())
}
