//! Compares the entries under Vidar with those without.

use super::boot::Boot;
use super::installation::{Installation, Printed};
use super::menu::{Entry, Variables, entries};

/// Returns GRUB's variables on a PC with a BIOS.
pub fn bios() -> Variables {
    variables(&[("grub_cpu", "i386"), ("grub_platform", "pc")])
}

pub fn variables(more: &[(&str, &str)]) -> Variables {
    let common = [("root", "hd9"), ("feature_platform_search_hint", "y"), ("linux_gfx_mode", "keep")];
    let all = common.iter().chain(more).chain(&[("vt_handoff", "vt.handoff=7")]);
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Checks that the menu has each of the bare entries, in their order, under this image. Returns what GRUB starts for
/// each.
pub fn check(bare: &str, menu: &str, image: (&str, &str), variables: &Variables) -> Vec<Boot> {
    let (bare, vidar) = (entries(bare, variables), entries(menu, variables));
    let titles = |entries: &[Entry], suffix: &str| -> Vec<_> {
        let with_suffix = |title: &String| format!("{title}{suffix}");
        entries
            .iter()
            .map(|entry| (entry.submenus.iter().map(with_suffix).collect(), with_suffix(&entry.title)))
            .collect()
    };
    let vidar = &vidar[..bare.len().min(vidar.len())];
    let expected: Vec<(Vec<_>, _)> = titles(&bare, ", under Vidar");
    assert_eq!(titles(vidar, ""), expected);
    let pairs = bare.iter().zip(vidar);
    let boots = pairs.map(|(bare, vidar)| {
        assert_eq!(vidar.attributes, bare.attributes);
        let (mut bare, vidar) = (Boot::run(bare, variables), Boot::run(vidar, variables));
        let loaded = vidar.image.clone().expect("the entry starts Vidar").0;
        assert_eq!(loaded, (image.0.to_owned(), image.1.to_owned()));
        bare.image.clone_from(&vidar.image);
        assert!(bare.modules.iter().all(|module| vidar.modules.contains(module)));
        bare.modules.clone_from(&vidar.modules);
        assert_eq!(vidar, bare);
        vidar
    });
    boots.collect()
}

/// Runs the generator on a system with /boot on the root file system, and checks what it prints.
pub fn run(bare: &str) -> Vec<Boot> {
    let printed = Installation::new(bare).run();
    check(bare, &printed.menu, ("system", "/boot/vidar.elf"), &bios())
}

/// Checks that the generator prints nothing but one warning, which has these words.
pub fn warns(installation: &Installation, words: &str) {
    let Printed { menu, messages } = installation.run();
    assert_eq!(menu, "");
    let lines: Vec<_> = messages.lines().filter(|line| !line.starts_with("Found ")).collect();
    assert!(
        matches!(lines[..], [line] if line.starts_with("Warning: ") && line.contains(words)),
        "{messages}"
    );
}
