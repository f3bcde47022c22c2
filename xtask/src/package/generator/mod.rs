//! Tests of `grub/45_vidar`, the generator of entries for GRUB's menu: for each entry without Vidar there is one that
//! starts the same Linux under Vidar.

mod bare;
mod boot;
mod compare;
mod host;
mod installation;
mod menu;
mod settings;

use self::bare::{entry, head, menu_of, with_command_line};
use self::boot::Boot;
use self::compare::{bios, check, run, variables, warns};
use self::installation::{Installation, characters};
use self::menu::entries;

#[test]
fn every_kernel_has_the_same_entries_under_vidar() {
    for kernels in [&["6.1"][..], &["6.12", "6.1", "5.10"]] {
        let boots = run(&menu_of(kernels));
        assert_eq!(boots.len(), 1 + 2 * kernels.len());
        assert_eq!(boots[0].kernel, Some(("system".into(), format!("/boot/vmlinuz-{}", kernels[0]))));
    }
}

#[test]
fn the_first_entry_has_the_id_vidar_and_the_others_keep_theirs_with_another_prefix() {
    let printed = Installation::new(&menu_of(&["6.12", "6.1"])).run();
    let entries = entries(&printed.menu, &bios());
    let ids: Vec<_> = entries.iter().map(|entry| entry.id.as_str()).collect();
    let kernels = [
        "vidar-6.12-advanced-dev",
        "vidar-6.12-recovery-dev",
        "vidar-6.1-advanced-dev",
        "vidar-6.1-recovery-dev",
    ];
    assert_eq!(ids, [&["vidar"], &kernels[..]].concat());
    assert_eq!(printed.menu.matches("$menuentry_id_option 'vidar-advanced-dev'").count(), 1);
}

#[test]
fn a_command_line_arrives_as_it_is() {
    for arguments in [
        "",
        "root=UUID=1 ro  quiet ",
        r#"a='b c' "d e"="f" 'it'\''s' "say \"x\"""#,
        r"back\\slash one\ word hex=\\x41 \'quote \$x",
        r#"$linux_gfx_mode "$vt_handoff" ${vt_handoff} $not_set x=${not_set}y"#,
        r#"dyndbg="file a.c +p; module b +p" 'x;y' a\;b"#,
        "quiet # a comment",
        "a*b [c] --- --nounzip initrd /boot/x",
    ] {
        let boots = run(&with_command_line(arguments));
        assert_eq!(boots[0].initrds.len(), 1, "{arguments}");
    }
}

#[test]
fn every_byte_but_zero_and_the_end_of_line_arrives() {
    let latin: String = (0x80..=0xff_u8).map(char::from).collect();
    let utf8 = characters("u=äÁЁ‚€".as_bytes());
    let control: String = (1..0x20).filter(|byte| *byte != b'\n').map(char::from).collect();
    let printable: String = (0x20..0x7f).filter(|byte| *byte != b'\'').map(char::from).collect();
    for text in [latin, utf8, control, printable] {
        let boots = run(&with_command_line(&format!("'{text}'")));
        let inner: String =
            text.chars().filter(|c| c.is_ascii_alphanumeric() || u32::from(*c) > 0x7f).collect();
        let arrived = boots[0].command_line.chars().filter(|c| inner.contains(*c));
        assert!(arrived.collect::<String>().ends_with(&inner));
    }
}

