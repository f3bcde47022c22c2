//! The manual page vidar(7). Boot options are described by the hypervisor's own table, and settings by the comments of
//! `grub/vidar.cfg`.

use anyhow::Result;
use vidar_core::boot::options::OPTIONS;
use vidar_core::boot::refusal::Refusal;

use super::date;
use super::page::Page;
use super::settings::Setting;
use super::version::Version;

/// What is said where Vidar does not start, or not as it should: what one sees, and what to do.
const TROUBLE: [(&str, &str); 7] = [
    (
        "A line that ends in `vidar: error: cannot start:` and a sentence",
        "The sentence says what is missing and what to do. Most often VT-x (\"Intel Virtualization Technology\") or AMD-V \
         (\"SVM Mode\") is switched off in the firmware's setup. The machine stays on until you reset it. The entry \
         without Vidar starts the same kernel.",
    ),
    (
        "An entry that says `needs Secure Boot off`",
        "Nobody has signed Vidar, so GRUB does not load it while Secure Boot is on. Switch Secure Boot off in the \
         firmware's setup, or choose an entry without Vidar.",
    ),
    ("No entry under Vidar in the menu", "Run `update-grub` and read its warnings, which name the reason."),
    ("GRUB says `out of memory`", "The machine has too little memory for this kernel and its initrd."),
    (
        "The machine stops or resets elsewhere",
        "Press e at the entry, add `log=trace on-crash=halt` to the line that begins with `multiboot2`, and press \
         Ctrl-x. The last line on the screen or on the serial port says how far Vidar came, and a crash report stays \
         readable.",
    ),
    (
        "What worked before an upgrade works no longer",
        "Choose the entry whose title ends in `under Vidar` and the number of the previous version. It is there until the \
         next upgrade.",
    ),
    (
        "You want to be without Vidar",
        "Choose an entry without Vidar, which the package does not change. `apt purge vidar` leaves GRUB's menu and \
         /boot as they were before the package was installed.",
    ),
];

/// What Linux lacks under Vidar.
const LIMITS: [(&str, &str); 5] = [
    ("Virtual machines", "Linux has no VT-x and no AMD-V, so KVM and other hypervisors cannot use them."),
    (
        "Sleep",
        "Suspend to RAM is not offered. Suspend to idle works, and hibernation if the same menu entry resumes it, with guard=off.",
    ),
    ("Secure Boot", "It has to be off."),
    ("DMA", "Devices can write to Vidar's memory. Vidar protects itself only against what CPUs do."),
    ("Hardware", "So far Vidar has run only in emulators. Bare hardware has not been tried."),
];

/// The files of the package that its users see.
const FILES: [(&str, &str); 4] = [
    ("`/boot/vidar.elf`", "The hypervisor."),
    ("`/boot/vidar-VERSION.elf`", "The hypervisor of the version before the last upgrade."),
    ("`/etc/default/grub.d/vidar.cfg`", "The settings."),
    ("`/etc/grub.d/45_vidar`", "What adds the entries to GRUB's menu."),
];

/// Returns the source of the page.
pub fn manual(version: &Version, date: u64) -> Result<Vec<u8>> {
    let date = date::formatted(date, "+%F")?;
    let mut page = Page::new("VIDAR", "7", &date, &format!("Vidar {version}"), "Vidar");
    page.section("NAME");
    page.paragraph("vidar - thin hypervisor that Linux runs under with the whole machine");
    description(&mut page);
    settings(&mut page)?;
    options(&mut page);
    messages(&mut page);
    page.section("IF VIDAR DOES NOT START");
    page.paragraph("This is what you may see, and what to do then:");
    TROUBLE.iter().for_each(|(what, text)| page.item(what, text));
    page.section("LIMITS");
    LIMITS.iter().for_each(|(what, text)| page.item(what, text));
    page.section("FILES");
    FILES.iter().for_each(|(what, text)| page.item(what, text));
    page.section("SEE ALSO");
    page.paragraph("`vidarctl`(1), `update-grub`(8), `grub-mkconfig`(8)");
    Ok(page.source().into_bytes())
}

fn description(page: &mut Page) {
    page.section("DESCRIPTION");
    page.paragraph(
        "Vidar is a thin type-1 hypervisor for x86-64 with Intel VT-x or AMD-V. GRUB loads it together with the kernel and \
         the initrd of this system. Linux then runs under it with every CPU, every device and every interrupt at native \
         speed. Vidar keeps 2 MiB of memory for itself, and more only where a machine has many CPUs or much memory.",
    );
    page.paragraph(
        "The package adds entries to GRUB's menu. The first one, whose title ends in \"under Vidar\", starts the newest \
         kernel. A submenu has the older kernels and the recovery mode. Each entry has the kernel, the initrd and the \
         command line of the entry without Vidar, which stays as it is. When a kernel is installed or removed, its entries \
         come and go with it. After an upgrade of Vidar one more entry starts the newest kernel under the previous version.",
    );
    page.paragraph(
        "`vidarctl doctor` says whether this machine can run Vidar, before one starts it. `vidarctl status` says whether \
         this Linux runs under Vidar, and what Vidar keeps for itself.",
    );
}

