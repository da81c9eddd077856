//! A bound on how often something is done, with reservations, so that those who wait need not ask again and again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Hands out moments, at most so many a second; after a pause a burst of one second's worth.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    burst: Duration,
    /// The moment that is handed out next if nobody pauses.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// At least one a second.
    pub fn per_second(n: u32) -> Self {
        let interval = Duration::from_secs(1) / n.max(1);
        Self {
            interval,
            burst: Duration::from_secs(1).saturating_sub(interval),
            next: Mutex::new(None),
        }
    }

    /// Takes the next moment, which may be now.
    pub fn reserve(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        // What was not used in the last second may be used now.
        let oldest = now.checked_sub(self.burst).unwrap_or(now);
        let at = next.map_or(oldest, |n| n.max(oldest));
        *next = Some(at + self.interval);
        at.max(now)
    }

    /// Takes the present moment if it is free.
    pub fn try_now(&self, now: Instant) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = now.checked_sub(self.burst).unwrap_or(now);
        let at = next.map_or(oldest, |n| n.max(oldest));
        if at > now {
            return false;
        }
        *next = Some(at + self.interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_after_another() {
        let pace = Pace::per_second(5);
        let t = Instant::now() + Duration::from_hours(1);
        let waits: Vec<u128> = (0..8).map(|_| (pace.reserve(t) - t).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 200, 400, 600]);
        assert!(!pace.try_now(t + Duration::from_millis(700)));
        assert!(pace.try_now(t + Duration::from_millis(800)));
        let later = t + Duration::from_mins(1);
        assert_eq!(
            (0..6).filter(|_| pace.try_now(later)).count(),
            5,
            "an hour's pause is no more than a burst"
        );
    }

    #[test]
    fn never_more_than_the_rate_and_a_burst_in_any_second() {
        let pace = Pace::per_second(5);
        let t = Instant::now() + Duration::from_hours(1);
        let mut given = Vec::new();
        for ms in (0..10_000).step_by(30) {
            if pace.try_now(t + Duration::from_millis(ms)) {
                given.push(ms);
            }
        }
        for from in (0..9_000).step_by(50) {
            let within = given
                .iter()
                .filter(|ms| (from..from + 1000).contains(*ms))
                .count();
            assert!(within <= 10, "{within} from {from}");
        }
        assert!(given.len() <= 5 * 10 + 5 && given.len() >= 45, "{}", given.len());
    }
}
