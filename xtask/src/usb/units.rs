//! Numbers of bytes, in units that people read.

/// Formats a number of bytes for people to read.
pub fn in_units(bytes: u64) -> String {
    let (unit, name) =
        [(30, "GiB"), (20, "MiB")].into_iter().find(|(shift, _)| bytes >> shift > 0).unwrap_or((10, "KiB"));
    let tenths = (u128::from(bytes) * 10) >> unit;
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in [
            (0, "0.0 KiB"),
            (2047, "1.9 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 30) - 1, "1023.9 MiB"),
            (31_457_280_000, "29.2 GiB"),
        ] {
            assert_eq!(in_units(bytes), text);
        }
    }
}
