//! Cron expressions and time zones.
#![no_main]

use larder_core::schedule::Schedule;
use larder_fuzz::{parts, text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [expression, time_zone] = parts(input).map(text);
    let _ = Schedule::cron(&expression, Some(&*time_zone).filter(|zone| !zone.is_empty()));
});
