//! The sub-menu with Vidar's boot options. A choice in it holds for all entries under Vidar: it is kept in a variable of
//! GRUB's, and the menu is read again and shows it.

use std::fmt::Write;

/// A choice: it sets its variable to a word for Vidar's command line, or takes it back.
struct Choice {
    /// Those with the same variable exclude each other.
    variable: &'static str,
    word: &'static str,
    says: &'static str,
}

const CHOICES: [Choice; 6] = [
    Choice { variable: "vidar_log", word: "log=debug", says: "Log more" },
    Choice { variable: "vidar_log", word: "log=trace", says: "Log everything" },
    Choice {
        variable: "vidar_crash",
        word: "on-crash=halt",
        says: "Stop when the guest crashes, to read the report",
    },
    Choice {
        variable: "vidar_crash",
        word: "on-crash=reset",
        says: "Reset when the guest crashes, as usual",
    },
    Choice { variable: "vidar_bit", word: "hypervisor-bit=on", says: "Show Vidar to those who ask CPUID" },
    Choice {
        variable: "vidar_cpus",
        word: "cpu-startup=emulated",
        says: "Have Vidar start the guest's CPUs",
    },
];

/// The words for Vidar's command line, as GRUB's variables; one that is empty leaves no word.
pub fn variables() -> String {
    let mut names: Vec<_> = CHOICES.iter().map(|choice| choice.variable).collect();
    names.dedup();
    names.iter().map(|name| format!("${name}")).collect::<Vec<_>>().join(" ")
}

/// The sub-menu, in which the template's function `again` shows the menu anew. What is chosen has a mark, and choosing
/// it again takes it back. Whoever comes back by ESC finds things as they were.
pub fn menu() -> String {
    let mut text = "submenu \"Boot options of Vidar$chosen\" --id options {\n".to_owned();
    for Choice { variable, word, says } in CHOICES {
        writeln!(
            text,
            "    if [ \"${variable}\" = \"{word}\" ]; then set mark=x; else set mark=-; fi\n    \
             menuentry \"[$mark] {says} ({word})\" {{\n        set before=\"${variable}\"\n        \
             if [ \"${variable}\" = \"{word}\" ]; then set {variable}=; else set {variable}={word}; fi\n        \
             export {variable}\n        again\n        set {variable}=\"$before\"\n    }}"
        )
        .expect("a string takes all");
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a line of the menu has room for on a screen or a terminal of 80 columns.
    const COLUMNS: usize = 74;

    #[test]
    fn every_line_fits() {
        for Choice { word, says, .. } in CHOICES {
            assert!(format!("[x] {says} ({word})").len() <= COLUMNS, "{says}");
        }
    }

    #[test]
    fn each_variable_is_handed_over_once() {
        assert_eq!(variables(), "$vidar_log $vidar_crash $vidar_bit $vidar_cpus");
    }

    #[test]
    fn a_choice_is_marked_and_can_be_taken_back() {
        let menu = menu();
        let entry = "    if [ \"$vidar_log\" = \"log=debug\" ]; then set mark=x; else set mark=-; fi\n    \
            menuentry \"[$mark] Log more (log=debug)\" {\n        set before=\"$vidar_log\"\n        \
            if [ \"$vidar_log\" = \"log=debug\" ]; then set vidar_log=; else set vidar_log=log=debug; fi\n        \
            export vidar_log\n        again\n        set vidar_log=\"$before\"\n    }\n";
        assert!(menu.contains(entry), "{menu}");
        assert_eq!(menu.matches("menuentry").count(), CHOICES.len());
    }
}
