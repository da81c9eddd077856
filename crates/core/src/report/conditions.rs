//! The five conditions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use larder_api::ImageCacheStatus;
use larder_api::image_cache::Resolve;
use larder_api::image_cache_status::SourceStatus;
use larder_api::names::condition::{ACCEPTED, DEGRADED, PROGRESSING, READY, RESOLVED};
use larder_api::node_image_cache::{Desired, NodeState};

use super::ReportInput;
use super::drift::{self, DIGESTS_DIFFER, Drift};
use super::failures::{need_a_person, removal_failed};
use super::images::{bytes_on, images};
use super::nodes::Overview;
use crate::format;
use crate::message::cut;
use crate::plan::whole_seconds;
use crate::trim::MAX_CONDITION_CHARS;
use crate::{requests, sources};

/// Characters of a registry's words within a condition's message.
const WORDS_CHARS: usize = 160;
/// Images or failures that a condition names.
const NAMED: usize = 5;

/// A condition without what all have in common.
struct Verdict {
    status: &'static str,
    reason: String,
    message: String,
}

fn verdict(status: &'static str, reason: impl ToString, message: impl Into<String>) -> Verdict {
    Verdict {
        status,
        reason: reason.to_string(),
        message: message.into(),
    }
}

/// All conditions. `status` is the rest of the new status. The time of a condition is that of the last change of its
/// status.
pub(super) fn all(
    input: &ReportInput<'_>,
    overview: &Overview<'_>,
    status: &ImageCacheStatus,
) -> Vec<Condition> {
    let verdicts = [
        (ACCEPTED, accepted(input)),
        (RESOLVED, resolved(input, overview, status)),
        (READY, ready(input, overview, status)),
        (PROGRESSING, progressing(input, overview, status)),
        (DEGRADED, degraded(input, overview, status)),
    ];
    verdicts
        .into_iter()
        .map(|(kind, verdict)| {
            let before = input
                .previous
                .conditions
                .iter()
                .find(|c| c.type_ == kind && c.status == verdict.status);
            Condition {
                type_: kind.to_owned(),
                status: verdict.status.to_owned(),
                reason: verdict.reason,
                message: cut(&verdict.message, MAX_CONDITION_CHARS),
                observed_generation: input.cache.metadata.generation,
                last_transition_time: before.map_or_else(
                    || Time(whole_seconds(input.now)),
                    |c| c.last_transition_time.clone(),
                ),
            }
        })
        .collect()
}

fn accepted(input: &ReportInput<'_>) -> Verdict {
    if !input.wanted.invalid.is_empty() {
        let list = input
            .wanted
            .invalid
            .iter()
            .map(|(image, error)| format!("{}: {error}", cut(image, WORDS_CHARS)));
        return verdict(
            "False",
            "InvalidReference",
            name_some(list, input.wanted.invalid.len()),
        );
    }
    if let Some((reason, message)) = refused(input) {
        return verdict("False", reason, message);
    }
    if !input.wanted.folded.is_empty() {
        let list = input
            .wanted
            .folded
            .iter()
            .map(|(kept, folded)| format!("{folded} is the same image as {kept}"));
        return verdict(
            "True",
            "DuplicateReferences",
            name_some(list, input.wanted.folded.len()),
        );
    }
    verdict("True", "Valid", "")
}

/// What the spec asks for and does not get, though its images are cached: sources that are others' to read, and
/// refreshes at times that there are not.
fn refused(input: &ReportInput<'_>) -> Option<(&'static str, String)> {
    let denied = sources::denied(input.cache);
    if !denied.is_empty() {
        let list = denied
            .iter()
            .map(|(source, words)| format!("source {source}: {words}"));
        return Some(("PolicyDenied", name_some(list, denied.len())));
    }
    let error = requests::schedule(&input.cache.spec)?.err()?;
    Some(("InvalidSchedule", error.to_string()))
}

