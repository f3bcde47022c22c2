//! The sub-menu with Vidar's boot options. A choice in it applies to all entries under Vidar. It is kept in a variable
//! of GRUB's, and the menu is loaded again to show it.

use std::fmt::Write;

use vidar_core::boot::options::{BootOption, OPTIONS};

/// Returns the variable of GRUB's that has the chosen word for the option. So the values of an option exclude each
/// other.
fn variable(option: &BootOption) -> String {
    format!("vidar_{}", option.name.replace('-', "_"))
}

/// Returns the values of an option that the sub-menu offers: the word for Vidar's command line and the title of each.
fn choices(option: &BootOption) -> impl Iterator<Item = (String, &'static str)> {
    let name = option.name;
    option.values.iter().filter_map(move |value| Some((format!("{name}={}", value.word), value.title?)))
}

/// GRUB's variables with the chosen words, for Vidar's command line. A variable that is empty adds nothing.
pub fn variables() -> String {
    let offered = OPTIONS.iter().filter(|option| choices(option).next().is_some());
    offered.map(|option| format!("${}", variable(option))).collect::<Vec<_>>().join(" ")
}

/// Returns the sub-menu. What is chosen has a mark, and choosing it again clears it. The template's function `again`
/// loads the menu again, with the choice in it. When ESC leaves that menu, the choice is undone.
pub fn menu() -> String {
    let mut text = "submenu \"Boot options of Vidar$chosen\" --id options {\n".to_owned();
    for option in OPTIONS {
        let variable = variable(option);
        for (word, title) in choices(option) {
            writeln!(
                text,
                "    if [ \"${variable}\" = \"{word}\" ]; then set mark=x; else set mark=-; fi\n    \
                 menuentry \"[$mark] {title} ({word})\" {{\n        set before=\"${variable}\"\n        \
                 if [ \"${variable}\" = \"{word}\" ]; then set {variable}=; else set {variable}={word}; fi\n        \
                 export {variable}\n        again\n        set {variable}=\"$before\"\n    }}"
            )
            .expect("writing to a String cannot fail");
        }
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
        for (word, title) in OPTIONS.iter().flat_map(choices) {
            assert!(format!("[x] {title} ({word})").len() <= COLUMNS, "{title}");
        }
    }

    #[test]
    fn each_variable_is_on_the_command_line_once() {
        let variables = variables();
        assert!(variables.starts_with("$vidar_log $vidar_hypervisor_bit "), "{variables}");
        assert!(!variables.contains("serial"), "the menu does not offer it: {variables}");
    }

    #[test]
    fn a_choice_is_marked_and_can_be_cleared() {
        let menu = menu();
        let entry = "    if [ \"$vidar_log\" = \"log=debug\" ]; then set mark=x; else set mark=-; fi\n    \
            menuentry \"[$mark] Log more (log=debug)\" {\n        set before=\"$vidar_log\"\n        \
            if [ \"$vidar_log\" = \"log=debug\" ]; then set vidar_log=; else set vidar_log=log=debug; fi\n        \
            export vidar_log\n        again\n        set vidar_log=\"$before\"\n    }\n";
        assert!(menu.contains(entry), "{menu}");
        assert_eq!(menu.matches("menuentry").count(), OPTIONS.iter().flat_map(choices).count());
    }
}
