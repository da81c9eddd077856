//! Durations as Go writes them, which is how Kubernetes users do: `30s`, `1h30m`.

use std::str::FromStr as _;
use std::time::Duration;

/// A year is more than any flag needs, and far from what arithmetic with times can bear.
const LONGEST: Duration = Duration::from_hours(365 * 24);
/// Longer texts could name a number that no duration holds.
const MAX_CHARS: usize = 12;

/// Parses a flag: not negative, at most a year.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is no duration such as 30s or 1h30m");
    if text.is_empty() || text.len() > MAX_CHARS || text.starts_with(['-', '+']) {
        return Err(refuse());
    }
    let parsed = kube::core::Duration::from_str(text).map_err(|_| refuse())?;
    let duration = Duration::from(parsed);
    if duration > LONGEST {
        return Err(format!("{text} is more than a year"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sensible_durations_are_taken() {
        for (text, seconds) in [("30s", 30), ("1h30m", 5400), ("0s", 0), ("0", 0), ("1.5m", 90)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "5",
            "-1s",
            "+1s",
            "5 s",
            "9e9h",
            "99999999999h",
            "999999999999999999999h",
            "1d",
            "h",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
