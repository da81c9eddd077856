//! Numbers in words, for columns and messages.

use std::fmt::Write;

/// Bytes in binary units: one decimal from GiB up to a hundred of them, whole numbers otherwise (`3.0 GiB`,
/// `512 MiB`, `0 B`). Negative counts as nothing.
pub fn bytes(n: i64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let n = n.max(0);
    // The unit in which the number has at most four digits before rounding: 1023 MiB, then 1.0 GiB.
    let mut unit = 0;
    while unit + 1 < UNITS.len() && rounded(n, unit) >= 1024 {
        unit += 1;
    }
    if unit >= 3 && (n >> (10 * unit)) < 100 {
        let tenths = (i128::from(n) * 10 + (1 << (10 * unit - 1))) >> (10 * unit);
        return format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]);
    }
    format!("{} {}", rounded(n, unit), UNITS[unit])
}

fn rounded(n: i64, unit: usize) -> i64 {
    if unit == 0 {
        n
    } else {
        ((i128::from(n) + (1 << (10 * unit - 1))) >> (10 * unit)) as i64
    }
}

/// A duration in its two largest units: `2h`, `1h30m`, `45s`.
pub fn duration(d: std::time::Duration) -> String {
    let seconds = d.as_secs();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let first = parts.iter().position(|(n, _)| *n > 0).unwrap_or(2);
    let mut text = format!("{}{}", parts[first].0, parts[first].1);
    if let Some((n, unit)) = parts.get(first + 1).filter(|(n, _)| *n > 0) {
        let _ = write!(text, "{n}{unit}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{bytes, duration};

    #[test]
    fn bytes_have_the_unit_that_reads_best() {
        for (n, text) in [
            (0, "0 B"),
            (-5, "0 B"),
            (1, "1 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "2 KiB"),
            (512 << 20, "512 MiB"),
            ((1 << 20) - 1, "1 MiB"),
            ((1 << 30) - 1, "1.0 GiB"),
            (3 << 30, "3.0 GiB"),
            (3_221_225_472 + 107_374_182, "3.1 GiB"),
            (99 << 30, "99.0 GiB"),
            (100 << 30, "100 GiB"),
            (2 << 40, "2.0 TiB"),
            (i64::MAX, "8.0 EiB"),
        ] {
            assert_eq!(bytes(n), text, "{n}");
        }
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0s"),
            (45, "45s"),
            (60, "1m"),
            (90, "1m30s"),
            (7200, "2h"),
            (5400, "1h30m"),
            (3601, "1h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    proptest! {
        #[test]
        fn any_number_of_bytes_is_short(n in any::<i64>()) {
            prop_assert!(bytes(n).len() <= 9, "{}", bytes(n));
        }
    }
}