#[test]
fn initrds_keep_their_order() {
    let bare = entry(
        "Debian",
        "simple",
        "system",
        "/boot/vmlinuz ro",
        "/boot/ucode.img  /boot/early.cpio /boot/initrd.img",
    );
    let names = ["/boot/ucode.img", "/boot/early.cpio", "/boot/initrd.img"];
    assert_eq!(run(&bare)[0].initrds, names.map(|name| ("system".to_owned(), name.to_owned())));
    assert_eq!(run(&entry("Debian", "simple", "system", "/boot/vmlinuz ro", ""))[0].initrds, []);
    let quoted =
        entry("Debian", "simple", "system", "\"/boot/vmlinuz\" ro", r#"'/boot/a b' "/boot/c" /boot/d\ e"#);
    assert_eq!(run(&quoted)[0].initrds.len(), 3);
}

#[test]
fn image_and_kernels_are_found_wherever_boot_is() {
    // The device with /boot, its path for GRUB, the device with the kernel, and the path to the kernel.
    for (boot, path, device, folder) in [
        ("system", "/boot", "system", "/boot"),
        ("boot", "", "boot", ""),
        ("system", "/@/boot", "system", "/@/boot"),
        // Kernels in / are Debian's way of long ago.
        ("boot", "", "system", ""),
        ("system", "/boot", "system", ""),
        ("boot", "", "system", "/boot"),
    ] {
        let (kernel, initrd) = (format!("{folder}/vmlinuz root=UUID=1 ro"), format!("{folder}/initrd.img"));
        let bare = entry("Debian GNU/Linux", "simple", device, &kernel, &initrd);
        let installation = Installation::new(&bare).with("GRUB_DEVICE_BOOT", boot).with("BOOT_IN_GRUB", path);
        let menu = installation.run().menu;
        check(&bare, &menu, (boot, &format!("{path}/vidar.elf")), &bios());
        // The commands that look for the device are written twice only if there are two devices.
        assert_eq!(menu.matches("insmod fs_of_").count(), if boot == device { 1 } else { 2 });
    }
}

#[test]
fn the_screen_is_that_of_the_entry_without_vidar() {
    let bare = with_command_line("ro");
    for (set, screen) in [("", ""), ("text", "text"), ("'1024x768x32,keep'", "1024x768x32,keep")] {
        let line = if set.is_empty() { String::new() } else { format!("\tset gfxpayload={set}\n") };
        assert_eq!(run(&bare.replace("\tinsmod gzio\n", &line))[0].screen, screen);
    }
}

#[test]
fn ubuntus_entries_keep_what_is_special_about_them() {
    let bare = format!(
        "{}\trecordfail\n\tload_video\n\tgfxmode $linux_gfx_mode\n\tinsmod gzio\n\tinsmod fs_of_system\n\
         \tsearch --no-floppy --fs-uuid --set=root system\n\
         \tif [ \"${{initrdfail}}\" = 1 ]; then\n\t\techo\t'without initrd it failed'\n\
         \t\tlinux\t/boot/vmlinuz root=PARTUUID=1 ro  quiet splash $vt_handoff\n\t\tinitrd\t/boot/ucode.img /boot/initrd.img\n\
         \telse\n\t\tlinux\t/boot/vmlinuz root=PARTUUID=1 ro  quiet splash $vt_handoff panic=-1\n\
         \tinitrd\t/boot/ucode.img\n\tfi\n\tinitrdfail\n}}\n",
        head("Ubuntu", "simple")
    );
    let menu = Installation::new(&bare).run().menu;
    for (value, end, initrds) in [("1", "vt.handoff=7", 2), ("", "panic=-1", 1)] {
        let mut variables = bios();
        variables.insert("initrdfail".into(), value.into());
        let boots = check(&bare, &menu, ("system", "/boot/vidar.elf"), &variables);
        assert!(boots[0].command_line.ends_with(end));
        assert_eq!(boots[0].initrds.len(), initrds);
        assert_eq!(boots[0].screen, "keep");
    }
}

#[test]
fn titles_and_attributes_of_all_kinds_stay() {
    for head in [
        "menuentry 'D' $menuentry_id_option 'x' {",
        "menuentry 'It'\\''s' --unrestricted --class a ${menuentry_id_option} 'gnulinux-x' {",
        "menuentry \"A \\\"B\\\" C\" --users 'root admin' --id y {",
        "menuentry Word --hotkey=v --id 'y' {",
        "menuentry 'ends with \\' --id 'y' {",
        "menuentry Quote\\' --id 'y' {",
        "menuentry 'Gr\u{c3}\u{bc}\u{c3}\u{9f}e, mit Linux' --id 'y' {",
    ] {
        run(&format!("{head}\n\tlinux /boot/vmlinuz\n}}\n"));
    }
    let menu = Installation::new("menuentry 'No id' {\n\tlinux /boot/vmlinuz\n}\n").run().menu;
    let entry = &entries(&menu, &bios())[0];
    assert_eq!((entry.id.as_str(), entry.title.as_str()), ("vidar", "No id, under Vidar"));
}

#[test]
fn old_spellings_of_the_commands_are_understood() {
    let bare = with_command_line("ro");
    for end in ["16", "efi"] {
        let old = bare
            .replace("\tlinux\t", &format!("\tlinux{end}\t"))
            .replace("\tinitrd\t", &format!("\tinitrd{end}\t"));
        let menu = Installation::new(&old).run().menu;
        check(&bare, &menu, ("system", "/boot/vidar.elf"), &bios());
    }
}

#[test]
fn entries_that_cannot_be_rewritten_are_left_out() {
    let good = with_command_line("ro");
    let bad = |lines: &str| format!("{}{lines}}}\n", head("Bad", "bad"));
    let cases = [
        "",
        "\tmultiboot\t/boot/xen.gz\n\tmodule\t/boot/vmlinuz ro\n",
        "\tchainloader\t+1\n",
        "\tlinux\t/boot/vmlinuz ro\n\tdevicetree\t/boot/dtb\n",
        "\tlinux\t/boot/vmlinuz ro\n\tinitrd\tnewc:a:/boot/initrd.img\n",
        "\tlinux\t/boot/vmlinuz ro\n\tinitrd\t$initrds\n",
        "\tinitrd\t/boot/initrd.img\n\tlinux\t/boot/vmlinuz ro\n",
        "\tlinux\t/boot/vmlinuz ro; initrd\t/boot/initrd.img\n",
        "\tif [ x = x ]; then linux\t/boot/vmlinuz ro; fi\n",
        "\tlinux\t/boot/vmlinuz ro\n\tif [ x = x ]; then initrd\t/boot/initrd.img; fi\n",
        "\tlinux\t\n",
    ];
    for lines in cases {
        let submenu = format!("submenu 'Empty' --id 'e' {{\n{}}}\n", bad(lines));
        let menu = Installation::new(&format!("{}{submenu}{good}", bad(lines))).run().menu;
        assert_eq!(check(&good, &menu, ("system", "/boot/vidar.elf"), &bios()).len(), 1, "{lines}");
        assert_eq!(entries(&menu, &bios()).len(), 1, "{menu}");
        assert!(!menu.contains("Empty"), "{menu}");
        warns(&Installation::new(&bad(lines)), "of an unknown kind");
    }
    warns(&Installation::new(&good.replace("menuentry ", "menuentry --class debian ")), "of an unknown kind");
}

#[test]
fn settings_are_added_to_both_command_lines() {
    let bare = with_command_line("ro 'a b' # comment");
    let settings = [
        ("log=debug  serial=com2", "x=1"),
        ("on-crash='halt'", "a='b c' d=\\$e f=$vt_handoff"),
        ("a\nb", "c\nd"),
    ];
    for (options, more) in settings {
        let installation =
            Installation::new(&bare).with("VIDAR_OPTIONS", options).with("VIDAR_CMDLINE_LINUX", more);
        let entry = &entries(&installation.run().menu, &bios())[0];
        let boot = Boot::run(entry, &bios());
        let [options, more] = [options, more].map(|text| menu::words(&text.replace('\n', " "), &bios()));
        assert_eq!(boot.image.expect("Vidar is started").1, options.join(" "));
        let escaped =
            more.iter().map(|word| if word.contains(' ') { format!("\"{word}\"") } else { word.clone() });
        let more = escaped.collect::<Vec<_>>().join(" ");
        assert_eq!(boot.command_line, format!("BOOT_IMAGE=/boot/vmlinuz-6.1 ro \"a b\" {more}"));
    }
}

#[test]
fn the_previous_image_has_one_entry_after_all_others() {
    let bare = menu_of(&["6.12", "6.1"]);
    let installation = Installation::new(&bare);
    installation.write("boot/vidar-0.9.0.elf", b"image");
    let printed = installation.run();
    let boots = check(&bare, &printed.menu, ("system", "/boot/vidar.elf"), &bios());
    let entries = entries(&printed.menu, &bios());
    let [previous] = &entries[boots.len()..] else { panic!("{} entries", entries.len()) };
    assert_eq!((&*previous.title, &*previous.id), ("Debian GNU/Linux, under Vidar 0.9.0", "vidar-0.9.0"));
    let mut boot = Boot::run(previous, &bios());
    assert_eq!(boot.image.as_ref().unwrap().0.1, "/boot/vidar-0.9.0.elf");
    boot.image.clone_from(&boots[0].image);
    assert_eq!(boot, boots[0]);
    let found = printed.messages.lines().collect::<Vec<_>>();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|line| line.starts_with("Found Vidar image: ")));

    // Several of them, which the package does not leave, are listed from the newest to the oldest.
    installation.write("boot/vidar-0.10.0.elf", b"image");
    installation.write("boot/vidar-0.9.1~rc1.elf", b"damaged");
    let printed = installation.run();
    let ids: Vec<_> = menu::entries(&printed.menu, &bios()).into_iter().map(|entry| entry.id).collect();
    assert_eq!(ids[boots.len()..], ["vidar-0.10.0", "vidar-0.9.0"]);
    assert!(printed.messages.contains("Warning: Vidar 0.9.1~rc1 is not in the menu"), "{}", printed.messages);
}

