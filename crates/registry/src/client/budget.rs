//! How many requests a registry still allows, as its answers say it.

use std::time::Duration;

use reqwest::header::HeaderMap;

/// What remains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Requests that are still allowed.
    pub remaining: u64,
    /// Of how many.
    pub limit: Option<u64>,
    /// Until they are counted anew.
    pub reset: Option<Duration>,
}

/// Later than any number of seconds that means "in so long": what is more is a moment, in seconds since 1970.
const EPOCH_FROM: u64 = 1_000_000_000;

impl Budget {
    /// Reads the forms in use: Docker Hub's `RateLimit-Remaining: 76;w=21600`, the `X-RateLimit-` headers of others,
    /// and `RateLimit` of the httpapi working group's drafts (`limit=9, remaining=5, reset=3` and `"x";r=5;t=3`).
    /// `now` in seconds since 1970.
    pub(super) fn from_headers(headers: &HeaderMap, now: u64) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let either = |name: &str| text(name).or_else(|| text(&format!("x-{name}")));
        let number = |name: &str| either(name).and_then(leading_number);
        let together = text("ratelimit").unwrap_or_default();
        let part = |long, short| parameter(together, long).or_else(|| parameter(together, short));
        let remaining = number("ratelimit-remaining").or_else(|| part("remaining", "r"))?;
        let reset = number("ratelimit-reset").or_else(|| part("reset", "t"));
        Some(Self {
            remaining,
            limit: number("ratelimit-limit").or_else(|| parameter(together, "limit")),
            reset: reset.map(|at| {
                Duration::from_secs(if at >= EPOCH_FROM {
                    at.saturating_sub(now)
                } else {
                    at
                })
            }),
        })
    }
}

fn leading_number(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

fn parameter(text: &str, name: &str) -> Option<u64> {
    let mut parts = text.split([',', ';']).map(str::trim);
    let found = parts.find_map(|part| part.strip_prefix(name)?.trim_start().strip_prefix('='));
    found.and_then(leading_number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn read(headers: &[(&'static str, &str)]) -> Option<Budget> {
        let headers = headers.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            )
        });
        Budget::from_headers(&headers.collect(), 1_800_000_000)
    }

    #[test]
    fn reads_what_registries_send() {
        let budget = |remaining, limit, reset: Option<u64>| {
            Some(Budget {
                remaining,
                limit,
                reset: reset.map(Duration::from_secs),
            })
        };
        let hub = [
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", "76;w=21600"),
        ];
        assert_eq!(read(&hub), budget(76, Some(100), None));
        let x = [
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1800000042"),
        ];
        assert_eq!(read(&x), budget(0, Some(5000), Some(42)));
        let past = [
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1700000000"),
        ];
        assert_eq!(read(&past), budget(0, None, Some(0)));
        let drafts = [
            ("limit=10, remaining=5, reset=3", budget(5, Some(10), Some(3))),
            ("\"default\";r=50;t=30", budget(50, None, Some(30))),
            ("nothing", None),
        ];
        for (value, expected) in drafts {
            assert_eq!(read(&[("ratelimit", value)]), expected, "{value}");
        }
        assert_eq!(read(&[("ratelimit-remaining", "many")]), None);
        assert_eq!(read(&[]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_panic(a in "[ -~]{0,30}", b in "[0-9;,=rt \"]{0,30}") {
            read(&[("ratelimit", &a), ("ratelimit-remaining", &b), ("ratelimit-reset", &b)]);
        }
    }
}
