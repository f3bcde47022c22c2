//! Where Vidar's messages will be seen: on a serial line, on the screen, or nowhere.

use super::finding::Finding;
use super::firmware::BOOT_PARAMS;
use super::machine::{Machine, text};

/// The serial lines of a PC, by the I/O ports that Vidar writes to.
const LINES: [(&str, &str, &str); 4] = [
    ("0x3f8", "COM1", "com1"),
    ("0x2f8", "COM2", "com2"),
    ("0x3e8", "COM3", "com3"),
    ("0x2e8", "COM4", "com4"),
];
/// The offset of the kind of screen in boot_params: `screen_info.orig_video_isVGA`. 0 means that there is none.
const SCREEN: usize = 0xf;

/// Checks that somebody can see what Vidar says.
pub fn check(machine: &dyn Machine) -> Finding {
    let lines = serial_lines(machine);
    let first = lines.first().map(|(name, option)| (*name, *option));
    let serial = first.map(|(name, option)| match option {
        "com1" => name.to_owned(),
        other => format!("{name}, with Vidar's boot option serial={other}"),
    });
    match (serial, has_screen(machine)) {
        (Some(serial), true) => {
            Finding::ok(format!("Vidar's messages go to the screen and to the serial line {serial}"))
        }
        (None, true) => Finding::ok("Vidar's messages go to the screen, since there is no serial line"),
        (Some(serial), false) => Finding::warning(
            format!("Vidar's messages go to the serial line {serial} only, since no screen was found"),
            "connect a terminal with 115200 baud to the line",
        ),
        (None, false) => Finding::warning(
            "neither a serial line nor a screen was found, so nobody will see what Vidar says",
            "connect a screen, or switch a serial port on in the firmware's setup",
        ),
    }
}

/// Returns the names and the boot options of the serial lines that exist, in the order of [`LINES`].
fn serial_lines(machine: &dyn Machine) -> Vec<(&'static str, &'static str)> {
    let names = machine.names("/sys/class/tty").unwrap_or_default();
    let ports = names.iter().filter(|name| name.starts_with("ttyS")).filter_map(|name| {
        let field = |field| text(machine, &format!("/sys/class/tty/{name}/{field}")).ok();
        // The type of a port without a chip is 0.
        field("type").filter(|kind| kind != "0").and_then(|_| field("port")).map(|port| port.to_lowercase())
    });
    let ports: Vec<_> = ports.collect();
    let exists = |(port, ..): &(&str, &str, &str)| ports.iter().any(|other| other == port);
    LINES.into_iter().filter(exists).map(|(_, name, option)| (name, option)).collect()
}

/// Returns true if the boot loader has found a screen, or Linux drives one.
fn has_screen(machine: &dyn Machine) -> bool {
    let given = machine.file(BOOT_PARAMS).ok().and_then(|bytes| bytes.get(SCREEN).copied());
    given.is_some_and(|kind| kind != 0)
        || machine
            .names("/sys/class/graphics")
            .is_ok_and(|names| names.iter().any(|name| name.starts_with("fb0")))
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::super::finding::State;
    use super::*;

    fn line(machine: Fake, number: u32, kind: &str, port: &str) -> Fake {
        let file = |name: &str| format!("/sys/class/tty/ttyS{number}/{name}");
        machine.with(&file("type"), kind).with(&file("port"), port)
    }

    fn screen(machine: Fake) -> Fake {
        let mut page = vec![0; 4096];
        page[SCREEN] = 1;
        machine.with(BOOT_PARAMS, page)
    }

    #[test]
    fn a_serial_line_or_a_screen_is_needed() {
        let nothing = line(Fake::default(), 0, "0\n", "0x3F8\n").with(BOOT_PARAMS, [0; 4096]);
        assert_eq!(check(&nothing).state, State::Warning);
        let serial = line(Fake::default(), 0, "4\n", "0x3F8\n");
        assert_eq!(check(&serial).state, State::Warning);
        let both = check(&screen(serial));
        assert_eq!(both, Finding::ok("Vidar's messages go to the screen and to the serial line COM1"));
        assert_eq!(check(&screen(Fake::default())).state, State::Ok);
        assert_eq!(check(&Fake::default().with("/sys/class/graphics/fb0/name", "efi")).state, State::Ok);
    }

    #[test]
    fn another_line_than_com1_needs_an_option() {
        let second = line(line(Fake::default(), 0, "0", "0x3F8"), 1, "4", "0x2F8");
        assert!(check(&screen(second.clone())).text.ends_with("COM2, with Vidar's boot option serial=com2"));
        assert_eq!(serial_lines(&line(second, 4, "4", "0xd000")), [("COM2", "com2")]);
    }
}
