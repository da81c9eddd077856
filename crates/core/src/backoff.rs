//! When a failed pull is repeated.

use std::time::Duration;

use larder_api::image_cache::RetrySpec;
use larder_api::names::Reason;
use sha2::{Digest, Sha256};

/// Time from the end of failed attempt number `attempts` (1 is the first) to the next attempt.
///
/// It doubles from `retry.initialDelay` to `retry.maxDelay`; a reason that a repetition seldom heals starts at a tenth
/// of `maxDelay`. `seed` shortens it by up to a fifth, so that what failed together is not repeated together.
pub fn delay(retry: &RetrySpec, reason: Option<Reason>, attempts: i32, seed: u64) -> Duration {
    let longest = Duration::from(retry.max_delay);
    let initial = Duration::from(retry.initial_delay);
    let first = if reason.is_some_and(seldom_heals) {
        initial.max(longest / 10)
    } else {
        initial
    };
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(31);
    let whole = first.saturating_mul(1 << doublings).min(longest);
    // Another jitter at each attempt: mixing in the number keeps two seeds that agree once from agreeing always.
    let mixed = seed
        .wrapping_add(u64::from(doublings))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let fraction = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
    whole.saturating_sub(whole.mul_f64(fraction * 0.2))
}

/// Reasons that need a person, at the registry or here, before a repetition can succeed.
pub fn seldom_heals(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NotFound
            | Reason::Unauthorized
            | Reason::NoMatchingPlatform
            | Reason::InvalidReference
            | Reason::CredentialsMissing
            | Reason::DigestMismatch
    )
}

/// A seed for [`delay`] from whatever names the thing that is repeated.
pub fn seed(parts: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize()
        .iter()
        .take(8)
        .fold(0, |n, byte| (n << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use larder_api::image_cache::RetrySpec;
    use larder_api::names::Reason;
    use proptest::prelude::*;

    use super::{delay, seed};

    fn retry(initial: u64, max: u64) -> RetrySpec {
        RetrySpec {
            initial_delay: Duration::from_secs(initial).into(),
            max_delay: Duration::from_secs(max).into(),
        }
    }

    fn near(d: Duration, seconds: f64) -> bool {
        d.as_secs_f64() <= seconds && d.as_secs_f64() >= seconds * 0.8
    }

    #[test]
    fn doubles_up_to_the_longest() {
        let spec = retry(1, 600);
        for (attempts, seconds) in [
            (-3, 1.0),
            (0, 1.0),
            (1, 1.0),
            (2, 2.0),
            (3, 4.0),
            (10, 512.0),
            (11, 600.0),
            (i32::MAX, 600.0),
        ] {
            let d = delay(&spec, Some(Reason::RegistryUnreachable), attempts, 7);
            assert!(near(d, seconds), "{attempts}: {d:?}");
        }
    }

    #[test]
    fn what_seldom_heals_starts_at_a_tenth_of_the_longest() {
        for reason in [
            Reason::NotFound,
            Reason::Unauthorized,
            Reason::NoMatchingPlatform,
            Reason::InvalidReference,
            Reason::CredentialsMissing,
            Reason::DigestMismatch,
        ] {
            assert!(near(delay(&retry(1, 600), Some(reason), 1, 7), 60.0));
            assert!(near(delay(&retry(1, 600), Some(reason), 2, 7), 120.0));
            assert!(near(delay(&retry(90, 600), Some(reason), 1, 7), 90.0));
        }
        assert!(near(delay(&retry(1, 600), Some(Reason::RateLimited), 1, 7), 1.0));
        assert!(near(delay(&retry(1, 600), None, 1, 7), 1.0));
    }

    #[test]
    fn an_initial_delay_above_the_longest_is_cut() {
        assert!(near(delay(&retry(900, 600), None, 1, 7), 600.0));
    }

    #[test]
    fn seeds_spread() {
        let delays: std::collections::BTreeSet<_> = (0..100)
            .map(|i| delay(&retry(100, 600), None, 1, seed(&["node", &i.to_string()])))
            .collect();
        assert!(delays.len() > 90);
        assert_ne!(seed(&["ab", "c"]), seed(&["a", "bc"]));
    }

    proptest! {
        #[test]
        fn never_longer_than_the_longest_nor_shorter_than_four_fifths_of_the_first(
            initial in 1_u64..2_592_000, max in 1_u64..2_592_000, attempts in any::<i32>(), seed in any::<u64>(),
        ) {
            let d = delay(&retry(initial, max), None, attempts, seed);
            prop_assert!(d <= Duration::from_secs(max));
            prop_assert!(d.as_secs_f64() >= initial.min(max) as f64 * 0.8 - 1e-6);
        }

        #[test]
        fn more_attempts_wait_no_less_than_four_fifths_of_fewer(attempts in 1_i32..40, seed in any::<u64>()) {
            let spec = retry(1, 600);
            let (a, b) = (delay(&spec, None, attempts, seed), delay(&spec, None, attempts + 1, seed));
            prop_assert!(b.as_secs_f64() >= a.as_secs_f64() * 0.8);
        }
    }
}
