//! Vidar's options: the words after its name in GRUB's menu entry.

use core::fmt;

use log::LevelFilter;

pub use crate::console::ending::OnCrash;
use crate::loader::text::Text;

/// Where Vidar writes its log until the guest runs, and its crash reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Console {
    /// True for the serial line that [`Options::serial`] names.
    pub serial: bool,
    /// True for the screen.
    pub screen: bool,
}

/// A serial line, by the first of its I/O ports on a PC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum SerialLine {
    /// COM1, at port 3F8H.
    Com1 = 0x3f8,
    /// COM2, at port 2F8H.
    Com2 = 0x2f8,
    /// COM3, at port 3E8H.
    Com3 = 0x3e8,
    /// COM4, at port 2E8H.
    Com4 = 0x2e8,
}

impl SerialLine {
    /// Returns the first I/O port of the line.
    pub const fn port(self) -> u16 {
        self as u16
    }
}

/// The options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// `log=`: the least severe level that is logged. The default is info.
    pub log: LevelFilter,
    /// `console=`: where the log goes. The default is both.
    pub console: Console,
    /// `serial=`: the serial line. The default is COM1.
    pub serial: SerialLine,
    /// `hypervisor-bit=`: true if CPUID tells the guest that there is a hypervisor. The default is false, because from
    /// this bit alone Linux concludes that parts of the machine are missing, such as PMUs, ECC reports and microcode
    /// updates.
    pub hypervisor_bit: bool,
    /// `cpu-startup=`: true if Vidar emulates the start of CPUs even where the hardware could do it. The default is
    /// false.
    pub emulate_startup: bool,
    /// `on-crash=`: what Vidar does after a crash of the guest or of Vidar. Without the option, see
    /// [`OnCrash::or_default`].
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

/// A warning about a word of the command line that was not understood and has no effect. It is displayed as a sentence
/// for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning<'a> {
    /// No option has this name.
    Name(Text<'a>),
    /// The option at this index of the list of options does not take this value.
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
                list(f, &mut OPTIONS.iter().map(|option| option.name))
            }
            Self::Value(at, value) => {
                let Some(option) = OPTIONS.get(at) else { return Ok(()) };
                write!(f, "the option {:?} cannot be {value:?}; it can be ", option.name)?;
                list(f, &mut option.values.iter().copied())
            }
        }
    }
}

/// An option: its name, its values, and a function that sets it.
struct OptionSpec {
    name: &'static str,
    values: &'static [&'static str],
    /// Sets the option to the value at this index of `values`.
    set: fn(&mut Options, usize),
}

/// Copies `items[at]` to `to`. The caller's `at` is an index of a list with the same length.
fn pick<T: Copy>(to: &mut T, items: &[T], at: usize) {
    if let Some(item) = items.get(at) {
        *to = *item;
    }
}

static OPTIONS: [OptionSpec; 6] = [
    OptionSpec {
        name: "log",
        values: &["error", "warn", "info", "debug", "trace"],
        set: |options, at| {
            use LevelFilter::{Debug, Error, Info, Trace, Warn};
            pick(&mut options.log, &[Error, Warn, Info, Debug, Trace], at);
        },
    },
    OptionSpec {
        name: "console",
        values: &["serial", "screen", "both", "none"],
        set: |options, at| {
            let on = |serial, screen| Console { serial, screen };
            let consoles = [on(true, false), on(false, true), on(true, true), on(false, false)];
            pick(&mut options.console, &consoles, at);
        },
    },
    OptionSpec {
        name: "serial",
        values: &["com1", "com2", "com3", "com4"],
        set: |options, at| {
            use SerialLine::{Com1, Com2, Com3, Com4};
            pick(&mut options.serial, &[Com1, Com2, Com3, Com4], at);
        },
    },
    OptionSpec {
        name: "hypervisor-bit",
        values: &["on", "off"],
        set: |options, at| pick(&mut options.hypervisor_bit, &[true, false], at),
    },
    OptionSpec {
        name: "cpu-startup",
        values: &["auto", "emulated"],
        set: |options, at| pick(&mut options.emulate_startup, &[false, true], at),
    },
    OptionSpec {
        name: "on-crash",
        values: &["halt", "reset"],
        set: |options, at| pick(&mut options.on_crash, &[Some(OnCrash::Halt), Some(OnCrash::Reset)], at),
    },
];

impl Options {
    /// Parses a command line of words `name=value` between white space. If an option occurs twice, its last value is
    /// used. Words that are not understood are ignored; [`Options::warnings`] returns them.
    pub fn parse(line: Text<'_>) -> Self {
        let mut options = Self::default();
        for (option, value) in words(line).filter_map(Result::ok) {
            (option.set)(&mut options, value);
        }
        options
    }

    /// Returns a warning for each word that is not understood.
    pub fn warnings(line: Text<'_>) -> impl Iterator<Item = Warning<'_>> {
        words(line).filter_map(Result::err)
    }
}

/// Returns the words of a command line, each as an option with the index of its value, or as a warning.
fn words(line: Text<'_>) -> impl Iterator<Item = Result<(&'static OptionSpec, usize), Warning<'_>>> {
    let words = line.0.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.map(|word| {
        let mut parts = word.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        let option = OPTIONS.iter().zip(0..).find(|(option, _)| option.name.as_bytes() == name);
        let (option, at) = option.ok_or(Warning::Name(Text(name)))?;
        let place = option.values.iter().position(|allowed| allowed.as_bytes() == value);
        place.map(|place| (option, place)).ok_or(Warning::Value(at, Text(value)))
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
    fn empty_line_leaves_the_defaults() {
        assert_eq!(parse("  \t "), (Options::default(), Vec::new()));
    }

    #[test]
    fn words_that_are_not_utf8_do_not_affect_others() {
        let line = Text(b"log=debug f\xfcr=x console=s\xe9rial");
        assert_eq!(Options::parse(line), Options { log: LevelFilter::Debug, ..Options::default() });
        let warnings: Vec<_> = Options::warnings(line).map(|warning| warning.to_string()).collect();
        assert!(warnings[0].starts_with("there is no option \"f\\xfcr\"; "), "{warnings:?}");
        assert!(warnings[1].starts_with("the option \"console\" cannot be \"s\\xe9rial\"; "), "{warnings:?}");
    }

    #[test]
    fn every_option_takes_each_of_its_values() {
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
        for option in &OPTIONS {
            for value in option.values {
                assert!(parse(&format!("{}={value}", option.name)).1.is_empty());
            }
        }
        let console = |line| parse(line).0.console;
        assert_eq!(console("console=none"), Console { serial: false, screen: false });
        assert_eq!(console("console=screen console=both"), Console { serial: true, screen: true });
    }

    #[test]
    fn warnings_name_the_word_and_what_is_allowed() {
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
