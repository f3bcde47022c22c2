//! A folder that stands for an installed system, in which the generator runs as grub-mkconfig would run it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::{packages, paths};

/// The line of the generator that names the folder with the kernels and with Vidar's image.
const BOOT: &str = "\nboot=/boot\n";

/// What the generator uses of grub-mkconfig's library. A device is named by the UUID of its file system.
pub const LIBRARY: &str = r#"
gettext_printf () { printf "$@"; }
grub_quote () { sed "s/'/'\\\\''/g"; }
make_system_path_relative_to_its_root () { printf '%s\n' "$BOOT_IN_GRUB${1##*/boot}"; }
prepare_grub_to_access_device () {
    cat << EOF
insmod part_gpt
insmod fs_of_$1
set root='hd0,gpt2'
if [ x\$feature_platform_search_hint = xy ]; then
  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt2 $1
else
  search --no-floppy --fs-uuid --set=root $1
fi
EOF
}
"#;

/// The installed system.
pub struct Installation {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

/// What the generator has printed. Each character is a byte, so that text of any encoding can be compared.
#[derive(Debug)]
pub struct Printed {
    pub menu: String,
    pub messages: String,
}

impl Installation {
    /// Makes a system where `10_linux` prints `bare`, a text whose characters are bytes. /boot is a folder of the root
    /// file system, which has the UUID `system`.
    pub fn new(bare: &str) -> Self {
        let new = Self { folder: TempDir::new().unwrap(), environment: Vec::new() };
        new.write("bare", &bytes(bare));
        new.write("boot/vidar.elf", b"image");
        new.write("share/grub-mkconfig_lib", LIBRARY.as_bytes());
        let script = fs::read_to_string(paths::root().join("grub/45_vidar")).unwrap();
        assert!(script.contains(BOOT));
        let boot = format!("\nboot={}\n", new.path("boot").display());
        new.program("grub.d/45_vidar", &script.replace(BOOT, &boot));
        new.program(
            "grub.d/10_linux",
            "echo 'Found linux image: /boot/vmlinuz' >&2\ncat \"${0%/*}/../bare\"\n",
        );
        new.program("bin/grub-file", "[ \"$1\" = --is-x86-multiboot2 ] && grep -q image \"$2\"\n");
        let file = new.path("bin/grub-file");
        let share = new.path("share");
        new.with("grub_file", file.to_str().unwrap())
            .with("pkgdatadir", share.to_str().unwrap())
            .with("GRUB_DEVICE", "system")
            .with("GRUB_DEVICE_BOOT", "system")
            .with("BOOT_IN_GRUB", "/boot")
    }

    /// Sets a variable of the environment.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Returns a path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Writes a shell script that can be executed.
    pub fn program(&self, name: &str, script: &str) {
        self.write(name, format!("#! /bin/sh\n{}", script.trim_start_matches("#! /bin/sh\n")).as_bytes());
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs `10_linux`.
    pub fn bare(&self) -> Printed {
        self.output("10_linux")
    }

    /// Runs the generator, which never fails.
    pub fn run(&self) -> Printed {
        let printed = self.output("45_vidar");
        if !printed.menu.is_empty() {
            check(&printed.menu);
        }
        printed
    }

    fn output(&self, name: &str) -> Printed {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(shell());
        command.arg(self.path("grub.d").join(name)).env("PATH", path).stdin(Stdio::null());
        let output = command.envs(self.environment.clone()).output().unwrap();
        let printed = Printed { menu: characters(&output.stdout), messages: characters(&output.stderr) };
        assert!(output.status.success(), "{name}: {printed:?}");
        printed
    }
}

/// Returns the shell of Debian and Ubuntu, or the machine's own if that is not installed.
pub fn shell() -> &'static str {
    if packages::has_program("dash") { "dash" } else { "sh" }
}

/// Has GRUB's own program look for syntax errors, if it is installed.
fn check(menu: &str) {
    if packages::has_program("grub-script-check") {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes(menu)).unwrap();
        let output = Command::new("grub-script-check").arg(file.path()).output().unwrap();
        assert!(output.status.success(), "{}\n{menu}", characters(&output.stderr));
    }
}

/// Returns a text with a character for each byte.
pub fn characters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Returns the bytes that a text of [`characters`] is made of.
pub fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).unwrap()).collect()
}

/// Returns true if the host's GRUB has this file, which comes with the package grub-common.
pub fn host_has(path: &str) -> bool {
    Path::new(path).exists()
}
