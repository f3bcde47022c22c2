//! What Vidar guards, and what it has refused: `vidarctl guard`.

use vidar_abi::Protection;

use crate::json::string;
use crate::numbers::grouped;
use crate::trace::symbols::Symbols;

/// How one protection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The protection.
    pub protection: Protection,
    /// The number of CPUs on which it is kept on now.
    pub cpus: u64,
    /// How often Vidar has refused to change it.
    pub refused: u64,
    /// The RIP of the last instruction that was refused, or 0.
    pub last: u64,
}

/// What is known of the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guarded {
    /// Vidar guards nothing.
    Nothing,
    /// This program may not know.
    Hidden,
    /// How each protection stands.
    All(Vec<Kept>),
}

/// Formats the protections for people. `symbols` are the functions of the kernel.
pub fn text(all: &[Kept], cpus: u64, symbols: &Symbols) -> String {
    let mut text = "protection        CPUs   refused  last at\n".to_owned();
    for Kept { protection, cpus: held, refused, last } in all {
        let place = if *refused == 0 { String::new() } else { format!("  {}", symbols.place(*last)) };
        let held = format!("{held}/{cpus}");
        text += &format!("{:<14} {held:>7} {:>9}{place}\n", protection.name(), grouped(*refused));
    }
    text
}

/// Formats the protections as JSON.
pub fn json(all: &[Kept], cpus: u64, symbols: &Symbols) -> String {
    let one = |Kept { protection, cpus: held, refused, last }: &Kept| {
        let (rip, place) = if *refused == 0 {
            ("null".to_owned(), "null".to_owned())
        } else {
            (last.to_string(), string(&symbols.place(*last).to_string()))
        };
        format!(
            "{{\"protection\":{},\"cpus\":{held},\"refused\":{refused},\"last_rip\":{rip},\"last_at\":{place}}}",
            string(protection.name())
        )
    };
    let all = all.iter().map(one).collect::<Vec<_>>().join(",");
    format!("{{\"cpus\":{cpus},\"protections\":[{all}]}}\n")
}

/// What `dma=guard` guards.
const FROM_DEVICES: &str = "Vidar's memory from devices";

/// Returns what is guarded and what is not, for a line of the status. `devices` is true if devices are kept away from
/// Vidar's memory, and `None` if Vidar does not say so.
pub fn summary(guarded: &Guarded, cpus: u64, devices: Option<bool>) -> String {
    let (kept, is_guarded): (&[Kept], _) = match guarded {
        Guarded::Nothing => (&[], false),
        Guarded::Hidden => {
            let devices =
                devices.map(|is_guarded| if is_guarded { "; guarded: " } else { "; not guarded: " });
            let devices = devices.map(|state| format!("{state}{FROM_DEVICES}")).unwrap_or_default();
            return format!("not shown without root's rights{devices}");
        }
        Guarded::All(all) => (all, true),
    };
    let held = kept.iter().find(|kept| kept.protection == Protection::Data).map_or(0, |kept| kept.cpus);
    let on = format!(" on {held} of {cpus} CPUs");
    let all_subjects = [
        ("the CPU's protections", "", Some(is_guarded)),
        ("the kernel's read-only data", &*on, Some(held > 0)),
        (FROM_DEVICES, "", devices),
    ];
    let mut guarded = Vec::new();
    let mut others = Vec::new();
    for (subject, on, is_guarded) in all_subjects {
        match is_guarded {
            Some(true) => guarded.push(format!("{subject}{on}")),
            Some(false) => others.push(subject),
            None => {}
        }
    }
    let mut text = if guarded.is_empty() { "nothing".to_owned() } else { guarded.join(", ") };
    if !others.is_empty() {
        text += &format!(" (not {})", others.join(", "));
    }
    if is_guarded {
        let refused = kept.iter().map(|kept| kept.refused).sum();
        text += &format!("; {} refused", grouped(refused));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Kept; 3] = [
        Kept { protection: Protection::Cr0Wp, cpus: 2, refused: 0, last: 0 },
        Kept { protection: Protection::Lstar, cpus: 1, refused: 1234, last: 0xffff_ffff_8100_0010 },
        Kept { protection: Protection::Data, cpus: 1, refused: 0, last: 0 },
    ];

    fn symbols() -> Symbols {
        Symbols::parse("ffffffff81000000 T native_write_msr\n")
    }

    #[test]
    fn the_text_is_a_table() {
        assert_eq!(
            text(&ALL, 2, &symbols()),
            "protection        CPUs   refused  last at\n\
             CR0.WP             2/2         0\n\
             LSTAR              1/2     1,234  native_write_msr+0x10\n\
             read-only data     1/2         0\n"
        );
    }

    #[test]
    fn the_json_is_one_object() {
        assert_eq!(
            json(&ALL, 2, &symbols()),
            "{\"cpus\":2,\"protections\":[\
             {\"protection\":\"CR0.WP\",\"cpus\":2,\"refused\":0,\"last_rip\":null,\"last_at\":null},\
             {\"protection\":\"LSTAR\",\"cpus\":1,\"refused\":1234,\"last_rip\":18446744071578845200,\
             \"last_at\":\"native_write_msr+0x10\"},\
             {\"protection\":\"read-only data\",\"cpus\":1,\"refused\":0,\"last_rip\":null,\"last_at\":null}]}\n"
        );
    }

    #[test]
    fn the_summary_says_what_is_guarded() {
        let all = |all: &[Kept]| Guarded::All(all.to_vec());
        for (guarded, devices, expected) in [
            (
                Guarded::Hidden,
                Some(false),
                "not shown without root's rights; not guarded: Vidar's memory from devices",
            ),
            (
                Guarded::Hidden,
                Some(true),
                "not shown without root's rights; guarded: Vidar's memory from devices",
            ),
            (Guarded::Hidden, None, "not shown without root's rights"),
            (Guarded::Nothing, None, "nothing (not the CPU's protections, the kernel's read-only data)"),
            (
                Guarded::Nothing,
                Some(false),
                "nothing (not the CPU's protections, the kernel's read-only data, Vidar's memory from devices)",
            ),
            (
                Guarded::Nothing,
                Some(true),
                "Vidar's memory from devices (not the CPU's protections, the kernel's read-only data)",
            ),
            (
                all(&ALL[..2]),
                Some(false),
                "the CPU's protections (not the kernel's read-only data, Vidar's memory from devices); 1,234 refused",
            ),
            (
                all(&ALL),
                Some(true),
                "the CPU's protections, the kernel's read-only data on 1 of 2 CPUs, Vidar's memory from devices; 1,234 refused",
            ),
        ] {
            assert_eq!(summary(&guarded, 2, devices), expected);
        }
    }
}