#[test]
fn secure_boot_has_an_entry_that_says_what_to_do() {
    let bare = menu_of(&["6.1"]).replace("--class os", "--class os --unrestricted");
    let menu = Installation::new(&bare).run().menu;
    for variable in ["lockdown", "shim_lock"] {
        let uefi = variables(&[("grub_cpu", "x86_64"), ("grub_platform", "efi"), (variable, "y")]);
        let entries = entries(&menu, &uefi);
        let [entry] = &entries[..] else { panic!("{} entries", entries.len()) };
        // With the id of the usual entry, GRUB would show this text by default, and start nothing.
        assert_eq!(
            (&*entry.title, &*entry.id),
            ("Debian GNU/Linux, under Vidar (needs Secure Boot off)", "vidar-secure-boot")
        );
        assert!(entry.attributes.contains(&"--unrestricted".to_owned()));
        let boot = Boot::run(entry, &uefi);
        assert_eq!((boot.image, boot.kernel), (None, None));
        assert!(boot.others.iter().any(|command| command.join(" ").contains("Switch Secure Boot off")));
    }
}

#[test]
fn only_pcs_with_a_bios_or_a_64_bit_uefi_have_entries() {
    let menu = Installation::new(&menu_of(&["6.1"])).run().menu;
    for (cpu, platform, count) in [
        ("i386", "pc", 3),
        ("x86_64", "efi", 3),
        ("i386", "efi", 0),
        ("x86_64", "xen", 0),
        ("i386", "coreboot", 0),
        ("arm64", "efi", 0),
    ] {
        let variables = variables(&[("grub_cpu", cpu), ("grub_platform", platform)]);
        assert_eq!(entries(&menu, &variables).len(), count, "{cpu}-{platform}");
    }
}

