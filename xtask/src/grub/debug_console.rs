//! The console that Vidar writes to, and the serial port that GRUB's menu is shown on.

use anyhow::{Result, ensure};
use clap::ValueEnum;

/// The console for Vidar's own messages. GRUB's menu is shown on the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DebugConsole {
    /// The first serial port
    Com1,
    /// The second serial port
    Com2,
    /// The screen
    Screen,
    /// Nowhere; `vidarctl log` in the guest still shows it
    None,
}

/// Vidar's options that choose its console, and that `--debug-console` therefore replaces.
const REPLACED: [&str; 2] = ["console=", "serial="];

impl DebugConsole {
    /// Returns the I/O port of the serial line that the menu is shown on, if any. It is the first line unless `console`
    /// says otherwise.
    pub fn port(console: Option<Self>) -> Option<u16> {
        match console {
            None | Some(Self::Com1) => Some(0x3f8),
            Some(Self::Com2) => Some(0x2f8),
            Some(Self::Screen | Self::None) => None,
        }
    }

    /// Vidar's boot options: `options`, and those that choose this console.
    pub fn options(self, options: &str) -> Result<String> {
        let same = options.split_whitespace().find(|word| REPLACED.iter().any(|name| word.starts_with(name)));
        if let Some(word) = same {
            let name = self.to_possible_value().expect("every console has a name");
            ensure!(
                false,
                "\"{word}\" in --options and --debug-console {} both choose Vidar's console: give one of them",
                name.get_name()
            );
        }
        let words = match self {
            Self::Com1 => "console=serial",
            Self::Com2 => "console=serial serial=com2",
            Self::Screen => "console=screen",
            Self::None => "console=none",
        };
        Ok(format!("{options} {words}").trim_start().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use vidar_core::boot::options::OPTIONS;

    use super::*;

    #[test]
    fn each_console_has_options_for_vidar_and_a_port_for_the_menu() {
        for (console, port, options) in [
            (DebugConsole::Com1, Some(0x3f8), "log=debug console=serial"),
            (DebugConsole::Com2, Some(0x2f8), "log=debug console=serial serial=com2"),
            (DebugConsole::Screen, None, "log=debug console=screen"),
            (DebugConsole::None, None, "log=debug console=none"),
        ] {
            assert_eq!(DebugConsole::port(Some(console)), port);
            assert_eq!(console.options("log=debug").unwrap(), options);
        }
        assert_eq!(DebugConsole::port(None), Some(0x3f8));
        assert_eq!(DebugConsole::None.options("").unwrap(), "console=none");
    }

    #[test]
    fn vidar_knows_every_option_that_a_console_stands_for() {
        let consoles = [DebugConsole::Com1, DebugConsole::Com2, DebugConsole::Screen, DebugConsole::None];
        let words = consoles.map(|console| console.options("").unwrap()).join(" ");
        for word in words.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap();
            assert!(REPLACED.contains(&format!("{name}=").as_str()), "{word}");
            let option = OPTIONS.iter().find(|option| option.name == name).expect(name);
            assert!(option.values.iter().any(|known| known.word == value), "{word}");
        }
    }

    #[test]
    fn a_console_that_is_chosen_twice_is_refused() {
        let refusal = |options| DebugConsole::Com2.options(options).unwrap_err().to_string();
        assert_eq!(
            refusal("log=debug console=both"),
            "\"console=both\" in --options and --debug-console com2 both choose Vidar's console: give one of them"
        );
        assert!(refusal("serial=com2").starts_with("\"serial=com2\" in --options"));
    }
}
