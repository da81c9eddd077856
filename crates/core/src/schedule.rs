//! When a cache is refreshed next.
//!
//! Pure: the present time, and when the last refresh began, are passed in. What was missed (the operator was down, the
//! cache suspended) is caught up by one refresh, and none begins while another one runs.
//!
//! Caches of one schedule do not all begin at once: each is late by a share of its own, from its UID, of at most a tenth
//! of the time between two refreshes and at most [`MAX_JITTER`]. A refresh is never early.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, Zoned};
use sha2::{Digest as _, Sha256};

/// The longest that a refresh is put off so that caches do not begin together.
pub const MAX_JITTER: Duration = Duration::from_mins(5);
/// The shortest time between two refreshes.
pub const MIN_INTERVAL: Duration = Duration::from_mins(1);
/// The longest interval; the schema of `ImageCache` has the same.
pub const MAX_INTERVAL: Duration = Duration::from_hours(720);
/// Longest cron expression accepted, in bytes.
const MAX_EXPRESSION_LEN: usize = 200;

/// When refreshes are due.
#[derive(Clone, Debug)]
pub struct Schedule {
    when: When,
}

#[derive(Clone, Debug)]
enum When {
    Interval(SignedDuration),
    Cron(Box<Cron>, TimeZone),
}

/// Why there is no such schedule: the condition `Accepted` is False with the reason `InvalidSchedule`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Out of bounds.
    #[error("refresh.interval must be between 1m and 720h")]
    Interval,
    /// Not a cron expression of five fields.
    #[error("refresh.schedule {expression:?}: {problem}")]
    Expression {
        /// The expression, cut to [`MAX_EXPRESSION_LEN`] bytes.
        expression: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A date that no calendar has, as the 30th of February.
    #[error("refresh.schedule {expression:?} fits no date")]
    Never {
        /// The expression.
        expression: String,
    },
    /// Not a name of the IANA time zone database.
    #[error("refresh.timeZone {name:?} is not a time zone; an example is Europe/Berlin")]
    TimeZone {
        /// The name, cut to 100 characters.
        name: String,
    },
}

/// What is known of a cache's refreshes.
#[derive(Clone, Copy, Debug)]
pub struct Runs<'a> {
    /// UID of the cache.
    pub uid: &'a str,
    /// When the last refresh began, for whatever reason; before the first, when the cache was made or accepted.
    pub last: Timestamp,
    /// Whether a refresh runs now.
    pub running: bool,
}

/// When to begin the next refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once. However many were missed, this is the one that makes up for them.
    Now,
    /// At this time, which is to come.
    At(Timestamp),
    /// Not before the running one has ended: ask again then.
    AfterRunning,
    /// Not any more: beyond the calendar's end.
    Never,
}

impl Schedule {
    /// A refresh this long after the beginning of the last, from [`MIN_INTERVAL`] to [`MAX_INTERVAL`].
    pub fn every(interval: Duration) -> Result<Self, ScheduleError> {
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
            return Err(ScheduleError::Interval);
        }
        let interval = SignedDuration::try_from(interval).map_err(|_| ScheduleError::Interval)?;
        Ok(Self {
            when: When::Interval(interval),
        })
    }

    /// A refresh whenever a cron expression of five fields (minute, hour, day of the month, month, day of the week), or
    /// one of the names `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`, fits the clocks of a time zone of the
    /// IANA database; UTC where none is named.
    ///
    /// When the clocks go forward, a time of the day that is left out is taken at the first minute after the gap; an
    /// expression for many times of the day has none in the gap. When they go back, a time of the day that comes twice
    /// is taken the first time only; one for many times of the day goes on through both.
    pub fn cron(expression: &str, time_zone: Option<&str>) -> Result<Self, ScheduleError> {
        let zone = match time_zone {
            None => TimeZone::UTC,
            Some(name) => TimeZoneDatabase::bundled()
                .get(name)
                .map_err(|_| ScheduleError::TimeZone {
                    name: name.chars().take(100).collect(),
                })?,
        };
        let cron = parse(expression)?;
        // Whether it fits any date: from an arbitrary one, since the search goes through the whole calendar.
        date(2024, 1, 1)
            .to_zoned(TimeZone::UTC)
            .ok()
            .and_then(|start| cron.find_next_occurrence(&start, true).ok())
            .ok_or_else(|| ScheduleError::Never {
                expression: expression.to_owned(),
            })?;
        Ok(Self {
            when: When::Cron(Box::new(cron), zone),
        })
    }

    /// When the next refresh is to begin.
    pub fn next(&self, runs: Runs<'_>, now: Timestamp) -> Next {
        match self.due(runs) {
            None => Next::Never,
            Some(_) if runs.running => Next::AfterRunning,
            Some(due) if due <= now => Next::Now,
            Some(due) => Next::At(due),
        }
    }

    /// The first time after the last refresh, with the cache's own delay.
    fn due(&self, runs: Runs<'_>) -> Option<Timestamp> {
        let (time, period) = match &self.when {
            When::Interval(interval) => (runs.last.checked_add(*interval).ok()?, *interval),
            When::Cron(cron, zone) => {
                let last = runs.last.to_zoned(zone.clone());
                let first: Zoned = cron.find_next_occurrence(&last, false).ok()?;
                let period = cron
                    .find_next_occurrence(&first, false)
                    .map_or(SignedDuration::MAX, |second| {
                        second.timestamp().duration_since(first.timestamp())
                    });
                (first.timestamp(), period)
            }
        };
        time.checked_add(jitter(runs.uid, period)).ok()
    }
}

fn parse(expression: &str) -> Result<Cron, ScheduleError> {
    let wrong = |problem: &str| ScheduleError::Expression {
        expression: crate::message::cut(expression, MAX_EXPRESSION_LEN),
        problem: problem.to_owned(),
    };
    if expression.len() > MAX_EXPRESSION_LEN {
        return Err(wrong("more than 200 characters"));
    }
    let nickname = expression.trim().starts_with('@');
    if !nickname && expression.split_whitespace().count() != 5 {
        return Err(wrong(
            "five fields are expected: minute, hour, day of the month, month, day of the week",
        ));
    }
    CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(expression)
        .map_err(|error| wrong(&error.to_string()))
}

/// The same for a cache at all times: a share of a tenth of the period, whole seconds.
fn jitter(uid: &str, period: SignedDuration) -> SignedDuration {
    let longest = (period.as_secs() / 10).clamp(0, MAX_JITTER.as_secs() as i64);
    let hash = Sha256::digest(uid.as_bytes());
    let share = hash
        .iter()
        .take(4)
        .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    // At most 32 bits times 300: no overflow.
    let seconds = (share * longest.unsigned_abs()) >> 32;
    SignedDuration::from_secs(seconds as i64)
}

#[cfg(test)]
mod tests;
