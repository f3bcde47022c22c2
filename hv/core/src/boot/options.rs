//! Vidar's own command line: the words after its name in GRUB's menu entry.

use core::fmt;

use log::LevelFilter;

pub use crate::console::ending::OnCrash;
use crate::loader::text::Text;

/// Where Vidar writes its log until the guest runs, and its crash reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Console {
    /// On the serial line that [`Options::serial`] names.
    pub serial: bool,
    /// On the screen.
    pub screen: bool,
}

/// A serial line, at the port where a PC has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum SerialLine {
    /// The first.
    Com1 = 0x3f8,
    /// The second.
    Com2 = 0x2f8,
    /// The third.
    Com3 = 0x3e8,
    /// The fourth.
    Com4 = 0x2e8,
}

impl SerialLine {
    /// The first of its I/O ports.
    pub const fn port(self) -> u16 {
        self as u16
    }
}

/// The options, each with what it is when the command line does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// `log=`: the least that is logged. Info.
    pub log: LevelFilter,
    /// `console=`: where the log goes. To both.
    pub console: Console,
    /// `serial=`: the serial line. COM1.
    pub serial: SerialLine,
    /// `hypervisor-bit=`: whether CPUID tells the guest of Vidar. It does not: from that bit alone Linux concludes that
    /// much of the machine is not there, such as PMUs, ECC reports and microcode updates.
    pub hypervisor_bit: bool,
    /// `cpu-startup=`: whether Vidar starts CPUs for the guest where their local APICs could. They do where they can.
    pub emulate_startup: bool,
    /// `on-crash=`: what a crash ends in, of the guest or of Vidar. If nothing is said, in a reset once the guest runs.
    pub on_crash: Option<OnCrash>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log: LevelFilter::Info,
            console: Console { serial: true, screen: true },
            serial: SerialLine::Com1,
            hypervisor_bit: false,
            emulate_startup: false,
            on_crash: None,
        }
    }
}

/// A word of the command line that was not understood and has no effect: a sentence for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning<'a> {
    /// There is no such option.
    Name(Text<'a>),
    /// An option of this place in the list of known ones does not take such a value.
    Value(usize, Text<'a>),
}

impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, items: &mut dyn Iterator<Item = &'static str>| {
            items
                .enumerate()
                .try_for_each(|(index, item)| write!(f, "{}{item}", if index == 0 { "" } else { ", " }))
        };
        match *self {
            Self::Name(name) => {
                write!(f, "there is no option {name:?}; the options are ")?;
                list(f, &mut KNOWN.iter().map(|known| known.name))
            }
            Self::Value(at, value) => {
                let Some(known) = KNOWN.get(at) else { return Ok(()) };
                write!(f, "the option {:?} cannot be {value:?}; it can be ", known.name)?;
                list(f, &mut known.values.iter().copied())
            }
        }
    }
}

/// An option: its name, its values, and how it takes one of them.
struct Known {
    name: &'static str,
    values: &'static [&'static str],
    /// Sets the option to the value at this place in `values`.
    set: fn(&mut Options, usize),
}

/// `items[at]`; the caller's `at` is a place in a list of the same length.
fn pick<T: Copy>(to: &mut T, items: &[T], at: usize) {
    if let Some(item) = items.get(at) {
        *to = *item;
    }
}

static KNOWN: [Known; 6] = [
    Known {
        name: "log",
        values: &["error", "warn", "info", "debug", "trace"],
        set: |options, at| {
            use LevelFilter::{Debug, Error, Info, Trace, Warn};
            pick(&mut options.log, &[Error, Warn, Info, Debug, Trace], at);
        },
    },
    Known {
        name: "console",
        values: &["serial", "screen", "both", "none"],
        set: |options, at| {
            let on = |serial, screen| Console { serial, screen };
            let consoles = [on(true, false), on(false, true), on(true, true), on(false, false)];
            pick(&mut options.console, &consoles, at);
        },
    },
    Known {
        name: "serial",
        values: &["com1", "com2", "com3", "com4"],
        set: |options, at| {
            use SerialLine::{Com1, Com2, Com3, Com4};
            pick(&mut options.serial, &[Com1, Com2, Com3, Com4], at);
        },
    },
    Known {
        name: "hypervisor-bit",
        values: &["on", "off"],
        set: |options, at| pick(&mut options.hypervisor_bit, &[true, false], at),
    },
    Known {
        name: "cpu-startup",
        values: &["auto", "emulated"],
        set: |options, at| pick(&mut options.emulate_startup, &[false, true], at),
    },
    Known {
        name: "on-crash",
        values: &["halt", "reset"],
        set: |options, at| pick(&mut options.on_crash, &[Some(OnCrash::Halt), Some(OnCrash::Reset)], at),
    },
];

