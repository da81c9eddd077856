//! Cron expressions and time zones.
#![no_main]

use larder_core::schedule::Schedule;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, Option<&str>)| {
    let (expression, time_zone) = input;
    let _ = Schedule::cron(expression, time_zone);
});
