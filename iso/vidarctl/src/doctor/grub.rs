//! GRUB: its version, its module for Multiboot2, and the menu's entries under Vidar.

use super::finding::Finding;
use super::firmware::is_uefi;
use super::machine::{Machine, Unreadable, text};

/// The folders that GRUB has on a boot disk, by the names that distributions give it.
const FOLDERS: [&str; 2] = ["/boot/grub", "/boot/grub2"];
/// The folder from which GRUB is installed.
const PACKAGE: &str = "/usr/lib/grub";
/// The oldest GRUB by which Vidar can be started.
const OLDEST: (u32, u32) = (2, 2);
/// The module that starts Vidar.
const MODULE: &str = "multiboot2.mod";

/// Checks that there is a GRUB that can start Vidar.
pub fn loader(machine: &dyn Machine) -> Finding {
    let printed =
        ["grub-install", "grub2-install"].into_iter().find_map(|name| machine.output(name, "--version"));
    let version = printed.as_deref().and_then(version);
    if let Some((name, number)) = version
        && number < OLDEST
    {
        return Finding::problem(format!("GRUB {name} is too old to start Vidar"), "use GRUB 2.02 or later");
    }
    let platform = if is_uefi(machine) { "x86_64-efi" } else { "i386-pc" };
    let places = FOLDERS.into_iter().chain([PACKAGE]).map(|folder| format!("{folder}/{platform}"));
    let module = places.into_iter().find(|place| machine.size(&format!("{place}/{MODULE}")).is_some());
    let name = version.map_or_else(String::new, |(name, _)| format!(" {name}"));
    match module {
        Some(place) => Finding::ok(format!("GRUB{name} is here, with {MODULE} in {place}")),
        None => Finding::warning(
            format!("no GRUB with {MODULE} for {platform} was found, which is what starts Vidar"),
            "install GRUB 2.02 or later, or start Vidar from its own ISO or USB stick",
        ),
    }
}

/// Returns the version in the last word of what `grub-install --version` prints, as text and as numbers.
fn version(printed: &str) -> Option<(&str, (u32, u32))> {
    let word = printed.lines().next()?.split_whitespace().last()?;
    let (major, rest) = word.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((word, (major.parse().ok()?, minor.parse().ok()?)))
}

/// Looks for the menu's entries under Vidar.
pub fn entry(machine: &dyn Machine) -> Finding {
    let configurations = FOLDERS.map(|folder| format!("{folder}/grub.cfg"));
    let read = configurations.iter().map(|path| (path, text(machine, path)));
    let found: Vec<_> = read.filter(|(_, text)| *text != Err(Unreadable::Absent)).collect();
    let install = "install the package vidar, which adds an entry for each kernel";
    let Some((path, text)) = found.first() else {
        return Finding::warning("no grub.cfg was found, so GRUB's menu has no entry under Vidar", install);
    };
    let Ok(text) = text else {
        return Finding::warning(
            format!("{path} cannot be read"),
            "run `vidarctl doctor` as root to look for entries under Vidar",
        );
    };
    let words = |line: &'_ str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = text.lines().map(words).collect();
    let loads = |command: &str| {
        let of_vidar = |line: &Vec<String>| matches!(&line[..], [first, file] if first == command && file.contains("vidar"));
        lines.iter().filter(|line| of_vidar(line)).count()
    };
    let count = loads("multiboot2");
    if loads("multiboot") > 0 {
        return Finding::warning(
            format!("{path} starts Vidar by `multiboot`, which it refuses"),
            "use `multiboot2` and `module2` in grub.cfg",
        );
    }
    match count {
        0 => Finding::warning(format!("{path} has no entry under Vidar"), install),
        1 => Finding::ok(format!("{path} has 1 entry under Vidar")),
        more => Finding::ok(format!("{path} has {more} entries under Vidar")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::super::finding::State;
    use super::*;

    #[test]
    fn versions_are_read() {
        let of = |text| version(text).map(|(_, numbers)| numbers);
        assert_eq!(of("grub-install (GRUB) 2.06-13+deb12u2\n"), Some((2, 6)));
        assert_eq!(of("grub-install (GRUB) 2.12~rc1\n"), Some((2, 12)));
        assert_eq!(of("grub-install (GNU GRUB 0.97)"), Some((0, 97)));
        assert_eq!(of(""), None);
    }

    #[test]
    fn grub_needs_its_module_and_a_version() {
        let new = Fake::default().printing("grub-install", "grub-install (GRUB) 2.06-13\n");
        assert_eq!(loader(&new).state, State::Warning);
        let bios = new.with("/boot/grub/i386-pc/multiboot2.mod", "");
        assert_eq!(
            loader(&bios),
            Finding::ok("GRUB 2.06-13 is here, with multiboot2.mod in /boot/grub/i386-pc")
        );
        // The machine has UEFI, and the module is the BIOS's.
        assert_eq!(loader(&bios.clone().with("/sys/firmware/efi/systab", "")).state, State::Warning);
        assert_eq!(
            loader(&bios.printing("grub-install", "grub-install (GRUB) 2.00\n")).state,
            State::Problem
        );
        assert_eq!(
            loader(&Fake::default().with("/usr/lib/grub/i386-pc/multiboot2.mod", "")).state,
            State::Ok
        );
    }

    #[test]
    fn entries_under_vidar_are_counted() {
        let with = |text: &str| entry(&Fake::default().with("/boot/grub/grub.cfg", text));
        assert_eq!(entry(&Fake::default()).state, State::Warning);
        assert_eq!(with("linux /vmlinuz\n").state, State::Warning);
        assert_eq!(with("\tmultiboot2 /boot/vidar.elf log=debug\n\tmodule2 /vmlinuz\n").state, State::Ok);
        assert_eq!(with("multiboot /boot/vidar.elf\n").state, State::Warning);
        let forbidden = Fake::default().without("/boot/grub/grub.cfg", Unreadable::Forbidden);
        assert!(entry(&forbidden).advice.is_some_and(|advice| advice.contains("root")));
    }
}
