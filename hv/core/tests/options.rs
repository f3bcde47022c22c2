//! Any command line can be parsed: it results in options and warnings.

use proptest::prelude::*;
use vidar_core::boot::options::{Options, Warning};
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