#[test]
fn without_an_image_nothing_is_printed_and_without_a_kernel_a_warning() {
    let installation = Installation::new(&menu_of(&["6.1"]));
    std::fs::remove_file(installation.path("boot/vidar.elf")).unwrap();
    // The package has been removed, and its previous image with it.
    let printed = installation.run();
    assert_eq!((&*printed.menu, &*printed.messages), ("", ""));
    // Ubuntu's 10_linux prints no entries where the root is on ZFS.
    warns(&Installation::new("function gfxmode {\n}\nset linux_gfx_mode=\n\n"), "which has printed none");
}

#[test]
fn a_damaged_image_does_not_hide_the_previous_one() {
    let installation = Installation::new(&menu_of(&["6.1"]));
    installation.write("boot/vidar.elf", b"damaged");
    installation.write("boot/vidar-0.9.0.elf", b"image");
    installation.write("boot/vidar-mine.elf", b"image");
    let printed = installation.run();
    let ids: Vec<_> = entries(&printed.menu, &bios()).into_iter().map(|entry| entry.id).collect();
    assert_eq!(ids, ["vidar-0.9.0"]);
    assert!(printed.messages.contains("is damaged"), "{}", printed.messages);
}

#[test]
fn a_setting_that_ends_in_a_backslash_takes_nothing_from_the_next_line() {
    let bare = menu_of(&["6.1"]);
    let printed = Installation::new(&bare).with("VIDAR_CMDLINE_LINUX", "x=\\").run();
    let boot = Boot::run(&entries(&printed.menu, &bios())[0], &bios());
    assert_eq!(boot.initrds, Boot::run(&entries(&bare, &bios())[0], &bios()).initrds);
    assert!(!boot.initrds.is_empty());
}

#[test]
fn another_word_than_yes_and_no_is_named() {
    for (word, named) in [("yes", false), ("no", false), ("true", true)] {
        let printed = Installation::new(&menu_of(&["6.1"])).with("VIDAR_DEFAULT", word).run();
        assert_eq!(printed.messages.contains("Write yes or no."), named, "{}", printed.messages);
        assert!(!printed.menu.is_empty());
    }
}

#[test]
fn no_failure_reaches_grub_mkconfig() {
    let bare = menu_of(&["6.1"]);
    let installation = Installation::new(&bare);
    installation.program("grub.d/10_linux", "cat \"${0%/*}/../bare\"\nexit 3\n");
    warns(&installation, "10_linux has failed");
    std::fs::remove_file(installation.path("grub.d/10_linux")).unwrap();
    warns(&installation, "10_linux, which is not executable");

    let installation = Installation::new(&bare);
    installation.write("boot/vidar.elf", b"damaged");
    warns(&installation, "is damaged");

    let installation = Installation::new(&bare);
    installation.write("share/grub-mkconfig_lib", b"exit 7\n");
    warns(&installation, "has failed");
    std::fs::remove_file(installation.path("share/grub-mkconfig_lib")).unwrap();
    warns(&installation, "Install the package grub-common");

    let installation = Installation::new(&bare);
    let broken =
        format!("{}make_system_path_relative_to_its_root () {{ return 1; }}\n", installation::LIBRARY);
    installation.write("share/grub-mkconfig_lib", broken.as_bytes());
    warns(&installation, "grub-mkrelpath");
}

#[test]
fn settings_with_an_open_quote_do_not_spoil_the_menu() {
    if crate::packages::has_program("grub-script-check") {
        warns(&Installation::new(&menu_of(&["6.1"])).with("VIDAR_OPTIONS", "log='debug"), "Check the quotes");
    }
}
