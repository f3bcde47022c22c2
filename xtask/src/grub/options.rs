//! The sub-menu with Vidar's boot options. A choice in it applies to all entries under Vidar. It is kept in a variable of
//! GRUB's, and the menu is loaded again to show it.

use std::fmt::Write;

/// An entry of the sub-menu, which sets its variable to a word for Vidar's command line, or clears it.
struct Choice {
    /// The variable of GRUB's. Choices with the same variable exclude each other.
    variable: &'static str,
    word: &'static str,
    title: &'static str,
}

const CHOICES: [Choice; 6] = [
    Choice { variable: "vidar_log", word: "log=debug", title: "Log more" },
    Choice { variable: "vidar_log", word: "log=trace", title: "Log everything" },
    Choice {
        variable: "vidar_crash",
        word: "on-crash=halt",
        title: "Stop when the guest crashes, to read the report",
    },
    Choice {
        variable: "vidar_crash",
        word: "on-crash=reset",
        title: "Reset when the guest crashes, as usual",
    },
    Choice { variable: "vidar_bit", word: "hypervisor-bit=on", title: "Show Vidar to those who ask CPUID" },
    Choice {
        variable: "vidar_cpus",
        word: "cpu-startup=emulated",
        title: "Have Vidar start the guest's CPUs",
    },
];

/// GRUB's variables with the chosen words, for Vidar's command line. A variable that is empty adds nothing.
pub fn variables() -> String {
    let mut names: Vec<_> = CHOICES.iter().map(|choice| choice.variable).collect();
    names.dedup();
    names.iter().map(|name| format!("${name}")).collect::<Vec<_>>().join(" ")
}

/// The sub-menu. What is chosen has a mark, and choosing it again clears it. The template's function `again` loads the menu
/// again, with the choice in it. When ESC leaves that menu, the choice is undone.
pub fn menu() -> String {
    let mut text = "submenu \"Boot options of Vidar$chosen\" --id options {\n".to_owned();
    for Choice { variable, word, title } in CHOICES {
        writeln!(
            text,
            "    if [ \"${variable}\" = \"{word}\" ]; then set mark=x; else set mark=-; fi\n    \
             menuentry \"[$mark] {title} ({word})\" {{\n        set before=\"${variable}\"\n        \
             if [ \"${variable}\" = \"{word}\" ]; then set {variable}=; else set {variable}={word}; fi\n        \
             export {variable}\n        again\n        set {variable}=\"$before\"\n    }}"
        )
        .expect("writing to a String cannot fail");
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length of the longest menu line that fits on a screen or a terminal of 80 columns.
    const COLUMNS: usize = 74;

    #[test]
    fn every_line_fits() {
        for Choice { word, title, .. } in CHOICES {
            assert!(format!("[x] {title} ({word})").len() <= COLUMNS, "{title}");
        }
    }

    #[test]
    fn each_variable_is_on_the_command_line_once() {
        assert_eq!(variables(), "$vidar_log $vidar_crash $vidar_bit $vidar_cpus");
    }

    #[test]
    fn a_choice_is_marked_and_can_be_cleared() {
        let menu = menu();
        let entry = "    if [ \"$vidar_log\" = \"log=debug\" ]; then set mark=x; else set mark=-; fi\n    \
            menuentry \"[$mark] Log more (log=debug)\" {\n        set before=\"$vidar_log\"\n        \
            if [ \"$vidar_log\" = \"log=debug\" ]; then set vidar_log=; else set vidar_log=log=debug; fi\n        \
            export vidar_log\n        again\n        set vidar_log=\"$before\"\n    }\n";
        assert!(menu.contains(entry), "{menu}");
        assert_eq!(menu.matches("menuentry").count(), CHOICES.len());
    }
}
