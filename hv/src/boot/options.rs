//! Vidar's own command line: the words after its name in GRUB's menu entry.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use log::LevelFilter;

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

/// What to do when the guest has crashed and the report is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCrash {
    /// Stop, so that the report can be read.
    Halt,
    /// Reset the machine, as it would without Vidar.
    Reset,
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
    /// `on-crash=`: what a crash of the guest ends in. A reset.
    pub on_crash: OnCrash,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log: LevelFilter::Info,
            console: Console { serial: true, screen: true },
            serial: SerialLine::Com1,
            hypervisor_bit: false,
            emulate_startup: false,
            on_crash: OnCrash::Reset,
        }
    }
}

/// A word of the command line that was not understood and has no effect: a sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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

const KNOWN: [Known; 6] = [
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
        set: |options, at| pick(&mut options.on_crash, &[OnCrash::Halt, OnCrash::Reset], at),
    },
];

impl Options {
    /// Reads a command line: words of the form `name=value` between white space. Of two words for one option the
    /// later counts. A word that is not understood changes nothing and yields a warning.
    pub fn parse(line: &str) -> (Self, Vec<Warning>) {
        let mut options = Self::default();
        let mut warnings = Vec::new();
        for word in line.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
                let names = KNOWN.map(|known| known.name).join(", ");
                warnings.push(Warning(format!("there is no option {name:?}; the options are {names}")));
                continue;
            };
            match known.values.iter().position(|&allowed| allowed == value) {
                Some(at) => (known.set)(&mut options, at),
                None => {
                    let allowed = known.values.join(", ");
                    let text = format!("the option {name:?} cannot be {value:?}; it can be {allowed}");
                    warnings.push(Warning(text));
                }
            }
        }
        (options, warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(Options::parse("  \t "), (Options::default(), Vec::new()));
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
            on_crash: OnCrash::Halt,
        };
        assert_eq!(Options::parse(line), (options, Vec::new()));
        assert_eq!(options.serial.port(), 0x2f8);
        for known in &KNOWN {
            for value in known.values {
                assert!(Options::parse(&format!("{}={value}", known.name)).1.is_empty());
            }
        }
        let console = |line| Options::parse(line).0.console;
        assert_eq!(console("console=none"), Console { serial: false, screen: false });
        assert_eq!(console("console=screen console=both"), Console { serial: true, screen: true });
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let (options, warnings) = Options::parse("quiet log=loud log=debug log");
        assert_eq!(options, Options { log: LevelFilter::Debug, ..Options::default() });
        let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
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
