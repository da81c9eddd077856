//! When which key is worked on. Pure: every moment is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// First delay after an error; doubles to [`MAX_BACKOFF`].
pub const MIN_BACKOFF: Duration = Duration::from_millis(200);
/// Longest delay after errors.
pub const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A key that takes long to work on rests this many times as long before it is worked on again.
const REST: u32 = 3;
/// But no longer: what waits for a registry is slow without being a burden.
const LONGEST_REST: Duration = Duration::from_millis(500);
/// Idle keys are forgotten beyond this many entries.
const FORGET_BEYOND: usize = 1024;

/// Keys and when they are due. A key is never handed out twice at the same time.
#[derive(Debug)]
pub struct Schedule<K> {
    interval: Duration,
    entries: BTreeMap<K, Entry>,
    /// Keys that wait, by the moment they are due.
    due: BTreeSet<(Instant, K)>,
}

#[derive(Debug, Default)]
struct Entry {
    /// When it should be worked on. While it waits, `due` holds the same moment.
    at: Option<Instant>,
    running: bool,
    /// Not again before.
    rest_until: Option<Instant>,
    failures: u32,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<K> {
    /// Work on this key.
    Run(K),
    /// Nothing is due before.
    Wait(Instant),
    /// Nothing waits.
    Idle,
}

impl<K: Ord + Clone> Schedule<K> {
    /// A key is worked on at most once in an interval; the first mark after a pause at once.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// Asks that the key be worked on at `at`, or earlier if that was asked for before.
    pub fn mark(&mut self, key: K, at: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        let at = entry.rest_until.map_or(at, |rest| at.max(rest));
        if entry.at.is_some_and(|before| before <= at) {
            return;
        }
        let before = entry.at.replace(at);
        if entry.running {
            return;
        }
        if let Some(before) = before {
            self.due.remove(&(before, key.clone()));
        }
        self.due.insert((at, key));
    }

    /// Hands out the key that has been due longest.
    pub fn next(&mut self, now: Instant) -> Next<K> {
        match self.due.first() {
            None => Next::Idle,
            Some((at, _)) if *at > now => Next::Wait(*at),
            Some(_) => match self.due.pop_first() {
                None => Next::Idle,
                Some((_, key)) => {
                    let entry = self.entries.entry(key.clone()).or_default();
                    entry.running = true;
                    entry.at = None;
                    Next::Run(key)
                }
            },
        }
    }

    /// Takes a key back. `again`: when it asks to be worked on again by itself.
    pub fn done(&mut self, key: &K, started: Instant, now: Instant, outcome: Outcome) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.running = false;
        entry.rest_until =
            Some((started + self.interval).max(now + (now.duration_since(started) * REST).min(LONGEST_REST)));
        let again = match outcome {
            Outcome::Done { again } => {
                entry.failures = 0;
                again.map(|after| now + after)
            }
            Outcome::Failed => {
                let doubled = MIN_BACKOFF.saturating_mul(1 << entry.failures.min(16));
                entry.failures = entry.failures.saturating_add(1);
                Some(now + doubled.min(MAX_BACKOFF))
            }
        };
        let marked = entry.at.take();
        for at in [marked, again].into_iter().flatten() {
            self.mark(key.clone(), at);
        }
        if self.entries.len() > FORGET_BEYOND {
            self.entries.retain(|_, e| {
                e.running || e.at.is_some() || e.failures > 0 || e.rest_until.is_some_and(|rest| rest > now)
            });
        }
    }

    /// How often in a row the work on a key has failed.
    pub fn failures(&self, key: &K) -> u32 {
        self.entries.get(key).map_or(0, |e| e.failures)
    }

    #[cfg(test)]
    pub(super) fn take_waiting(&mut self) -> Vec<K> {
        let waiting = std::mem::take(&mut self.due);
        self.entries.clear();
        let keys: BTreeSet<K> = waiting.into_iter().map(|(_, key)| key).collect();
        keys.into_iter().collect()
    }

    /// Keys that are due and not being worked on.
    pub fn depth(&self, now: Instant) -> usize {
        self.due.iter().take_while(|(at, _)| *at <= now).count()
    }
}

