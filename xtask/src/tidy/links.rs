//! Checks that links between the pages of the checkout lead somewhere, and that files exist which a page or a comment
//! names by their paths.

use super::source::Violation;

/// The folders at the top of the checkout. A name in backticks that begins with one of them is a path.
const FOLDERS: [&str; 5] = ["grub/", "hv/", "iso/", "linker/", "xtask/"];

/// Checks a file of the checkout. `read` returns the text of what is at a path in the checkout, the empty text for a
/// folder, and `None` if nothing is there.
pub fn check(file: &str, text: &str, read: impl Fn(&str) -> Option<String>) -> Vec<Violation> {
    let is_page = file.ends_with(".md");
    let mut broken = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if !is_page && !line.trim_start().starts_with("//") {
            continue;
        }
        let missing = paths(line).filter(|path| read(path).is_none());
        broken.extend(missing.map(|path| (index + 1, format!("there is no {path}"))));
        if is_page {
            let dead = links(line).filter(|link| !leads_somewhere(file, text, link, &read));
            broken.extend(dead.map(|link| (index + 1, format!("the link to {link} leads nowhere"))));
        }
    }
    broken
}

/// Returns the paths that the line names in backticks.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter(|text| {
        let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-".contains(character);
        FOLDERS.iter().any(|folder| text.starts_with(folder)) && text.chars().all(is_plain)
    })
}

/// Returns the targets of the links in the line, except for those to other sites.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    let definition =
        line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target.trim());
    inline.chain(definition).filter(|target| !target.contains("://"))
}

/// Returns true if the file and the heading exist which a link in the page `from` leads to.
fn leads_somewhere(from: &str, text: &str, link: &str, read: impl Fn(&str) -> Option<String>) -> bool {
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let page = if path.is_empty() { Some(text.to_owned()) } else { read(&join(from, path)) };
    page.is_some_and(|page| heading.is_empty() || headings(&page).any(|other| other == heading))
}

/// Returns the path in the checkout that `link` means in the file `from`.
fn join(from: &str, link: &str) -> String {
    let mut parts: Vec<_> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Returns the headings of a page in the form that links use: in lower case, with `-` for spaces and without
/// punctuation.
fn headings(page: &str) -> impl Iterator<Item = String> {
    let titles = page
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    titles.map(|title| {
        let kept = title.trim().chars().filter(|&c| c.is_alphanumeric() || " -_".contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &str = "# Other\n\n## NMIs, and machine checks\n";

    fn read(path: &str) -> Option<String> {
        match path {
            "hv/doc" | "hv/src/boot/header.S" | "LICENSE" => Some(String::new()),
            "hv/doc/other.md" => Some(OTHER.into()),
            _ => None,
        }
    }

    fn sentences(file: &str, text: &str) -> Vec<Violation> {
        check(file, text, read)
    }

    #[test]
    fn what_is_there_is_not_reported() {
        let text = "# Page\nSee `hv/src/boot/header.S`, `hv/doc/`, `xtask`, `hv/*.md` and `iso/{name}`,\n\
                    [other](doc/other.md#nmis-and-machine-checks), [site](https://example.org/a), [here](#page).\n\
                    [1]: doc/other.md\n[up](../LICENSE)\n";
        let there = |path: &str| if path == "hv/doc/" { read("hv/doc") } else { read(path) };
        assert_eq!(check("hv/page.md", text, there), []);
        assert_eq!(sentences("hv/src/a.rs", "//! `hv/src/boot/header.S` [a](b)\nlet a = \"`hv/no`\";\n"), []);
    }

    #[test]
    fn what_is_not_there_is_reported() {
        assert_eq!(
            sentences("hv/src/a.rs", "\n//! `hv/src/boot/gone.S`"),
            [(2, "there is no hv/src/boot/gone.S".into())]
        );
        let text = "`xtask/gone` [a](doc/gone.md)\n[b](doc/other.md#gone) [c](#gone)\n[1]: gone.md\n";
        let lines: Vec<_> = sentences("hv/page.md", text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 1, 2, 2, 3]);
    }
}
