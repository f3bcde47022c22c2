//! Text such as `10_linux` prints: entries without Vidar.

/// Returns a line that begins an entry with this title, as Debian's `10_linux` writes it.
pub fn head(title: &str, id: &str) -> String {
    format!(
        "menuentry '{title}' --class debian --class gnu-linux --class os $menuentry_id_option 'gnulinux-{id}-dev' {{\n"
    )
}

/// Returns an entry as Debian's `10_linux` writes it, with a kernel on the file system that has this UUID.
pub fn entry(title: &str, id: &str, device: &str, linux: &str, initrd: &str) -> String {
    let initrd = if initrd.is_empty() {
        String::new()
    } else {
        format!("\techo\t'Loading ...'\n\tinitrd\t{initrd}\n")
    };
    format!(
        "{}\tload_video\n\tinsmod gzio\n\tif [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi\n\
         \tinsmod part_gpt\n\tinsmod fs_of_{device}\n\tset root='hd0,gpt2'\n\
         \tif [ x$feature_platform_search_hint = xy ]; then\n\
         \t  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt2 {device}\n\
         \telse\n\t  search --no-floppy --fs-uuid --set=root {device}\n\tfi\n\
         \techo\t'Loading Linux ...'\n\tlinux\t{linux}\n{initrd}}}\n",
        head(title, id)
    )
}

/// Returns an entry for a command line, with a kernel and an initrd in /boot.
pub fn with_command_line(arguments: &str) -> String {
    entry(
        "Debian GNU/Linux",
        "simple",
        "system",
        &format!("/boot/vmlinuz-6.1 {arguments}"),
        "/boot/initrd.img-6.1",
    )
}

/// Returns what `10_linux` prints for these kernels: an entry, and a submenu with two for each.
pub fn menu_of(kernels: &[&str]) -> String {
    let files = |kernel: &str, arguments: &str| {
        (format!("/boot/vmlinuz-{kernel} root=UUID=1 ro {arguments}"), format!("/boot/initrd.img-{kernel}"))
    };
    let mut text =
        "function gfxmode {\n\tset gfxpayload=\"${1}\"\n}\nset linux_gfx_mode=\nexport linux_gfx_mode\n"
            .to_owned();
    let (linux, initrd) = files(kernels[0], " quiet");
    text += &entry("Debian GNU/Linux", "simple", "system", &linux, &initrd);
    text +=
        "submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-dev' {\n";
    for kernel in kernels {
        for (title, id, arguments) in
            [("", "advanced", " quiet"), (" (recovery mode)", "recovery", "single ")]
        {
            let (linux, initrd) = files(kernel, arguments);
            let title = format!("Debian GNU/Linux, with Linux {kernel}{title}");
            let text_of_entry = entry(&title, &format!("{kernel}-{id}"), "system", &linux, &initrd);
            text.extend(text_of_entry.lines().map(|line| format!("\t{line}\n")));
        }
    }
    text + "}\n\n"
}