/// How the work on a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done {
        /// It wants to be worked on again after this time.
        again: Option<Duration>,
    },
    /// With an error: repeated with growing delays.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn ms(base: Instant, n: u64) -> Instant {
        base + Duration::from_millis(n)
    }

    #[test]
    fn the_first_mark_runs_at_once_and_further_ones_once_an_interval() {
        let t = Instant::now();
        let mut s = Schedule::new(INTERVAL);
        s.mark("a", t);
        s.mark("a", t);
        assert_eq!(s.next(t), Next::Run("a"));
        assert_eq!(s.next(t), Next::Idle);
        s.done(&"a", t, t, Outcome::Done { again: None });
        assert_eq!(s.next(t), Next::Idle, "two marks were one run");
        s.mark("a", ms(t, 10));
        s.mark("a", ms(t, 20));
        assert_eq!(s.next(ms(t, 20)), Next::Wait(ms(t, 100)));
        assert_eq!(s.next(ms(t, 100)), Next::Run("a"));
    }

    #[test]
    fn marks_during_the_work_run_it_once_more_and_never_twice_at_a_time() {
        let t = Instant::now();
        let mut s = Schedule::new(Duration::ZERO);
        s.mark("a", t);
        assert_eq!(s.next(t), Next::Run("a"));
        s.mark("a", t);
        s.mark("a", t);
        assert_eq!(s.next(ms(t, 5)), Next::Idle, "it is being worked on");
        s.done(&"a", t, t, Outcome::Done { again: None });
        assert_eq!(s.next(t), Next::Run("a"));
        s.done(&"a", t, t, Outcome::Done { again: None });
        assert_eq!(s.next(t), Next::Idle);
    }

    #[test]
    fn the_earliest_of_several_delays_wins() {
        let t = Instant::now();
        let mut s = Schedule::new(Duration::ZERO);
        s.mark("a", ms(t, 500));
        s.mark("a", ms(t, 300));
        s.mark("a", ms(t, 900));
        assert_eq!(s.next(t), Next::Wait(ms(t, 300)));
        assert_eq!(s.next(ms(t, 300)), Next::Run("a"));
        s.mark("a", ms(t, 400));
        s.done(
            &"a",
            ms(t, 300),
            ms(t, 300),
            Outcome::Done {
                again: Some(Duration::from_secs(9)),
            },
        );
        assert_eq!(s.next(ms(t, 300)), Next::Wait(ms(t, 400)));
        assert_eq!(s.next(ms(t, 400)), Next::Run("a"));
        s.done(&"a", ms(t, 400), ms(t, 400), Outcome::Done { again: None });
        assert_eq!(
            s.next(ms(t, 400)),
            Next::Idle,
            "later delays were taken up by the earlier run"
        );
    }

    #[test]
    fn errors_back_off_to_a_limit_and_success_forgets_them() {
        let t = Instant::now();
        let mut s = Schedule::new(Duration::ZERO);
        let mut now = t;
        s.mark("a", now);
        let mut delays = Vec::new();
        for _ in 0..10 {
            assert_eq!(s.next(now), Next::Run("a"));
            s.done(&"a", now, now, Outcome::Failed);
            let Next::Wait(at) = s.next(now) else {
                panic!("a failed key waits")
            };
            delays.push((at - now).as_millis());
            now = at;
        }
        assert_eq!(
            delays,
            [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]
        );
        assert_eq!(s.next(now), Next::Run("a"));
        s.done(&"a", now, now, Outcome::Done { again: None });
        s.mark("a", now);
        assert_eq!(s.next(now), Next::Run("a"));
        s.done(&"a", now, now, Outcome::Failed);
        assert_eq!(s.next(now), Next::Wait(now + MIN_BACKOFF));
    }

    #[test]
    fn long_work_is_spaced_out() {
        let t = Instant::now();
        let mut s = Schedule::new(INTERVAL);
        s.mark("a", t);
        assert_eq!(s.next(t), Next::Run("a"));
        s.done(&"a", t, ms(t, 150), Outcome::Done { again: None });
        s.mark("a", ms(t, 151));
        assert_eq!(s.next(ms(t, 151)), Next::Wait(ms(t, 600)));
        assert_eq!(s.next(ms(t, 600)), Next::Run("a"));
        s.done(
            &"a",
            ms(t, 600),
            ms(t, 2600),
            Outcome::Done {
                again: Some(Duration::ZERO),
            },
        );
        assert_eq!(s.next(ms(t, 2600)), Next::Wait(ms(t, 3100)), "within a limit");
    }

    #[test]
    fn idle_keys_are_forgotten() {
        let t = Instant::now();
        let mut s = Schedule::new(Duration::ZERO);
        for n in 0..5000 {
            s.mark(n, t);
            assert_eq!(s.next(t), Next::Run(n));
            s.done(&n, t, t, Outcome::Done { again: None });
        }
        assert!(s.entries.len() <= FORGET_BEYOND + 1, "{}", s.entries.len());
        assert_eq!(s.depth(t), 0);
    }
}
