//! When a refresh or a purge is finished.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use larder_api::image_cache_status::{PurgeStatus, RefreshResult, RefreshStatus};
use larder_api::node_image_cache::{CacheOnNode, Desired, ImageOnNode, ImageState, NodeState};

use super::nodes::{NodeReport, Overview};
use super::{ReportInput, images};
use crate::plan::{CONFIRM_AFTER, asked_at, saturating, whole_seconds};

/// The last refresh: finished once every workable node has done what it can.
pub(super) fn refresh(input: &ReportInput<'_>, overview: &Overview<'_>) -> Option<RefreshStatus> {
    let mut refresh = input.previous.last_refresh.clone()?;
    let stands_still =
        input.resolving || !overview.current || input.cache.metadata.deletion_timestamp.is_some();
    if refresh.finished_at.is_some() || stands_still {
        return Some(refresh);
    }
    let asked = asked_at(&refresh);
    if overview
        .workable()
        .all(|n| n.settled && is_confirmed(input, n, asked.as_ref()))
    {
        let failed = !input.unresolved.is_empty()
            || !input.wanted.invalid.is_empty()
            || input.sources.iter().any(|s| !s.ready)
            || overview.workable().any(|n| !n.is_ready());
        refresh.finished_at = Some(MicroTime(input.now));
        refresh.finished_token = Some(refresh.token.clone());
        refresh.result = Some(if failed {
            RefreshResult::Failed
        } else {
            RefreshResult::Succeeded
        });
    }
    Some(refresh)
}

/// Whether what a node says is as late as a refresh asks for. For a Ready node by the rule of the plan, which may not
/// have come to set `verifyAfter` yet.
fn is_confirmed(input: &ReportInput<'_>, node: &NodeReport<'_>, asked: Option<&Time>) -> bool {
    let Some(asked) = asked else {
        return true;
    };
    if !node.is_ready() {
        // What failed before the refresh is tried again at once: the refresh waits for the outcome. What cannot be tried,
        // such as an image for which the disk has no room, has none.
        let failed = |i: &&&ImageOnNode| i.state == ImageState::Failed && i.attempts > 0;
        let mut since = node
            .view
            .images
            .iter()
            .filter(failed)
            .filter_map(|i| i.since.as_ref());
        return node.overdue || since.all(|since| since >= asked);
    }
    let undigested = images::images(input).iter().any(|i| i.digest.is_none());
    if node.view.watched && !undigested {
        return true;
    }
    let Some(checked) = node.current.and_then(|o| o.checked_at.as_ref()) else {
        return true;
    };
    if !undigested {
        return checked.0 >= saturating(asked.0, -CONFIRM_AFTER);
    }
    let was_asked = node.view.claim.and_then(|c| c.verify_after.as_ref()) >= Some(asked);
    checked > asked || (checked == asked && was_asked)
}

/// The last purge: finished once every node that can be reached has removed what it had.
pub(super) fn purge(input: &ReportInput<'_>) -> Option<PurgeStatus> {
    let mut purge = input.previous.last_purge.clone()?;
    if !purge.in_force || purge.finished_at.is_some() {
        return Some(purge);
    }
    let mut done: Vec<&CacheOnNode> = Vec::new();
    for node in &input.nodes {
        let Some(claim) = node.claim else { continue };
        let purged = node
            .on_node
            .as_deref()
            .filter(|o| claim.desired == Desired::Absent && o.state == NodeState::Purged);
        match purged {
            Some(on_node) => done.push(on_node),
            // A claim that is still Present will be turned.
            None if node.facts.ready => return Some(purge),
            None => {}
        }
    }
    let sum = |count: fn(&CacheOnNode) -> i32| done.iter().map(|o| count(o)).fold(0, i32::saturating_add);
    purge.removed = sum(|o| o.removed);
    purge.in_use = sum(|o| o.in_use);
    purge.foreign = sum(|o| o.foreign);
    purge.shared = sum(|o| o.shared);
    purge.finished_at = Some(Time(whole_seconds(input.now)));
    purge.finished_token = Some(purge.token.clone());
    Some(purge)
}
