//! A naive model of what GRUB does when the user chooses an entry: it runs the commands, and starts what they have
//! loaded.

use super::menu::{Conditions, Entry, Variables, words};

/// A file, with the device that GRUB finds it on.
pub type File = (String, String);

/// What GRUB has loaded and set when the commands of an entry have been run.
#[derive(Debug, Default, PartialEq)]
pub struct Boot {
    /// Vidar's image and its command line.
    pub image: Option<(File, String)>,
    pub kernel: Option<File>,
    /// What Linux has in `/proc/cmdline`.
    pub command_line: String,
    pub initrds: Vec<File>,
    /// The screen that GRUB sets, where an empty text is the default of a platform.
    pub screen: String,
    /// The modules of GRUB that have been loaded, without repetitions.
    pub modules: Vec<String>,
    /// The commands that this model does not know.
    pub others: Vec<Vec<String>>,
}

impl Boot {
    /// Runs the commands of `entry`.
    pub fn run(entry: &Entry, variables: &Variables) -> Self {
        let mut variables = variables.clone();
        let (mut boot, mut conditions) = (Self::default(), Conditions::default());
        for command in &entry.commands {
            if !conditions.step(command, &variables) && conditions.hold() {
                boot.command(words(command, &variables), &mut variables);
            }
        }
        boot.screen = variables.remove("gfxpayload").unwrap_or_default();
        boot
    }

    fn command(&mut self, words: Vec<String>, variables: &mut Variables) {
        let root = variables.get("root").cloned().unwrap_or_default();
        let file = |path: &String| (root.clone(), path.clone());
        match (words[0].as_str(), &words[1..]) {
            ("set", [assignment]) => {
                let (name, value) = assignment.split_once('=').expect("`set` has a name and a value");
                variables.insert(name.to_owned(), value.to_owned());
            }
            ("search", [.., uuid]) if words.contains(&"--set=root".to_owned()) => {
                variables.insert("root".into(), uuid.clone());
            }
            ("insmod", [module]) if self.modules.contains(module) => {}
            ("insmod", [module]) => self.modules.push(module.clone()),
            ("linux", [path, ..]) => {
                assert!(self.image.is_none(), "`linux` throws Vidar away");
                self.kernel = Some(file(path));
                self.command_line = format!("BOOT_IMAGE={}", joined(&words[1..]));
                self.initrds.clear();
            }
            ("initrd", paths) => {
                assert!(self.kernel.is_some() && self.image.is_none(), "`initrd` follows `linux`");
                self.initrds = paths.iter().map(file).collect();
            }
            ("multiboot2", [path, options @ ..]) => {
                assert!(self.modules.contains(&"multiboot2".to_owned()), "the command is in no other module");
                *self =
                    Self { image: Some((file(path), joined(options))), kernel: None, ..std::mem::take(self) };
                self.initrds.clear();
                // GRUB takes this from the image's header, and the variables before do not matter.
                variables.insert("gfxpayload".into(), "auto".into());
            }
            // A function of `10_linux`.
            ("gfxmode", [mode]) => {
                variables.insert("gfxpayload".into(), mode.clone());
            }
            ("module2", [path, arguments @ ..]) if self.kernel.is_none() => {
                assert!(self.image.is_some(), "`module2` follows `multiboot2`");
                self.kernel = Some(file(path));
                self.command_line = joined(arguments);
            }
            // GRUB would unpack a compressed initrd.
            ("module2", [option, path]) if option == "--nounzip" => self.initrds.push(file(path)),
            ("module2" | "linux" | "multiboot2", _) => panic!("{words:?} is not understood"),
            _ => self.others.push(words),
        }
    }
}

/// Joins arguments to a command line, as the function `grub_create_loader_cmdline` does.
fn joined(words: &[String]) -> String {
    let escaped = words.iter().map(|word| {
        let mut text = String::new();
        for (at, c) in word.char_indices() {
            let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
            let rest = &word.as_bytes()[at..];
            let is_byte = rest.starts_with(b"\\x") && is_hex(rest.get(2)) && is_hex(rest.get(3));
            if matches!(c, '\\' | '\'' | '"') && !is_byte {
                text.push('\\');
            }
            text.push(c);
        }
        if word.contains(' ') { format!("\"{text}\"") } else { text }
    });
    escaped.collect::<Vec<_>>().join(" ")
}
