//! Whatever the user writes in GRUB's menu, reading it ends in options and warnings.

use proptest::prelude::*;
use vidar::boot::options::Options;

proptest! {
    #[test]
    fn any_line(line in any::<String>()) {
        let (_, warnings) = Options::parse(&line);
        prop_assert!(warnings.len() <= line.split_whitespace().count());
        for warning in warnings {
            let control = warning.to_string().chars().any(char::is_control);
            prop_assert!(!control, "{}", warning);
        }
    }

    #[test]
    fn nearly_right_words(
        words in prop::collection::vec(
            "(log|console|serial|hypervisor-bit|on-crash|lo g)=?(|on|off|halt|info|com1|x)",
            0..6,
        ),
    ) {
        let (options, warnings) = Options::parse(&words.join(" "));
        // A warning has no effect: without the words that caused one, the options are the same.
        let understood: Vec<_> =
            words.iter().map(String::as_str).filter(|word| Options::parse(word).1.is_empty()).collect();
        prop_assert_eq!(Options::parse(&understood.join(" ")), (options, Vec::new()));
        prop_assert!(warnings.len() >= words.len() - understood.len());
    }
}