impl Options {
    /// Reads a command line: words of the form `name=value` between white space. Of two words for one option the
    /// later counts. A word that is not understood changes nothing.
    pub fn parse(line: Text<'_>) -> Self {
        let mut options = Self::default();
        for (known, value) in words(line).filter_map(Result::ok) {
            (known.set)(&mut options, value);
        }
        options
    }

    /// What there is to say of words that are not understood.
    pub fn warnings(line: Text<'_>) -> impl Iterator<Item = Warning<'_>> {
        words(line).filter_map(Result::err)
    }
}

/// The words of a command line, each as an option with the place of its value.
fn words(line: Text<'_>) -> impl Iterator<Item = Result<(&'static Known, usize), Warning<'_>>> {
    let words = line.0.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.map(|word| {
        let mut parts = word.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        let known = KNOWN.iter().zip(0..).find(|(known, _)| known.name.as_bytes() == name);
        let (known, at) = known.ok_or(Warning::Name(Text(name)))?;
        let place = known.values.iter().position(|allowed| allowed.as_bytes() == value);
        place.map(|place| (known, place)).ok_or(Warning::Value(at, Text(value)))
    })
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    use super::*;

    fn parse(line: &str) -> (Options, Vec<String>) {
        let line = Text(line.as_bytes());
        (Options::parse(line), Options::warnings(line).map(|warning| warning.to_string()).collect())
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(parse("  \t "), (Options::default(), Vec::new()));
    }

    #[test]
    fn bytes_that_are_no_text_harm_nothing_else() {
        let line = Text(b"log=debug f\xfcr=x console=s\xe9rial");
        assert_eq!(Options::parse(line), Options { log: LevelFilter::Debug, ..Options::default() });
        let warnings: Vec<_> = Options::warnings(line).map(|warning| warning.to_string()).collect();
        assert!(warnings[0].starts_with("there is no option \"f\\xfcr\"; "), "{warnings:?}");
        assert!(warnings[1].starts_with("the option \"console\" cannot be \"s\\xe9rial\"; "), "{warnings:?}");
    }

    #[test]
    fn every_option_and_value() {
        let line =
            "log=trace console=serial serial=com2 hypervisor-bit=on cpu-startup=emulated on-crash=halt";
        let options = Options {
            log: LevelFilter::Trace,
            console: Console { serial: true, screen: false },
            serial: SerialLine::Com2,
            hypervisor_bit: true,
            emulate_startup: true,
            on_crash: Some(OnCrash::Halt),
        };
        assert_eq!(parse(line), (options, Vec::new()));
        assert_eq!(options.serial.port(), 0x2f8);
        for known in &KNOWN {
            for value in known.values {
                assert!(parse(&format!("{}={value}", known.name)).1.is_empty());
            }
        }
        let console = |line| parse(line).0.console;
        assert_eq!(console("console=none"), Console { serial: false, screen: false });
        assert_eq!(console("console=screen console=both"), Console { serial: true, screen: true });
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let (options, warnings) = parse("quiet log=loud log=debug log");
        assert_eq!(options, Options { log: LevelFilter::Debug, ..Options::default() });
        assert_eq!(
            warnings,
            [
                "there is no option \"quiet\"; the options are log, console, serial, hypervisor-bit, cpu-startup, on-crash",
                "the option \"log\" cannot be \"loud\"; it can be error, warn, info, debug, trace",
                "the option \"log\" cannot be \"\"; it can be error, warn, info, debug, trace",
            ]
        );
    }
}
