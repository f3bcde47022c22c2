//! Installs, upgrades and purges packages in a Debian.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::guest::Guest;
use super::menu;
use crate::console::Console;

/// The time that the installation of a package may take.
const INSTALLATION: Duration = Duration::from_secs(1200);
/// Runs apt-get without questions, and in a form that can be logged.
const APT_GET: &str = "DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 --yes --option=Dpkg::Use-Pty=0";
/// Prints a line for each file in /boot and /etc: what it is, to whom it belongs, and its content. The note about the
/// next boot, which the tests leave there by `grub-reboot`, is taken back first.
const FILES: &str = "grub-editenv - unset next_entry; cd / && find boot etc -xdev -printf '%p %M %U:%G %l ' -a \\( -type f \
                     -exec sha256sum -- {} \\; -o -printf '\\n' \\) | sort";

fn apt_get(console: &mut Console, arguments: &str) -> Result<String> {
    console.run_within(&format!("{APT_GET} {arguments}"), INSTALLATION)
}

/// Installs Vidar. Its entry for the running kernel is then in the menu.
pub fn install(guest: &mut Guest) -> Result<()> {
    let console = &mut guest.console;
    console.run("mkdir ~/packages && tar --extract --file=/dev/vdb --directory ~/packages")?;
    // The disk was made on a BIOS, so its menu lacks the entry for the setup of a UEFI until it is made once more.
    console.run("update-grub && cp /boot/grub/grub.cfg ~/menu")?;
    console.run(&format!("({FILES}) >~/before"))?;
    apt_get(console, "install ~/packages/vidar.deb")?;
    let running = console.run("uname -r")?;
    menu::has_kernel(console, running.trim())
}

/// Installs a second kernel. Its entry under Vidar comes by itself.
pub fn second_kernel(guest: &mut Guest) -> Result<()> {
    apt_get(&mut guest.console, "install ~/packages/kernel.deb")?;
    menu::has_kernel(&mut guest.console, &guest.debs.release)
}

/// Upgrades Vidar, whose settings the user has changed. The old image has an entry after those of the new one.
pub fn upgrade(guest: &mut Guest) -> Result<()> {
    let console = &mut guest.console;
    console.run("sed -i s/^VIDAR_DEFAULT=.*/VIDAR_DEFAULT=yes/ /etc/default/grub.d/vidar.cfg")?;
    apt_get(console, "install ~/packages/newer.deb")?;
    console.run("grep -q ^VIDAR_DEFAULT=yes /etc/default/grub.d/vidar.cfg")?;
    menu::has_kernel(console, &guest.debs.release)?;
    let version = &guest.debs.version;
    console.run(&format!("test -e /boot/vidar-{version}.elf"))?;
    let entries = menu::entries(console)?;
    let of = |end: &str| entries.iter().position(|(title, _)| title.ends_with(end));
    let (new, old) = (of(", under Vidar"), of(&format!(", under Vidar {version}")));
    ensure!(old.is_some() && new < old, "the entries are {entries:?}");
    Ok(())
}

/// Purges Vidar. Nothing in /boot and /etc then has its name, and no menu either.
pub fn purge(guest: &mut Guest) -> Result<()> {
    let console = &mut guest.console;
    apt_get(console, "purge vidar")?;
    let files = console.run("find /boot /etc /usr /var -iname '*vidar*' -not -path '/var/log/*'")?;
    ensure!(files.is_empty(), "these files are left: {files}");
    let entries = menu::entries(console)?;
    ensure!(entries.iter().all(|(title, id)| !format!("{title}{id}").contains("idar")), "{entries:?}");
    Ok(())
}

/// Purges the second kernel as well. All files in /boot and /etc, and so grub.cfg, are then as they were before Vidar
/// was installed.
pub fn as_before(guest: &mut Guest) -> Result<()> {
    let console = &mut guest.console;
    apt_get(console, &format!("purge {}", guest.debs.kernel))?;
    console.run(&format!("({FILES}) >~/after"))?;
    let lines = console.run("grep -c '^boot/.*[0-9a-f]{64}' -E ~/before")?;
    ensure!(lines.trim().parse().is_ok_and(|lines: u32| lines > 100), "only {lines} files were compared");
    let changed = console.run("diff -U0 ~/before ~/after || diff -U0 ~/menu /boot/grub/grub.cfg || true")?;
    ensure!(changed.is_empty(), "these files are not as before:\n{changed}");
    Ok(())
}