fn settings(page: &mut Page) -> Result<()> {
    page.section("SETTINGS");
    page.paragraph(
        "The settings are in `/etc/default/grub.d/vidar.cfg`. Run `update-grub` after a change. A value is written as in \
         /etc/default/grub.",
    );
    for Setting { name, default, text } in Setting::all()? {
        page.item(&format!("`{name}={default}`"), &text);
    }
    Ok(())
}

fn options(page: &mut Page) {
    page.section("BOOT OPTIONS");
    page.paragraph(
        "Boot options are words that are separated by spaces. Write them into the setting `VIDAR_OPTIONS`. For one boot, \
         press e at the entry in GRUB's menu, add them to the end of the line that begins with `multiboot2`, and press \
         Ctrl-x.",
    );
    for option in OPTIONS {
        let values: Vec<_> = option.values.iter().map(|value| format!("`{}`", value.word)).collect();
        let default = if option.values.iter().any(|value| value.word == option.default) {
            format!("`{}`", option.default)
        } else {
            option.default.to_owned()
        };
        let item = format!("`{}=`{}", option.name, values.join("|"));
        page.item(&item, &format!("{} The default is {default}.", option.help.trim()));
    }
    page.paragraph(
        "If an option occurs twice, its last value is used. An option or a value that does not exist is named in a warning \
         and has no effect.",
    );
}

fn messages(page: &mut Page) {
    page.section("MESSAGES");
    page.paragraph(
        "Until Linux starts, Vidar writes its log to the screen and to the serial port, at 115200 baud. Each line begins \
         with \"vidar: \", and these are the last ones of a start that succeeds:",
    );
    page.example(&[
        "vidar: keeps 0x200000 to 0x3fffff for itself, 744 KiB of it free",
        "vidar: the machine is the guest's now; run `vidarctl` in it for details",
    ]);
    page.paragraph(
        "From then on the screen and the serial port are Linux's alone. Vidar's log stays in its memory, and \
         `vidarctl log` prints it.",
    );
    page.paragraph(
        "If Vidar cannot start, its last line says in one sentence what is missing and what to do, for example:",
    );
    let refusal = format!("vidar: error: cannot start: {}", Refusal::NoVirtualization);
    let lines = textwrap::wrap(&refusal, 70);
    page.example(&lines.iter().map(|line| line.as_ref()).collect::<Vec<_>>());
    page.paragraph(
        "A crash of the machine that a bare CPU would answer by a reset, and a bug of Vidar's, end in a crash report: the \
         reason and all registers, on the screen and on the serial port. The option `on-crash=` says what follows. After a reset, Vidar shows the main lines of the report once more, and \
         `vidarctl log --last` prints the whole log of the start that crashed, if the firmware has not cleared it. Linux \
         shows that log in `/sys/fs/pstore` after:",
    );
    page.example(&["modprobe ramoops $(vidarctl log --ramoops)"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        String::from_utf8(manual(&Version::new(Some("1")).unwrap(), 0).unwrap()).unwrap()
    }

    #[test]
    fn each_option_and_each_setting_is_in_the_manual() {
        let text = text();
        for option in OPTIONS {
            let name = option.name.replace('-', "\\-");
            assert!(text.contains(&format!(".TP\n\\fB{name}=\\fR")), "{name}: {text}");
        }
        for setting in Setting::all().unwrap() {
            assert!(text.contains(&format!(".TP\n\\fB{}=", setting.name)), "{text}");
        }
    }

    #[test]
    fn titles_are_those_of_the_generator() {
        let generator = std::fs::read_to_string(crate::paths::root().join("grub/45_vidar")).unwrap();
        for title in ["under Vidar", "needs Secure Boot off"] {
            assert!(generator.contains(title) && text().contains(title), "{title}");
        }
    }

    #[test]
    fn the_commands_that_it_names_exist() {
        let tool = vidarctl::command();
        let text = text();
        let named = text.split("\\fBvidarctl ").skip(1).map(|rest| rest.split(['\\', ' ']).next().unwrap());
        let named: Vec<_> = named.collect();
        assert!(named.contains(&"doctor") && named.contains(&"log"), "{named:?}");
        assert!(named.iter().all(|name| tool.find_subcommand(name).is_some()), "{named:?}");
    }

    #[test]
    fn the_date_and_the_version_are_at_the_foot() {
        assert!(text().contains(".TH VIDAR 7 1970-01-01 \"Vidar 1\" Vidar\n"), "{}", text());
    }
}
