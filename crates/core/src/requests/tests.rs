#![allow(clippy::unwrap_used)]

use larder_api::image_cache::RefreshSpec;

use super::*;
use crate::schedule::MAX_JITTER;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cache(refresh: RefreshSpec) -> ImageCache {
    let mut cache = ImageCache::default();
    cache.metadata.uid = Some("u1".into());
    cache.metadata.creation_timestamp = Some(Time(at("2026-03-27T12:00:00Z")));
    cache.spec.refresh = Some(refresh);
    cache
}

fn hourly() -> RefreshSpec {
    serde_json::from_value(serde_json::json!({"interval": "1h"})).unwrap()
}

fn nightly() -> RefreshSpec {
    RefreshSpec {
        schedule: Some("0 3 * * *".into()),
        time_zone: Some("Europe/Berlin".into()),
        ..RefreshSpec::default()
    }
}

#[test]
fn each_of_the_two_ways_begins_a_refresh_of_its_own_name_and_only_one() {
    for (refresh, trigger) in [
        (hourly(), RefreshTrigger::Interval),
        (nightly(), RefreshTrigger::Schedule),
    ] {
        let mut cache = cache(refresh);
        let made = at("2026-03-27T12:00:00Z");
        let asked = read(&cache, "h", made);
        assert_eq!(asked.last_refresh, None);
        let due = asked.wake_at.unwrap();
        let asked = read(&cache, "h", due);
        let begun = asked.last_refresh.clone().unwrap();
        assert_eq!(
            (begun.trigger, begun.requested_at.clone()),
            (trigger, Some(MicroTime(due)))
        );
        assert!(!asked.accepted, "nobody waits for a record of it");

        let status = cache.status.get_or_insert_default();
        status.last_refresh = Some(begun.clone());
        let much_later = at("2026-04-27T12:00:00Z");
        assert_eq!(
            read(&cache, "h", much_later).last_refresh,
            Some(begun.clone()),
            "one at a time"
        );
        assert_eq!(read(&cache, "h", much_later).wake_at, None);

        let last = cache.status.as_mut().unwrap().last_refresh.as_mut().unwrap();
        last.finished_at = Some(MicroTime(due));
        let asked = read(&cache, "h", much_later);
        let caught_up = asked.last_refresh.unwrap();
        assert_eq!(
            caught_up.requested_at,
            Some(MicroTime(much_later)),
            "what was missed is made up for"
        );
        let last = cache.status.as_mut().unwrap().last_refresh.as_mut().unwrap();
        *last = RefreshStatus {
            finished_at: Some(MicroTime(much_later)),
            ..caught_up
        };
        let next = read(&cache, "h", much_later);
        assert!(next.wake_at.unwrap() > much_later, "once");
    }
}

#[test]
fn a_night_is_of_the_time_zone_also_when_the_clocks_change() {
    let cache = cache(nightly());
    let jitter = |due: Timestamp, exactly: &str| {
        let late = due.duration_since(at(exactly)).unsigned_abs();
        assert!(due >= at(exactly) && late <= MAX_JITTER, "{due} for {exactly}");
    };
    jitter(
        read(&cache, "h", at("2026-03-27T12:00:00Z")).wake_at.unwrap(),
        "2026-03-28T02:00:00Z",
    );
    let mut later = cache;
    // The clocks go forward in the night to the 29th.
    later.metadata.creation_timestamp = Some(Time(at("2026-03-29T12:00:00Z")));
    jitter(
        read(&later, "h", at("2026-03-29T12:00:00Z")).wake_at.unwrap(),
        "2026-03-30T01:00:00Z",
    );
}

#[test]
fn nothing_is_begun_while_suspended_purged_or_unreadable() {
    let now = at("2026-04-27T12:00:00Z");
    let mut suspended = cache(hourly());
    suspended.spec.suspend = true;
    let mut purged = cache(hourly());
    purged.status.get_or_insert_default().last_purge = Some(PurgeStatus {
        in_force: true,
        images_hash: "h".into(),
        ..PurgeStatus::default()
    });
    let mut wrong = nightly();
    wrong.time_zone = Some("Europe/Atlantis".into());
    let mut nonsense = nightly();
    nonsense.schedule = Some("every night".into());
    for cache in [suspended, purged, cache(wrong), cache(nonsense)] {
        let asked = read(&cache, "h", now);
        assert_eq!(
            (asked.last_refresh, asked.wake_at),
            (None, None),
            "{:?}",
            cache.spec.refresh
        );
    }
}

#[test]
fn a_refresh_that_a_clock_ahead_began_is_of_now_and_one_that_is_over_stays_as_it_was() {
    let now = at("2026-03-27T13:00:00Z");
    let mut cache = cache(RefreshSpec::default());
    for (finished, requested, read_as) in [
        (None, "2026-03-27T14:00:00Z", "2026-03-27T13:00:00Z"),
        (None, "2026-03-27T12:00:00Z", "2026-03-27T12:00:00Z"),
        (Some(now), "2026-03-27T14:00:00Z", "2026-03-27T14:00:00Z"),
    ] {
        let mut refresh = begin("T".into(), RefreshTrigger::Annotation, at(requested));
        refresh.finished_at = finished.map(MicroTime);
        cache.status.get_or_insert_default().last_refresh = Some(refresh.clone());
        refresh.requested_at = Some(MicroTime(at(read_as)));
        assert_eq!(read(&cache, "h", now).last_refresh, Some(refresh), "{requested}");
    }
}
