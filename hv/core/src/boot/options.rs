//! Vidar's options: the words after its name in GRUB's menu entry.

use core::fmt;

use log::LevelFilter;

pub use crate::console::ending::OnCrash;
use crate::loader::text::Text;
pub use crate::policy::guard::Guard;

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

    /// Returns the line's ISA interrupt.
    pub const fn interrupt(self) -> u8 {
        match self {
            Self::Com1 | Self::Com3 => 4,
            Self::Com2 | Self::Com4 => 3,
        }
    }
}

/// The serial line for gdb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gdb {
    /// The line.
    pub line: SerialLine,
    /// True if the guest stops before the kernel's first instruction and waits for gdb.
    pub waits: bool,
}

impl Gdb {
    const fn on(line: SerialLine, waits: bool) -> Option<Self> {
        Some(Self { line, waits })
    }
}

/// How much memory the trace of each CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceSize {
    /// The number of bytes, which is a power of two and a multiple of a page.
    pub bytes: usize,
}

impl TraceSize {
    const fn kib(kib: usize) -> Option<Self> {
        assert!(kib.is_power_of_two() && kib >= 4, "this is not a power of two of at least a page");
        Some(Self { bytes: kib << 10 })
    }
}

/// What devices can do to Vidar's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dma {
    /// Devices can reach Vidar's memory. The guest has the machine's IOMMUs to itself.
    Open,
    /// The machine's IOMMUs keep them away, and the guest has the IOMMUs for interrupts alone.
    Guard,
}

/// A boot option, for the parser, for GRUB's menu of options and for the test of the README's table.
pub struct BootOption {
    /// The name of the option on the command line.
    pub name: &'static str,
    /// The values that it can have.
    pub values: &'static [Value],
    /// What holds if the command line does not say.
    pub default: &'static str,
    /// One sentence about what it is for.
    pub help: &'static str,
}

/// A value of an option.
pub struct Value {
    /// The word on the command line.
    pub word: &'static str,
    /// What GRUB's menu of options calls it, if it can be chosen there.
    pub title: Option<&'static str>,
    set: fn(&mut Options),
}

/// Defines [`Options`] and [`OPTIONS`]. The doc comment of an option is its help. The default is given as a value and
/// in words. A value may have a title, with which GRUB's menu of options offers it.
macro_rules! options {
    ($(
        $(#[doc = $help:literal])+
        $name:literal => $field:ident: $type:ty = $default:expr, $said:literal {
            $($word:literal => $value:expr $(, $title:literal)?;)+
        }
    )+) => {
        /// The options of one start.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Options {
            $(#[doc = concat!("`", $name, "=`:", $($help),+)] pub $field: $type,)+
        }

        impl Default for Options {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// All options.
        pub static OPTIONS: &[BootOption] = &[$(BootOption {
            name: $name,
            values: &[$(Value {
                word: $word,
                // The title, if there is one.
                title: [$(Some($title),)? None][0],
                set: |options| options.$field = $value,
            },)+],
            default: $said,
            help: concat!($($help),+),
        },)+];
    };
}

options! {
    /// Vidar logs messages of this level and of those before it.
    "log" => log: LevelFilter = LevelFilter::Info, "info" {
        "error" => LevelFilter::Error;
        "warn" => LevelFilter::Warn;
        "info" => LevelFilter::Info;
        "debug" => LevelFilter::Debug, "Log more";
        "trace" => LevelFilter::Trace, "Log everything";
    }

    /// Where Vidar writes its log until the guest runs, and its crash reports.
    "console" => console: Console = Console { serial: true, screen: true }, "both" {
        "serial" => Console { serial: true, screen: false };
        "screen" => Console { serial: false, screen: true };
        "both" => Console { serial: true, screen: true };
        "none" => Console { serial: false, screen: false };
    }

    /// The serial port that Vidar writes to.
    "serial" => serial: SerialLine = SerialLine::Com1, "com1" {
        "com1" => SerialLine::Com1;
        "com2" => SerialLine::Com2;
        "com3" => SerialLine::Com3;
        "com4" => SerialLine::Com4;
    }

    // The default is off, because from this bit alone Linux concludes that parts of the machine are missing, such as
    // PMUs, ECC reports and microcode updates.
    /// With `on` CPUID reports Vidar to the guest.
    "hypervisor-bit" => hypervisor_bit: bool = false, "off" {
        "on" => true, "Show Vidar to those who ask CPUID";
        "off" => false;
    }

    /// With `emulated` Vidar starts CPUs for the guest, even if the hardware can.
    "cpu-startup" => emulate_startup: bool = false, "auto" {
        "auto" => false;
        "emulated" => true, "Have Vidar start the guest's CPUs";
    }

    /// What follows the report of a crash.
    "on-crash" => on_crash: Option<OnCrash> = None, "reset once the guest runs, halt before" {
        "halt" => Some(OnCrash::Halt), "Stop when the guest crashes, to read the report";
        "reset" => Some(OnCrash::Reset), "Reset when the guest crashes, as usual";
    }

    /// With `on` Vidar asks the manual's rules for entering the guest before each entry, and logs those that are
    /// broken.
    "check" => check: bool = false, "off" {
        "on" => true, "Check the manual's rules before each entry";
        "off" => false;
    }

    /// The serial port at which gdb can debug the guest. With `,wait` the guest waits there for gdb before the kernel's
    /// first instruction.
    "gdb" => gdb: Option<Gdb> = None, "off" {
        "off" => None;
        "com1" => Gdb::on(SerialLine::Com1, false);
        "com2" => Gdb::on(SerialLine::Com2, false), "Let gdb debug the guest over COM2";
        "com1,wait" => Gdb::on(SerialLine::Com1, true);
        "com2,wait" => Gdb::on(SerialLine::Com2, true), "Wait for gdb at COM2 before the kernel starts";
    }

    /// With `on` Vidar keeps a trace of the last exits of each CPU, which `vidarctl trace` prints. A size keeps more of
    /// them.
    "trace" => trace: Option<TraceSize> = None, "off" {
        "on" => TraceSize::kib(16), "Keep a trace of the exits";
        "64k" => TraceSize::kib(64);
        "256k" => TraceSize::kib(256);
        "1m" => TraceSize::kib(1024), "Keep a long trace of the exits";
        "off" => None;
    }

    // The default is off, because with it kexec and kdump end in a reset.
    /// With `cpu` the CPU's protections that the guest's kernel has switched on stay on until INIT or reset. With
    /// `data` the kernel's read-only data and IDT can be locked too, and with `audit` writes to its code are noted.
    "guard" => guard: Guard = Guard::Off, "off" {
        "off" => Guard::Off, "Guard nothing: for kexec, and to resume from hibernation";
        "cpu" => Guard::Cpu, "Keep the CPU's protections on";
        "data" => Guard::Data, "Let vidarctl lock the kernel's read-only data as well";
        "audit" => Guard::Audit, "Note writes to the kernel's code as well";
    }

    // The default is open, because with the guard the guest cannot translate addresses for its devices, for VFIO as an
    // example.
    /// With `guard` the machine's IOMMUs keep devices away from Vidar's memory, and the guest has them for interrupts
    /// alone.
    "dma" => dma: Dma = Dma::Open, "open" {
        "open" => Dma::Open;
        "guard" => Dma::Guard, "Keep devices away from Vidar's memory";
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
                list(f, &mut option.values.iter().map(|value| value.word))
            }
        }
    }
}

