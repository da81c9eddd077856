//! What the status says of each Present claim.

mod held;
mod image;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::Puller;
use larder_api::names::Reason;
use larder_api::node_image_cache::{CacheOnNode, DiskOnNode, ImageOnNode, ImageState, NodeState};

use super::pulls::Pulls;
use super::scope::Scope;
use super::wanted::{Claimed, Whose};
use crate::format;
use crate::pull::bits;
use held::held;
use image::{image, no_platform, report};

/// What is said of one claim.
pub(super) struct Said {
    /// None if the agent has nothing to do with it.
    pub(super) on_node: Option<CacheOnNode>,
    pub(super) images: Vec<ImageOnNode>,
    /// It waits for no image.
    pub(super) settled: bool,
}

#[derive(Default)]
struct Counts {
    ours: i32,
    ready: i32,
    skipped: i32,
    failed: i32,
    pulling: i32,
    waiting: i32,
    /// Compressed, of what is there.
    bytes: i64,
    /// Compressed, of what has arrived of what is not.
    arrived: i64,
    /// Compressed, of all; none once one is unknown.
    all: Option<i64>,
}

impl Counts {
    fn whole(&self) -> bool {
        self.failed + self.pulling + self.waiting == 0
    }
}

/// Says it. `disk` is what the status says of the disk.
pub(super) fn say(
    scope: &Scope<'_>,
    claimed: &Claimed<'_>,
    pulls: &Pulls<'_>,
    disk: Option<&DiskOnNode>,
) -> Said {
    let Some(revision) = claimed.revision else {
        return unreadable(scope, claimed);
    };
    let claim = claimed.claim;
    let cache = claimed.cache();
    let mut counts = Counts {
        all: Some(0),
        ..Counts::default()
    };
    let mut images = Vec::new();
    let mut missing = Vec::new();
    let mut reported = Vec::new();
    for wish in &claimed.images {
        let key = match wish.whose {
            Whose::Kubelets => {
                missing.push(true);
                continue;
            }
            Whose::Nobodys => None,
            Whose::Agents(key) => Some(key),
        };
        counts.ours += 1;
        let entry = match key {
            None => Some(no_platform(scope, claimed, &cache, wish.image)),
            Some(key) => image(scope, claimed, &cache, wish, key, pulls, disk, &mut counts),
        };
        missing.push(entry.is_some());
        if let Some(entry) = entry {
            *counts.of(entry.state) += 1;
            images.push(entry);
        } else {
            counts.ready += 1;
            reported.extend(key.and_then(|key| report(scope, wish.image, key)));
        }
    }
    let settled = counts.pulling + counts.waiting == 0;
    if counts.ours == 0 {
        return Said {
            on_node: remains(scope, claimed, missing),
            images,
            settled,
        };
    }
    let (state, message) = state(claimed, &counts);
    let previous = scope.previous(&claim.uid);
    let same_revision = previous.is_some_and(|p| p.revision == claim.revision);
    let since = previous
        .filter(|p| p.state == state && same_revision)
        .and_then(|p| p.since.clone());
    let on_node = CacheOnNode {
        namespace: claim.namespace.clone(),
        name: claim.name.clone(),
        uid: claim.uid.clone(),
        revision: claim.revision.clone(),
        held: held(scope, claimed, revision, (counts.whole(), settled)),
        state,
        reason: None,
        message,
        since: since.or(Some(Time(scope.input.now))),
        ready: counts.ready,
        total: counts.ours - counts.skipped,
        skipped: counts.skipped,
        missing: bits::encode(&missing),
        bytes: counts.bytes,
        checked_at: checked_at(scope, claimed, counts.whole()),
        reported,
        ..removals(previous, claimed)
    };
    Said {
        on_node: Some(on_node),
        images,
        settled,
    }
}

impl Counts {
    fn of(&mut self, state: ImageState) -> &mut i32 {
        match state {
            ImageState::Failed => &mut self.failed,
            ImageState::Waiting => &mut self.waiting,
            ImageState::Skipped => &mut self.skipped,
            ImageState::Pulling => &mut self.pulling,
        }
    }
}

fn state(claimed: &Claimed<'_>, counts: &Counts) -> (NodeState, String) {
    if counts.whole() {
        return (NodeState::Ready, String::new());
    }
    let idle = counts.pulling == 0;
    if counts.failed > 0 && idle && (counts.waiting == 0 || claimed.settings.suspend) {
        let noun = if counts.failed == 1 { "image" } else { "images" };
        return (NodeState::Failed, format!("{} {noun} failed", counts.failed));
    }
    if claimed.settings.suspend && idle {
        return (NodeState::Waiting, "suspended".to_owned());
    }
    let mut message = format!("{} of {} images", counts.ready, counts.ours - counts.skipped);
    if let Some(all) = counts.all {
        message = format!("{message}, {}", progress(counts.bytes + counts.arrived, all));
    }
    (NodeState::Pulling, message)
}

