//! Checks that no path is named that exists on one machine only.

use super::source::Violation;

/// Folders at the root of a file system whose content differs from machine to machine.
const OWN: [&str; 4] = ["home", "root", "tmp", "work"];

/// Checks that no absolute path leads into one of these folders.
pub fn check(text: &str) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for folder in OWN {
            let path = format!("/{folder}");
            let absolute = |at: usize| {
                let begins = line[..at]
                    .chars()
                    .next_back()
                    .is_none_or(|c| c.is_whitespace() || "\"'`(=:,<".contains(c));
                let ends =
                    line[at + path.len()..].chars().next().is_none_or(|c| !c.is_alphanumeric() && c != '_');
                begins && ends
            };
            if line.match_indices(&path).any(|(at, _)| absolute(at)) {
                broken.push((index + 1, format!("a path into {path} exists on one machine only")));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_one_machine_are_found() {
        for folder in OWN {
            for line in ["\"/@/vidar\"", "cd /@", "OUT=/@/x", "`/@`"] {
                let text = format!("one\n{}\n", line.replace('@', folder));
                assert_eq!(check(&text).len(), 1, "{text}");
                assert_eq!(check(&text)[0].0, 2);
            }
        }
    }

    #[test]
    fn other_paths_are_allowed() {
        for line in ["/usr/share/bochs", "target/tmp", "{root}/work", "/rootfs", "and/or", "/boot/vidar.elf"]
        {
            assert_eq!(check(line), [], "{line}");
        }
    }
}