impl Options {
    /// Parses a command line of words `name=value` between white space. If an option occurs twice, its last value is
    /// used. Words that are not understood are ignored; [`Options::warnings`] returns them.
    pub fn parse(line: Text<'_>) -> Self {
        let mut options = Self::default();
        for value in words(line).filter_map(Result::ok) {
            (value.set)(&mut options);
        }
        options
    }

    /// Returns a warning for each word that is not understood.
    pub fn warnings(line: Text<'_>) -> impl Iterator<Item = Warning<'_>> {
        words(line).filter_map(Result::err)
    }
}

/// Returns the words of a command line, each as the value that it gives an option, or as a warning.
fn words(line: Text<'_>) -> impl Iterator<Item = Result<&'static Value, Warning<'_>>> {
    let words = line.0.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.map(|word| {
        let mut parts = word.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        let option = OPTIONS.iter().zip(0..).find(|(option, _)| option.name.as_bytes() == name);
        let (option, at) = option.ok_or(Warning::Name(Text(name)))?;
        let value_of = option.values.iter().find(|allowed| allowed.word.as_bytes() == value);
        value_of.ok_or(Warning::Value(at, Text(value)))
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
        for option in OPTIONS {
            let set = option.values.iter().map(|value| parse(&format!("{}={}", option.name, value.word)));
            let set: Vec<_> = set.collect();
            assert!(set.iter().all(|(_, warnings)| warnings.is_empty()), "{}", option.name);
            for (index, (options, _)) in set.iter().enumerate() {
                assert!(set[..index].iter().all(|(other, _)| other != options), "{}", option.name);
            }
            // A default that is a value is the one that holds.
            let default = option.values.iter().zip(&set).find(|(value, _)| value.word == option.default);
            assert!(
                default.is_none_or(|(_, (options, _))| *options == Options::default()),
                "{}",
                option.name
            );
        }
    }

    #[test]
    fn several_options_at_once() {
        let line =
            "log=trace console=serial serial=com2 hypervisor-bit=on cpu-startup=emulated on-crash=halt";
        let (options, warnings) = parse(line);
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!((options.log, options.serial), (LevelFilter::Trace, SerialLine::Com2));
        assert_eq!(options.console, Console { serial: true, screen: false });
        assert_eq!((options.hypervisor_bit, options.emulate_startup), (true, true));
        assert_eq!(options.on_crash, Some(OnCrash::Halt));
        assert_eq!(options.serial.port(), 0x2f8);
        let console = |line| parse(line).0.console;
        assert_eq!(console("console=none"), Console { serial: false, screen: false });
        assert_eq!(console("console=screen console=both"), Console { serial: true, screen: true });
    }

    #[test]
    fn warnings_name_the_word_and_what_is_allowed() {
        let (options, warnings) = parse("silent log=loud log=debug log");
        assert_eq!(options, Options { log: LevelFilter::Debug, ..Options::default() });
        let names: Vec<_> = OPTIONS.iter().map(|option| option.name).collect();
        assert_eq!(
            warnings,
            [
                format!("there is no option \"silent\"; the options are {}", names.join(", ")),
                "the option \"log\" cannot be \"loud\"; it can be error, warn, info, debug, trace"
                    .to_string(),
                "the option \"log\" cannot be \"\"; it can be error, warn, info, debug, trace".to_string(),
            ]
        );
    }
}