/// `110 of 300 MiB`, or `900 MiB of 3.0 GiB`.
fn progress(done: i64, all: i64) -> String {
    let (done, all) = (format::bytes(done), format::bytes(all));
    match (done.split_once(' '), all.split_once(' ')) {
        (Some((number, unit)), Some((_, other))) if unit == other => format!("{number} of {all}"),
        _ => format!("{done} of {all}"),
    }
}

/// When all was last confirmed: it is at every look, but only what a refresh asks for is written.
fn checked_at(scope: &Scope<'_>, claimed: &Claimed<'_>, whole: bool) -> Option<Time> {
    let previous = scope.previous(&claimed.claim.uid);
    let same = previous.filter(|p| p.revision == claimed.claim.revision);
    let before = same.and_then(|p| p.checked_at.clone());
    if !whole {
        return before;
    }
    let after = claimed.claim.verify_after.as_ref().map(|t| t.0);
    let stays = same.is_some_and(|p| p.state == NodeState::Ready)
        && before
            .as_ref()
            .is_some_and(|b| after.is_none_or(|after| b.0 >= after));
    // The clock that asks may be ahead of this one.
    let now = after.map_or(scope.input.now, |after| after.max(scope.input.now));
    before.filter(|_| stays).or(Some(Time(now)))
}

/// The results of earlier removals stay as they are.
fn removals(previous: Option<&CacheOnNode>, claimed: &Claimed<'_>) -> CacheOnNode {
    let mut on_node = previous.cloned().unwrap_or_default();
    if claimed.claim.remove_revisions.is_empty() {
        // Called off: what went wrong with it concerns nobody.
        on_node.removal_error.clear();
        on_node.removal_error_at = None;
    }
    on_node
        .removed_revisions
        .retain(|r| claimed.claim.remove_revisions.contains(r));
    on_node
}

/// A claim that the agent only removes for, if that.
fn remains(scope: &Scope<'_>, claimed: &Claimed<'_>, missing: Vec<bool>) -> Option<CacheOnNode> {
    let claim = claimed.claim;
    if claim.remove_revisions.is_empty() {
        return None;
    }
    let previous = scope.previous(&claim.uid);
    let since = previous
        .filter(|p| p.state == NodeState::Ready && p.revision == claim.revision)
        .and_then(|p| p.since.clone());
    let past = removals(previous, claimed);
    Some(CacheOnNode {
        namespace: claim.namespace.clone(),
        name: claim.name.clone(),
        uid: claim.uid.clone(),
        revision: claim.revision.clone(),
        state: NodeState::Ready,
        since: since.or(Some(Time(scope.input.now))),
        missing: bits::encode(&missing),
        removed_revisions: past.removed_revisions,
        removed: past.removed,
        in_use: past.in_use,
        foreign: past.foreign,
        shared: past.shared,
        removal_error: past.removal_error,
        removal_error_at: past.removal_error_at,
        ..CacheOnNode::default()
    })
}

/// What the node holds of it is left alone, and so is what is known of that.
fn unreadable(scope: &Scope<'_>, claimed: &Claimed<'_>) -> Said {
    let claim = claimed.claim;
    let previous = scope.previous(&claim.uid);
    if claim.puller == Puller::Job && previous.is_none() {
        return Said {
            on_node: None,
            images: Vec::new(),
            settled: false,
        };
    }
    let mut on_node = removals(previous, claimed);
    on_node.namespace.clone_from(&claim.namespace);
    on_node.name.clone_from(&claim.name);
    on_node.uid.clone_from(&claim.uid);
    if on_node.reason != Some(Reason::RevisionMissing) {
        on_node.since = Some(Time(scope.input.now));
    }
    on_node.state = NodeState::Failed;
    on_node.reason = Some(Reason::RevisionMissing);
    on_node.message = format!("revision {} cannot be read", claim.revision);
    let cache = claimed.cache();
    let listed = scope.input.previous.iter().flat_map(|p| &p.puller.images);
    Said {
        on_node: Some(on_node),
        images: listed.filter(|i| i.cache == cache).cloned().collect(),
        settled: false,
    }
}
