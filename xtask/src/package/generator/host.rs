//! Tests with the `10_linux` and the library of the GRUB that is installed on this machine.

use std::fs;

use super::installation::{Installation, host_has};
use super::menu::entries;
use super::{bios, characters, check};

/// The generator and the library, as the package grub-common installs them.
const GENERATOR: &str = "/etc/grub.d/10_linux";
const LIBRARY: &str = "/usr/share/grub/grub-mkconfig_lib";

/// What grub-probe says of a system with one disk, where /boot has a partition of its own.
const PROBE: &str = r#"
for argument; do
    case $argument in
        --target=*) target=${argument#--target=} ;;
        /dev/*) device=${argument#/dev/} ;;
    esac
done
case $target in
    partmap) echo gpt ;;
    abstraction) echo lvm ;;
    fs) echo ext2 ;;
    fs_uuid) echo "uuid-of-$device" ;;
    compatibility_hint) echo "hd0,$device" ;;
    hints_string) echo "--hint-bios=hd0,$device" ;;
esac
"#;

/// Returns a system with three kernels, early microcode and the host's `10_linux`, whose folder /boot is replaced.
fn system() -> Installation {
    let installation = Installation::new("");
    let generator = fs::read_to_string(GENERATOR).unwrap();
    let boot = installation.path("boot/");
    installation.program("grub.d/10_linux", &generator.replace("/boot/", boot.to_str().unwrap()));
    for version in ["6.1.0-9-amd64", "6.1.0-10-amd64", "6.12.3"] {
        installation.write(&format!("boot/vmlinuz-{version}"), b"kernel");
        installation.write(&format!("boot/initrd.img-{version}"), b"initrd");
    }
    installation.write("boot/amd-ucode.img", b"microcode");
    installation.program("bin/grub-probe", PROBE);
    installation.program("bin/grub-mkrelpath", "printf '%s\\n' \"${1##*/boot}\"\n");
    let [probe, path] = ["bin/grub-probe", "bin/grub-mkrelpath"].map(|name| installation.path(name));
    let common = [
        ("pkgdatadir", "/usr/share/grub"),
        ("grub_probe", probe.to_str().unwrap()),
        ("grub_mkrelpath", path.to_str().unwrap()),
        ("GRUB_DISTRIBUTOR", "Debian"),
        ("GRUB_DEVICE", "/dev/gpt3"),
        ("GRUB_DEVICE_UUID", "uuid-of-gpt3"),
        ("GRUB_DEVICE_BOOT", "/dev/gpt2"),
        ("GRUB_DEVICE_BOOT_UUID", "uuid-of-gpt2"),
        ("GRUB_FS", "ext2"),
        ("GRUB_RECOVERY_TITLE", "recovery mode"),
        ("GRUB_EARLY_INITRD_LINUX_STOCK", "intel-ucode.img amd-ucode.img"),
        ("GRUB_CMDLINE_LINUX", r#"name='two words' "q"=\"x\" $vt_handoff \$y u=ä"#),
        ("GRUB_CMDLINE_LINUX_DEFAULT", "quiet splash"),
    ];
    common.iter().fold(installation, |installation, (name, value)| installation.with(name, value))
}

/// Compares the entries of a system where GRUB finds /boot on `device`. Returns their number, and Linux's command line
/// in the first one.
fn compare(system: &Installation, device: &str) -> (usize, String) {
    let (bare, printed) = (system.bare(), system.run());
    assert!(bare.messages.contains("Found linux image"));
    assert!(!printed.messages.contains("linux image"), "{}", printed.messages);
    let boots = check(&bare.menu, &printed.menu, (device, "/vidar.elf"), &bios());
    assert_eq!(entries(&printed.menu, &bios()).len(), boots.len());
    assert!(boots.iter().all(|boot| boot.initrds[0].1 == "/amd-ucode.img" && boot.initrds.len() == 2));
    (boots.len(), boots[0].command_line.clone())
}

#[test]
fn the_generator_of_this_machine_is_understood_with_all_settings() {
    if !host_has(GENERATOR) || !host_has(LIBRARY) {
        eprintln!("The package grub-common is not installed.");
        return;
    }
    let with = |settings: &[(&str, &str)]| {
        let system = settings.iter().fold(system(), |system, (name, value)| system.with(name, value));
        compare(&system, "uuid-of-gpt2")
    };
    let (usual, line) = with(&[]);
    assert_eq!(usual, 7);
    assert!(line.starts_with("BOOT_IMAGE=/vmlinuz-6.12.3 root="), "{line}");
    let more = characters(r#"ro "name=two words" q=\"x\" vt.handoff=7 $y u=ä quiet splash"#.as_bytes());
    assert!(line.trim_end_matches(" vt.handoff=7").ends_with(&more), "{line}");
    assert_eq!(with(&[("GRUB_DISABLE_RECOVERY", "true")]).0, 4);
    assert_eq!(with(&[("GRUB_DISABLE_SUBMENU", "y")]).0, 6);
    let (_, line) = with(&[("GRUB_DISABLE_LINUX_UUID", "true")]);
    assert!(line.contains("root=/dev/gpt3"), "{line}");
    with(&[("GRUB_SAVEDEFAULT", "true"), ("GRUB_GFXPAYLOAD_LINUX", "keep")]);
    with(&[("GRUB_ENABLE_CRYPTODISK", "y"), ("GRUB_DISTRIBUTOR", "It's")]);
    let system = system().with("GRUB_DISABLE_UUID", "true").with("GRUB_DISABLE_LINUX_UUID", "true");
    compare(&system, "hd0,gpt2");
}

#[test]
fn the_kernel_that_the_user_wants_first_is_first() {
    // GRUB has this setting from 2.12 on.
    if !fs::read_to_string(GENERATOR).is_ok_and(|text| text.contains("GRUB_TOP_LEVEL")) || !host_has(LIBRARY)
    {
        eprintln!("This machine has no GRUB of 2.12 or later.");
        return;
    }
    let system = system();
    let kernel = system.path("boot/vmlinuz-6.1.0-9-amd64");
    let (_, line) = compare(&system.with("GRUB_TOP_LEVEL", kernel.to_str().unwrap()), "uuid-of-gpt2");
    assert!(line.starts_with("BOOT_IMAGE=/vmlinuz-6.1.0-9-amd64 "), "{line}");
}