fn resolved(input: &ReportInput<'_>, overview: &Overview<'_>, status: &ImageCacheStatus) -> Verdict {
    let failing: Vec<_> = failing_sources(input).collect();
    let reasons = failing.iter().map(|s| s.reason.clone());
    if let Some(first) = reasons
        .chain(input.unresolved.iter().map(|u| u.reason.to_string()))
        .next()
    {
        let sources = failing.iter().map(|s| {
            format!(
                "source {}: {}: {}",
                s.name,
                s.reason,
                cut(&s.message, WORDS_CHARS)
            )
        });
        let references = input
            .unresolved
            .iter()
            .map(|u| format!("{}: {}: {}", u.image, u.reason, cut(&u.message, WORDS_CHARS)));
        let count = failing.len() + input.unresolved.len();
        return verdict("False", first, name_some(sources.chain(references), count));
    }
    let drifted = drifted(overview, status);
    if !drifted.is_empty() {
        let list = drifted.iter().map(ToString::to_string);
        return verdict("False", DIGESTS_DIFFER, name_some(list, drifted.len()));
    }
    if input.cache.spec.resolve == Resolve::OnNode {
        return verdict(
            "True",
            "OnNode",
            "each node resolves the references when it pulls",
        );
    }
    if input.resolving || !overview.current {
        return verdict("Unknown", "Resolving", "");
    }
    verdict("True", "AllResolved", "")
}

fn ready(input: &ReportInput<'_>, overview: &Overview<'_>, status: &ImageCacheStatus) -> Verdict {
    if input.cache.metadata.deletion_timestamp.is_some() {
        return verdict("False", "Deleting", "");
    }
    if let Some(purge) = status.last_purge.as_ref().filter(|p| p.in_force) {
        let reason = if purge.finished_at.is_some() {
            "Purged"
        } else {
            "Purging"
        };
        let words = "the nodes hold nothing until a refresh by annotation or a change of the images";
        return verdict("False", reason, words);
    }
    if is_refreshing(status) {
        return verdict("False", "Refreshing", "");
    }
    if !input.wanted.invalid.is_empty() {
        return verdict(
            "False",
            "InvalidReference",
            "some images cannot be asked for; Accepted names them",
        );
    }
    if overview.nodes.is_empty() {
        return verdict("True", "NoNodesSelected", "no node is selected");
    }
    let suspended = input.cache.spec.suspend;
    let (Some(newest), true) = (overview.newest, overview.current) else {
        let reason = if suspended { "Suspended" } else { "Progressing" };
        return verdict(
            "False",
            reason,
            "the revision that the spec asks for is not made yet",
        );
    };
    let workable = overview.workable().count();
    let done = overview.workable().filter(|n| n.is_ready()).count();
    let words = format!(
        "{done} of {workable} workable nodes hold revision {newest} whole{}",
        others(overview)
    );
    if workable == 0 && !overview.nodes.iter().all(|n| n.holds(Some(newest))) {
        // Nobody can say that the images are where they should be.
        return verdict("False", "NoWorkableNodes", words);
    }
    if done == workable {
        return verdict("True", "AllNodesReady", words);
    }
    let failed = overview.workable().any(|n| n.state == NodeState::Failed);
    let moving = overview
        .workable()
        .any(|n| !n.is_ready() && n.state != NodeState::Failed);
    let reason = match (failed, moving) {
        (true, false) => "NodesFailed",
        _ if suspended => "Suspended",
        _ => "Progressing",
    };
    verdict("False", reason, words)
}

/// Selected nodes that cannot be worked on.
fn others(overview: &Overview<'_>) -> String {
    let unreachable = overview
        .nodes
        .iter()
        .filter(|n| n.state == NodeState::Unreachable)
        .count();
    let held_up = overview.nodes.len() - overview.workable().count() - unreachable;
    let unreachable = (unreachable > 0).then(|| format!("; {unreachable} unreachable"));
    let held_up = (held_up > 0).then(|| format!("; {held_up} cordoned or short of disk"));
    unreachable.into_iter().chain(held_up).collect()
}

fn progressing(input: &ReportInput<'_>, overview: &Overview<'_>, status: &ImageCacheStatus) -> Verdict {
    let deleting = input.cache.metadata.deletion_timestamp.is_some();
    let purging = status
        .last_purge
        .as_ref()
        .is_some_and(|p| p.in_force && p.finished_at.is_none());
    if deleting || purging {
        let claims = || input.nodes.iter().filter(|n| n.claim.is_some());
        let purged = claims().filter(|n| {
            let absent = n.claim.is_some_and(|c| c.desired == Desired::Absent);
            absent && n.on_node.as_ref().is_some_and(|o| o.state == NodeState::Purged)
        });
        let words = format!("{}/{} nodes purged", purged.count(), claims().count());
        return verdict("True", if deleting { "Deleting" } else { "Purging" }, words);
    }
    if input.cache.spec.suspend {
        return verdict("False", "Suspended", "");
    }
    if overview.purged {
        return verdict("False", "Idle", "");
    }
    if (input.resolving || !overview.current) && !input.wanted.images.is_empty() {
        return verdict("True", "Resolving", "");
    }
    if overview.workable().any(|n| !n.settled) {
        return verdict("True", "Pulling", progress(input, overview));
    }
    if is_refreshing(status) {
        return verdict("True", "Refreshing", "");
    }
    verdict("False", "Idle", "")
}

