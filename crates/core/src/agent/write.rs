//! Whether and when the status is written.

use jiff::{SignedDuration, Timestamp};
use larder_api::names::condition::RUNTIME_READY;
use larder_api::node_image_cache::{AgentStatus, PullerStatus};

use super::types::AgentInput;
use crate::node::{FIRST_PROGRESS, PROGRESS, Write, milestones};
use crate::plan::saturating;

/// At once where a state, a failure or a result changed, or where another agent wrote last; mere progress after ten
/// seconds, then as often as the node's limits allow; nothing where nothing changed. `awaited` says that pods are to pull
/// something, and wait for the generation: see [`crate::node::decide`].
pub(super) fn worth_writing(input: &AgentInput<'_>, awaited: bool, next: &AgentStatus) -> Write {
    let Some(previous) = input.previous else {
        return Write::Now;
    };
    let same = AgentStatus {
        puller: PullerStatus {
            observed_generation: previous.puller.observed_generation,
            ..next.puller.clone()
        },
        ..next.clone()
    } == *previous;
    if awaited && previous.puller.observed_generation < next.puller.observed_generation {
        return Write::Now;
    }
    if same {
        // A newer generation that changes nothing here is not worth a write.
        return Write::No;
    }
    let news = previous.pod_uid != next.pod_uid
        || previous.puller.node_uid != next.puller.node_uid
        || previous.runtime != next.runtime
        || previous.capabilities != next.capabilities
        || is_ready(previous) != is_ready(next)
        || milestones(&previous.puller) != milestones(&next.puller);
    if news {
        return Write::Now;
    }
    let every = input.spec.limits.as_ref().map_or(PROGRESS, |l| {
        SignedDuration::from_secs(l.report_seconds.into()).max(PROGRESS)
    });
    let begun = input
        .spec
        .caches
        .iter()
        .map(|c| c.assigned_at.0)
        .max()
        .unwrap_or(Timestamp::MIN);
    let first = saturating(begun, FIRST_PROGRESS);
    let at = first.max(input.written_at.map_or(first, |w| saturating(w, every)));
    if at <= input.now {
        Write::Now
    } else {
        Write::At(at)
    }
}

fn is_ready(status: &AgentStatus) -> Option<&str> {
    let conditions = status.conditions.iter();
    conditions
        .filter(|c| c.type_ == RUNTIME_READY)
        .map(|c| c.status.as_str())
        .next()
}
