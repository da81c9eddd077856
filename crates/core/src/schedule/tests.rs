use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn runs(last: &str) -> Runs<'_> {
    Runs {
        uid: "3f0e8a1c-uid",
        last: at(last),
        running: false,
    }
}

/// The times without a cache's own delay, from `start` to `end`.
fn times(schedule: &Schedule, start: &str, end: &str) -> Vec<String> {
    let When::Cron(cron, zone) = &schedule.when else {
        unreachable!("a cron schedule")
    };
    let mut times = Vec::new();
    let mut last = at(start).to_zoned(zone.clone());
    loop {
        last = cron.find_next_occurrence(&last, false).unwrap();
        if last.timestamp() >= at(end) {
            return times;
        }
        times.push(last.timestamp().to_string());
    }
}

fn berlin(expression: &str) -> Schedule {
    Schedule::cron(expression, Some("Europe/Berlin")).unwrap()
}

#[test]
fn an_interval_counts_from_the_beginning_of_the_last_refresh() {
    let schedule = Schedule::every(Duration::from_hours(1)).unwrap();
    let Next::At(due) = schedule.next(runs("2026-01-01T00:00:00Z"), at("2026-01-01T00:30:00Z")) else {
        unreachable!("it is to come")
    };
    assert!((at("2026-01-01T01:00:00Z")..=at("2026-01-01T01:05:00Z")).contains(&due));
    let again = schedule.next(runs("2026-01-01T00:00:00Z"), at("2026-01-01T00:59:00Z"));
    assert_eq!(again, Next::At(due), "it does not move as time goes by");
    assert_eq!(schedule.next(runs("2026-01-01T00:00:00Z"), due), Next::Now);
}

#[test]
fn missed_refreshes_are_made_up_for_by_one() {
    let now = "2026-03-10T12:00:00Z";
    for schedule in [
        Schedule::every(Duration::from_hours(1)).unwrap(),
        berlin("0 3 * * *"),
    ] {
        assert_eq!(schedule.next(runs("2026-03-01T00:00:00Z"), at(now)), Next::Now);
        assert!(matches!(schedule.next(runs(now), at(now)), Next::At(due) if due > at(now)));
    }
}

#[test]
fn none_begins_while_one_runs() {
    let schedule = Schedule::every(MIN_INTERVAL).unwrap();
    let running = Runs {
        running: true,
        ..runs("2026-01-01T00:00:00Z")
    };
    assert_eq!(
        schedule.next(running, at("2026-01-01T00:00:30Z")),
        Next::AfterRunning
    );
    assert_eq!(
        schedule.next(running, at("2026-01-01T09:00:00Z")),
        Next::AfterRunning
    );
}

#[test]
fn a_refresh_by_hand_shortly_after_the_hour_stands_for_the_one_put_off() {
    let next = berlin("0 3 * * *").next(runs("2026-01-01T02:00:01Z"), at("2026-01-01T02:03:00Z"));
    assert!(matches!(next, Next::At(due) if due >= at("2026-01-02T02:00:00Z")));
}

#[test]
fn summer_time_begins_in_berlin() {
    // On 29 March 2026 the clocks go from 02:00 to 03:00, which is 01:00 UTC.
    let (from, to) = ("2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z");
    assert_eq!(
        times(&berlin("30 2 * * *"), from, to),
        [
            "2026-03-28T01:30:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-30T00:30:00Z"
        ],
        "half past two does not exist that night: the first minute after the gap"
    );
    assert_eq!(
        times(&berlin("0 3 * * *"), from, to),
        [
            "2026-03-28T02:00:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-30T01:00:00Z"
        ]
    );
    assert_eq!(
        times(
            &berlin("*/30 * * * *"),
            "2026-03-29T00:29:00Z",
            "2026-03-29T01:31:00Z"
        ),
        [
            "2026-03-29T00:30:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-29T01:30:00Z"
        ]
    );
}

#[test]
fn of_several_times_of_the_day_the_one_in_the_gap_is_left_out() {
    assert_eq!(
        times(
            &berlin("0 2,14 * * *"),
            "2026-03-28T13:30:00Z",
            "2026-03-30T00:30:00Z"
        ),
        ["2026-03-29T12:00:00Z", "2026-03-30T00:00:00Z"]
    );
}

#[test]
fn summer_time_ends_in_berlin() {
    // On 25 October 2026 the clocks go from 03:00 back to 02:00, which is 01:00 UTC.
    let (from, to) = ("2026-10-24T00:00:00Z", "2026-10-27T00:00:00Z");
    assert_eq!(
        times(&berlin("30 2 * * *"), from, to),
        [
            "2026-10-24T00:30:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-26T01:30:00Z"
        ],
        "half past two comes twice that night: the first time only"
    );
    assert_eq!(
        times(
            &berlin("*/30 * * * *"),
            "2026-10-24T23:59:00Z",
            "2026-10-25T02:01:00Z"
        ),
        [
            "2026-10-25T00:00:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T01:30:00Z",
            "2026-10-25T02:00:00Z"
        ]
    );
}

