//! GRUB's menu: fills the template in `grub/` with two entries for each guest and with Vidar's boot options.

mod debug_console;
pub mod medium;
mod options;

use std::fmt::Write;
use std::sync::OnceLock;

use anyhow::{Context, Result};

pub use self::debug_console::DebugConsole;
use crate::cmdline;
use crate::manifest::Guest;

/// What the menu starts by default, and with which options.
#[derive(Debug, Clone)]
pub struct Menu {
    /// The entry that is started by default: the name of a guest, with `:bare` after it for the entry without Vidar. If
    /// this is `None`, it is the first guest.
    pub default: Option<String>,
    /// The seconds that the menu waits before it starts the default entry.
    pub timeout: u32,
    /// Vidar's boot options.
    pub options: String,
    /// The console that Vidar writes to. If this is `None` and `options` chooses none, Vidar writes to the first serial
    /// port and to the screen.
    pub debug_console: Option<DebugConsole>,
    /// GRUB commands at the end of each guest's entry, for measurements.
    pub last: &'static [&'static str],
    /// More entries, for tests: the name of each, and its GRUB commands.
    pub extra: Vec<(&'static str, &'static [&'static str])>,
}

impl Default for Menu {
    fn default() -> Self {
        Self {
            default: None,
            timeout: 5,
            options: String::new(),
            debug_console: None,
            last: &[],
            extra: Vec::new(),
        }
    }
}

/// Returns the name of the menu entry that starts `guest` without Vidar.
pub fn bare(guest: &str) -> String {
    format!("{guest}:bare")
}

/// Returns the path of a guest's file in the ISO.
pub fn guest_file(guest: &str, file: &str) -> String {
    format!("/boot/guests/{guest}/{file}")
}

/// Returns the file name of a part of a guest's initrd in the ISO.
pub fn initrd(index: usize) -> String {
    if index == 0 { "initrd".to_owned() } else { format!("initrd{}", index + 1) }
}

/// Fills the template with entries for `guests`. If `hypervisor` is false, the ISO has no Vidar, and there are only
/// bare entries.
pub fn config(template: &str, guests: &[Guest], menu: &Menu, hypervisor: bool) -> Result<String> {
    let mut ids = Vec::new();
    let mut entries = String::new();
    for guest in guests {
        if hypervisor {
            ids.push(guest.name.clone());
            entries += &under_vidar(guest, menu)?;
        }
        ids.push(bare(&guest.name));
        entries += &without_vidar(guest, menu)?;
    }
    for (name, commands) in &menu.extra {
        ids.push((*name).to_owned());
        entries += &format!("menuentry {name} --id {name} {{\n    {}\n}}\n", commands.join("\n    "));
    }
    // The default is given by its number, since GRUB takes an id that begins with a digit for a number.
    let default = match &menu.default {
        Some(wanted) => ids.iter().position(|id| id == wanted).with_context(|| {
            format!("There is no menu entry \"{wanted}\"; there are: {}.", ids.join(", "))
        })?,
        None => 0,
    };
    let port = DebugConsole::port(menu.debug_console).map(|port| format!("{port:#x}")).unwrap_or_default();
    // The sub-menu comes after the guests' entries, so that it does not change their numbers.
    let options = if hypervisor { options::menu() } else { String::new() };
    let filled = template.replace("@DEFAULT@", &default.to_string()).replace("@PORT@", &port);
    let filled = filled.replace("@TIMEOUT@", &menu.timeout.to_string());
    let filled = filled.replace("@CHOSEN@", &options::variables()).replace("@OPTIONS@\n", &options);
    Ok(filled.replace("@ENTRIES@\n", &entries))
}

/// Options that Vidar gets in every menu besides those of the menu.
static MORE_OPTIONS: OnceLock<String> = OnceLock::new();

/// Adds `options` to those that Vidar gets in every menu that this process makes from now on.
pub fn add_options(options: String) -> Result<()> {
    arguments(&options).context("Vidar's boot options cannot be used")?;
    MORE_OPTIONS.get_or_init(|| options);
    Ok(())
}

/// Returns the options that [`add_options`] has added.
pub fn added_options() -> &'static str {
    MORE_OPTIONS.get().map_or("", String::as_str)
}

fn under_vidar(guest: &Guest, menu: &Menu) -> Result<String> {
    let name = &guest.name;
    let mut entry = format!("menuentry {} --id {name} {{\n", quote(&format!("{} under Vidar", guest.title)));
    let mut line =
        |words: std::fmt::Arguments| writeln!(entry, "    {words}").expect("writing to a String cannot fail");
    let options = match menu.debug_console {
        Some(console) => &console.options(&menu.options)?,
        None => &menu.options,
    };
    let options = arguments(options).context("Vidar's boot options cannot be used")?;
    let more = arguments(added_options())?;
    // The choices of the sub-menu come last, so that they override the options before them.
    line(format_args!("multiboot2 /boot/vidar.elf{options}{more} {}", options::variables()));
    // The command above has set this variable to what Vidar's header asks for, which is any framebuffer.
    line(format_args!("set gfxpayload=$screen"));
    // Without --nounzip GRUB would unpack a compressed file. Vidar needs both files as they are.
    let vmlinuz = guest_file(name, "vmlinuz");
    line(format_args!("module2 --nounzip {vmlinuz}{} $tty", arguments(&guest.cmdline)?));
    for file in initrd_files(guest) {
        line(format_args!("module2 --nounzip {file}"));
    }
    menu.last.iter().for_each(|command| line(format_args!("{command}")));
    Ok(entry + "}\n")
}