/// `38/50 nodes, 2.1 of 3.0 GiB`, of the workable nodes and over all of them.
fn progress(input: &ReportInput<'_>, overview: &Overview<'_>) -> String {
    let (mut done, mut nodes, mut held, mut all) = (0, 0, 0_i64, 0_i64);
    for node in overview.workable() {
        nodes += 1;
        done += i32::from(node.is_ready());
        let needed = bytes_on(images(input), node.view.facts);
        let arrived = node.current.filter(|_| node.at_newest).map_or(0, |o| o.bytes);
        let under_way: i64 = node.view.images.iter().map(|i| i.bytes_done.max(0)).sum();
        let bytes = if node.at_newest {
            arrived.saturating_add(under_way)
        } else {
            0
        };
        held = held.saturating_add(bytes.clamp(0, needed));
        all = all.saturating_add(needed);
    }
    if all == 0 {
        return format!("{done}/{nodes} nodes");
    }
    let (held, all) = (format::bytes(held), format::bytes(all));
    let unit = all
        .split_once(' ')
        .map(|(_, unit)| format!(" {unit}"))
        .unwrap_or_default();
    format!(
        "{done}/{nodes} nodes, {} of {all}",
        held.strip_suffix(&unit).unwrap_or(&held)
    )
}

fn degraded(input: &ReportInput<'_>, overview: &Overview<'_>, status: &ImageCacheStatus) -> Verdict {
    let groups = status.failures.len() + status.failures_omitted as usize;
    let failures = || {
        let list = status.failures.iter().map(|f| {
            let what = if f.image.is_empty() {
                String::new()
            } else {
                format!("{}: ", f.image)
            };
            let nodes = match f.nodes {
                0 => String::new(),
                1 => " on 1 node".to_owned(),
                n => format!(" on {n} nodes"),
            };
            format!("{what}{}{nodes}: {}", f.reason, cut(&f.message, WORDS_CHARS))
        });
        name_some(list, groups)
    };
    if !input.wanted.invalid.is_empty() {
        return verdict(
            "True",
            "InvalidReference",
            "some images cannot be asked for; Accepted names them",
        );
    }
    if status.nodes.failed > 0 {
        return verdict("True", "NodesFailed", failures());
    }
    if need_a_person(input, overview) {
        return verdict("True", "ImagesFailed", failures());
    }
    if overview
        .nodes
        .iter()
        .any(|n| n.state != NodeState::Unreachable && removal_failed(n).is_some())
    {
        return verdict("True", "RemovalFailed", failures());
    }
    if let Some((reason, _)) = refused(input) {
        return verdict(
            "True",
            reason,
            "some of the spec is not carried out; Accepted says what",
        );
    }
    if let Some(first) = failing_sources(input).next() {
        return verdict(
            "True",
            &first.reason,
            "some sources could not be read; Resolved names them",
        );
    }
    if let Some(first) = input.unresolved.first() {
        return verdict(
            "True",
            first.reason,
            "some references could not be resolved; Resolved names them",
        );
    }
    if !drifted(overview, status).is_empty() {
        return verdict(
            "True",
            DIGESTS_DIFFER,
            "nodes found different digests behind one reference; Resolved names them",
        );
    }
    verdict("False", "AsExpected", "")
}

/// References for which nodes report different digests. While a refresh goes from node to node they naturally do.
fn drifted<'a>(overview: &'a Overview<'_>, status: &ImageCacheStatus) -> Vec<Drift<'a>> {
    if is_refreshing(status) {
        Vec::new()
    } else {
        drift::find(overview)
    }
}

/// Sources that were asked and not read whole.
fn failing_sources<'a>(input: &ReportInput<'a>) -> impl Iterator<Item = &'a SourceStatus> + use<'a> {
    let sources = input.sources;
    sources
        .iter()
        .filter(|s| !s.ready && s.reason != sources::reason::PENDING)
}

fn is_refreshing(status: &ImageCacheStatus) -> bool {
    status
        .last_refresh
        .as_ref()
        .is_some_and(|r| r.finished_at.is_none())
}

/// The first few of a list of `all`, and how many more there are.
fn name_some(list: impl Iterator<Item = String>, all: usize) -> String {
    let more = (all > NAMED).then(|| format!("and {} more", all - NAMED));
    list.take(NAMED).chain(more).collect::<Vec<_>>().join("; ")
}
