//! Tests of `grub/vidar.cfg`, the settings that grub-mkconfig reads.

use std::fs;
use std::process::Command;

use super::installation::{Installation, characters, shell};
use crate::paths;

/// Returns the environment of the generators after grub-mkconfig has read /etc/default/grub and the settings, with
/// `from` in them replaced by `to`.
fn environment(installation: &Installation, from: &str, to: &str) -> Vec<String> {
    let text = fs::read_to_string(paths::root().join("grub/vidar.cfg")).unwrap();
    let boot = installation.path("boot/vidar.elf");
    assert!(text.contains(from) && text.contains(" /boot/vidar.elf "));
    let text = text.replace(from, to).replace("/boot/vidar.elf", boot.to_str().unwrap());
    let script = format!("set -e\nGRUB_DEFAULT=saved\n{text}\nexport GRUB_DEFAULT\nenv");
    let output = Command::new(shell()).args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", characters(&output.stderr));
    characters(&output.stdout)
        .lines()
        .filter(|line| line.contains("VIDAR") || line.contains("GRUB"))
        .map(str::to_owned)
        .collect()
}

fn has(environment: &[String], line: &str) -> bool {
    environment.iter().any(|other| other == line)
}

#[test]
fn the_settings_change_nothing_until_the_user_changes_them() {
    let environment = environment(&Installation::new(""), "VIDAR_DEFAULT=no", "VIDAR_DEFAULT=no");
    for line in ["GRUB_DEFAULT=saved", "VIDAR_OPTIONS=", "VIDAR_CMDLINE_LINUX="] {
        assert!(has(&environment, line), "{environment:?}");
    }
}

#[test]
fn vidar_is_the_default_if_the_user_wants_it_and_while_it_is_installed() {
    let installation = Installation::new("");
    let wanted =
        |value: &str| environment(&installation, "VIDAR_DEFAULT=no", &format!("VIDAR_DEFAULT={value}"));
    assert!(has(&wanted("yes"), "GRUB_DEFAULT=vidar"));
    assert!(has(&wanted("\"yes\""), "GRUB_DEFAULT=vidar"));
    assert!(has(&wanted("no"), "GRUB_DEFAULT=saved"));
    fs::remove_file(installation.path("boot/vidar.elf")).unwrap();
    assert!(has(&wanted("yes"), "GRUB_DEFAULT=saved"));
}

#[test]
fn a_setting_with_quotes_reaches_the_generator() {
    let value = r#"VIDAR_CMDLINE_LINUX='name="two words"'"#;
    let environment = environment(&Installation::new(""), "VIDAR_CMDLINE_LINUX=\"\"", value);
    assert!(has(&environment, r#"VIDAR_CMDLINE_LINUX=name="two words""#), "{environment:?}");
}
