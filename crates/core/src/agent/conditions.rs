//! The agent's conditions.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use larder_api::names::condition::{PROTECTED, RUNTIME_READY};

use crate::message::{redact, shorten};

/// Longest message, in characters.
const MAX_WORDS: usize = 256;

/// Whether the runtime answers; the error in words where it does not.
pub(super) fn runtime_ready(
    before: &[Condition],
    generation: i64,
    now: Timestamp,
    answer: Result<(), &str>,
) -> Condition {
    let (status, reason, message) = match answer {
        Ok(()) => ("True", "Answers", String::new()),
        Err(words) => ("False", "Unreachable", shorten(&redact(words), MAX_WORDS)),
    };
    condition(before, RUNTIME_READY, generation, now, (status, reason, message))
}

/// Whether pins hold. `open` pins are still to be set.
pub(super) fn protected(
    before: &[Condition],
    generation: i64,
    now: Timestamp,
    can_pin: bool,
    open: usize,
) -> Condition {
    let said = if !can_pin {
        let message = "the runtime lets nobody pin images: garbage collection may take them";
        ("False", "NotSupported", message.to_owned())
    } else if open > 0 {
        let noun = if open == 1 { "image is" } else { "images are" };
        ("False", "NotPinned", format!("{open} {noun} not pinned yet"))
    } else {
        ("True", "Pinned", String::new())
    };
    condition(before, PROTECTED, generation, now, said)
}

fn condition(
    before: &[Condition],
    type_: &str,
    generation: i64,
    now: Timestamp,
    (status, reason, message): (&str, &str, String),
) -> Condition {
    let before = before.iter().find(|c| c.type_ == type_);
    let same = before.filter(|c| c.status == status);
    let unchanged = same.filter(|c| c.reason == reason && c.message == message);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: same.map_or(Time(now), |c| c.last_transition_time.clone()),
        // A newer generation that changes nothing is not worth a write.
        observed_generation: unchanged.map_or(Some(generation), |c| c.observed_generation),
    }
}