#[test]
fn schedules_are_in_utc_unless_a_zone_is_named() {
    let utc = Schedule::cron("0 3 * * *", None).unwrap();
    assert_eq!(
        times(&utc, "2026-07-01T00:00:00Z", "2026-07-02T00:00:00Z"),
        ["2026-07-01T03:00:00Z"]
    );
    assert_eq!(
        times(
            &Schedule::cron("@daily", Some("Asia/Kolkata")).unwrap(),
            "2026-07-01T00:00:00Z",
            "2026-07-02T00:00:00Z"
        ),
        ["2026-07-01T18:30:00Z"]
    );
    assert_eq!(
        times(
            &Schedule::cron("0 0 29 FEB *", None).unwrap(),
            "2026-01-01T00:00:00Z",
            "2030-01-01T00:00:00Z"
        ),
        ["2028-02-29T00:00:00Z"]
    );
}

#[test]
fn refusals_say_what_is_wrong() {
    for (expression, zone, message) in [
        (
            "* * * *",
            None,
            "refresh.schedule \"* * * *\": five fields are expected: minute, hour, day of the month, month, day of the week",
        ),
        (
            "0 * * * * *",
            None,
            "refresh.schedule \"0 * * * * *\": five fields are expected: minute, hour, day of the month, month, day of the week",
        ),
        (
            "0 3 * * *",
            Some("Europe/Atlantis"),
            "refresh.timeZone \"Europe/Atlantis\" is not a time zone; an example is Europe/Berlin",
        ),
        ("0 0 30 2 *", None, "refresh.schedule \"0 0 30 2 *\" fits no date"),
    ] {
        let error = Schedule::cron(expression, zone).map_err(|e| e.to_string());
        assert_eq!(error.err().as_deref(), Some(message));
    }
    for expression in ["61 * * * *", "a b c d e", "@reboot", "", "TZ=UTC * * * *"] {
        let error = Schedule::cron(expression, None);
        assert!(
            matches!(error, Err(ScheduleError::Expression { .. })),
            "{expression}"
        );
    }
    for seconds in [0, 59, 720 * 3600 + 1] {
        let refused = Schedule::every(Duration::from_secs(seconds));
        assert_eq!(refused.err(), Some(ScheduleError::Interval));
    }
}

#[test]
fn caches_spread_over_a_tenth_of_the_interval_and_five_minutes_at_most() {
    for (interval, longest) in [(60, 6), (600, 60), (3000, 300), (86_400, 300)] {
        let delays: Vec<i64> = (0..1000)
            .map(|n| jitter(&format!("uid-{n}"), SignedDuration::from_secs(interval)).as_secs())
            .collect();
        assert!(delays.iter().all(|delay| (0..=longest).contains(delay)));
        for tenth in 0..longest.min(10) {
            let share = |delay: &&i64| **delay * 10 / longest == tenth;
            let caches = delays.iter().filter(share).count();
            assert!(
                caches > 40 || longest < 10,
                "{caches} of 1000 in tenth {tenth} of {longest} s"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn refreshes_come_at_least_so_far_apart_and_never_early(
        minutes in 1_u64..43_200, start in 0_i64..4_000_000_000, uid in any::<String>(),
    ) {
        let interval = Duration::from_mins(minutes);
        let schedule = Schedule::every(interval).unwrap();
        let last = Timestamp::from_second(start).unwrap();
        let known = Runs { uid: &uid, last, running: false };
        let Next::At(due) = schedule.next(known, last) else {
            return Err(TestCaseError::fail("it is to come"));
        };
        let waited = Duration::try_from(due.duration_since(last)).unwrap();
        prop_assert!(waited >= interval && waited <= interval + MAX_JITTER.min(interval / 10));
    }

    #[test]
    fn arbitrary_expressions_never_panic(expression in "\\PC{0,40}|[0-9*/,@LW# -]{0,30}", zone in any::<Option<String>>()) {
        let _ = Schedule::cron(&expression, zone.as_deref());
    }

    #[test]
    fn each_fitting_minute_is_refreshed_once(
        minute in 0_u8..60, step in 1_u8..24, start in 1_700_000_000_i64..2_000_000_000, uid in any::<String>(),
    ) {
        // Beginning each refresh when it is due gives the same as the bare expression, only later by one delay.
        let schedule = berlin(&format!("{minute} */{step} * * *"));
        let mut last = Timestamp::from_second(start).unwrap();
        let end = last.checked_add(SignedDuration::from_hours(72)).unwrap();
        let bare = times(&schedule, &last.to_string(), &end.to_string());
        for expected in bare {
            let Next::At(due) = schedule.next(Runs { uid: &uid, last, running: false }, last) else {
                return Err(TestCaseError::fail("it is to come"));
            };
            let late = due.duration_since(at(&expected));
            prop_assert!(!late.is_negative() && late <= SignedDuration::try_from(MAX_JITTER).unwrap());
            last = due;
        }
    }
}