fn without_vidar(guest: &Guest, menu: &Menu) -> Result<String> {
    let name = &guest.name;
    let mut entry = format!(
        "menuentry {} --id {} {{\n",
        quote(&format!("{}, bare (without Vidar)", guest.title)),
        bare(name)
    );
    let mut line =
        |words: std::fmt::Arguments| writeln!(entry, "    {words}").expect("writing to a String cannot fail");
    line(format_args!("linux {}{} $tty", guest_file(name, "vmlinuz"), arguments(&guest.cmdline)?));
    let initrds: Vec<_> = initrd_files(guest).collect();
    if !initrds.is_empty() {
        line(format_args!("initrd {}", initrds.join(" ")));
    }
    menu.last.iter().for_each(|command| line(format_args!("{command}")));
    Ok(entry + "}\n")
}

/// Returns the paths of the parts of a guest's initrd in the ISO.
fn initrd_files(guest: &Guest) -> impl Iterator<Item = String> {
    (0..guest.initrds.len()).map(|index| guest_file(&guest.name, &initrd(index)))
}

/// Returns the words of a command line, each with a space before it and quoted for GRUB's shell where necessary.
fn arguments(cmdline: &str) -> Result<String> {
    Ok(cmdline::words(cmdline)?.iter().map(|word| format!(" {}", quote(word))).collect())
}

/// Puts the text in single quotes, inside which GRUB's shell changes nothing, unless it needs none.
fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,=/:+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Initrd, Kernel};

    fn guest(name: &str, cmdline: &str) -> Guest {
        Guest {
            name: name.into(),
            title: format!("The {name}"),
            kernel: Kernel::File("k".into()),
            initrds: Vec::new(),
            cmdline: cmdline.into(),
            drivers: Vec::new(),
        }
    }

    const TEMPLATE: &str = "set default=\"@DEFAULT@\"\nset timeout=@TIMEOUT@\nset port=@PORT@\n@ENTRIES@\n";

    #[test]
    fn each_guest_has_two_entries() {
        let menu = Menu { options: "log=debug".into(), ..Menu::default() };
        let initrds = vec![Initrd::File("ucode".into()), Initrd::BuiltIn];
        let guest = Guest { initrds, ..guest("a", "console=ttyS0") };
        let text = config(TEMPLATE, &[guest], &menu, true).unwrap();
        let expected = "set default=\"0\"\nset timeout=5\nset port=0x3f8\n\
            menuentry 'The a under Vidar' --id a {\n    multiboot2 /boot/vidar.elf log=debug \
            @VARIABLES@\n    \
            set gfxpayload=$screen\n    module2 --nounzip /boot/guests/a/vmlinuz console=ttyS0 $tty\n    module2 --nounzip /boot/guests/a/initrd\n    module2 --nounzip /boot/guests/a/initrd2\n}\n\
            menuentry 'The a, bare (without Vidar)' --id a:bare {\n    linux /boot/guests/a/vmlinuz console=ttyS0 $tty\n    \
            initrd /boot/guests/a/initrd /boot/guests/a/initrd2\n}\n";
        assert_eq!(text, expected.replace("@VARIABLES@", &options::variables()));
    }

    #[test]
    fn the_menu_is_on_the_console_that_vidar_writes_to() {
        let with = |console, options: &str| {
            let menu = Menu { debug_console: Some(console), options: options.into(), ..Menu::default() };
            config(TEMPLATE, &[guest("a", "")], &menu, true)
        };
        let text = with(DebugConsole::Com2, "").unwrap();
        assert!(text.contains("set port=0x2f8\n"), "{text}");
        assert!(text.contains("multiboot2 /boot/vidar.elf console=serial serial=com2 $vidar_log"), "{text}");
        assert!(with(DebugConsole::None, "").unwrap().contains("set port=\n"));
        assert!(with(DebugConsole::None, "console=both").is_err());
    }

    #[test]
    fn a_menu_without_vidar_has_no_options_of_vidar() {
        let text = |hypervisor| {
            config("@ENTRIES@\n@OPTIONS@\n", &[guest("a", "")], &Menu::default(), hypervisor).unwrap()
        };
        assert!(text(true).contains("submenu"));
        assert!(!text(false).contains("Vidar$chosen"));
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(arguments("a=b  c").unwrap(), " a=b c");
        assert_eq!(arguments("$x {y}").unwrap(), r" '$x' '{y}'");
        assert_eq!(arguments(r#"dyndbg="file a.c +p""#).unwrap(), " 'dyndbg=file a.c +p'");
        assert_eq!(arguments("").unwrap(), "");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }

    #[test]
    fn options_of_more_than_one_line_are_refused() {
        let menu = Menu { options: "log=debug\nreboot".into(), ..Menu::default() };
        let error = format!("{:#}", config(TEMPLATE, &[guest("a", "")], &menu, true).unwrap_err());
        assert_eq!(error, "Vidar's boot options cannot be used: it must be one line");
    }

    #[test]
    fn the_default_is_the_number_of_its_entry() {
        let guests = [guest("a", ""), guest("6.12", "")];
        let with = |default: &str| {
            let menu = Menu { default: Some(default.into()), ..Menu::default() };
            config(TEMPLATE, &guests, &menu, true)
        };
        for (default, number) in [("a", 0), ("a:bare", 1), ("6.12", 2), ("6.12:bare", 3)] {
            assert!(with(default).unwrap().contains(&format!("default=\"{number}\"")), "{default}");
        }
        let error = with("b").unwrap_err().to_string();
        assert_eq!(error, "There is no menu entry \"b\"; there are: a, a:bare, 6.12, 6.12:bare.");
    }
}
