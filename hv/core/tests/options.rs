//! Any command line can be parsed: it results in options and warnings.

use proptest::prelude::*;
use vidar_core::boot::options::{OPTIONS, Options, Warning};
use vidar_core::loader::text::Text;

fn parse(line: &[u8]) -> (Options, Vec<Warning<'_>>) {
    (Options::parse(Text(line)), Options::warnings(Text(line)).collect())
}

proptest! {
    #[test]
    fn any_line_can_be_parsed(line in prop_oneof![any::<String>().prop_map(String::into_bytes), any::<Vec<u8>>()]) {
        let (_, warnings) = parse(&line);
        prop_assert!(warnings.len() <= line.len().div_ceil(2));
        for warning in warnings {
            let control = warning.to_string().chars().any(char::is_control);
            prop_assert!(!control, "{}", warning);
        }
    }

    #[test]
    fn words_with_a_warning_have_no_effect(
        words in prop::collection::vec(
            "(log|console|serial|hypervisor-bit|on-crash|lo g)=?(|on|off|halt|info|com1|x)",
            0..6,
        ),
    ) {
        let line = words.join(" ");
        let (options, warnings) = parse(line.as_bytes());
        // A warning has no effect: without the words that caused one, the options are the same.
        let understood: Vec<_> =
            words.iter().map(String::as_str).filter(|word| parse(word.as_bytes()).1.is_empty()).collect();
        let understood_line = understood.join(" ");
        prop_assert_eq!(parse(understood_line.as_bytes()), (options, Vec::new()));
        prop_assert!(warnings.len() >= words.len() - understood.len());
    }
}

/// The README's table of options is that of the parser. A help text may go on there.
#[test]
fn the_readme_has_every_option() {
    let readme = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md"));
    let (_, table) = readme.split_once("# Boot options\n").expect("the README has a section on boot options");
    let (table, _) = table.split_once("\n#").expect("another section follows");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")).map(|line| line.replace('`', ""));
    let rows: Vec<_> = rows.collect();
    let expected = OPTIONS.iter().map(|option| {
        let values: Vec<_> = option.values.iter().map(|value| value.word).collect();
        let help = option.help.trim().replace('`', "");
        format!("{}= | {} | {} | {help}", option.name, values.join(", "), option.default)
    });
    let expected: Vec<_> = expected.collect();
    assert_eq!(rows.len(), expected.len(), "{rows:#?}");
    for (row, expected) in rows.iter().zip(&expected) {
        assert!(row.starts_with(expected), "The README has\n{row}\nand the parser\n{expected}");
    }
}
