//! What the status says of each Present claim.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::{OnMissingPlatform, Puller};
use larder_api::names::Reason;
use larder_api::node_image_cache::{
    CacheOnNode, DiskOnNode, ImageOnNode, ImageState, NodeState, ReportedDigest,
};
use larder_api::{ImageCacheRevision, revision::RevisionImage};

use super::pulls::{Pulls, Standing};
use super::scope::Scope;
use super::types::Failed;
use super::wanted::{Claimed, Here, Key, Whose, Wish, digest_of};
use crate::choose::is_for_agent;
use crate::format;
use crate::message::{redact, shorten};
use crate::pull::{MAX_HELD, bits};

/// Longest message of an image, in characters.
const MAX_WORDS: usize = 256;

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
        held: held(scope, claimed, revision, counts.whole()),
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

/// What is said of an image that the agent should bring; none if it is there.
#[allow(clippy::too_many_arguments, reason = "each is a fact of its own")]
fn image(
    scope: &Scope<'_>,
    claimed: &Claimed<'_>,
    cache: &str,
    wish: &Wish<'_>,
    key: Key<'_>,
    pulls: &Pulls<'_>,
    disk: Option<&DiskOnNode>,
    counts: &mut Counts,
) -> Option<ImageOnNode> {
    let bytes = scope.wanted.images.get(&key).map_or(0, |w| w.bytes);
    let entry = ImageOnNode {
        cache: cache.to_owned(),
        image: wish.image.image.clone(),
        digest: wish.image.digest.clone(),
        ..ImageOnNode::default()
    };
    let mut total = bytes;
    let said = match pulls.standings.get(&key) {
        Some(Standing::Whole) => {
            counts.bytes += bytes;
            None
        }
        Some(Standing::Pulling(pull, failed)) => {
            total = pull.bytes_total.max(bytes);
            counts.arrived += pull.bytes_done;
            Some(match failed {
                // A repetition that brings nothing is no news.
                Some(failed) if pull.bytes_done == 0 => self::failed(claimed, entry, failed),
                failed => ImageOnNode {
                    state: ImageState::Pulling,
                    bytes_done: pull.bytes_done.max(0),
                    bytes_total: total,
                    attempts: failed.map_or(0, |f| f.attempts),
                    ..entry
                },
            })
        }
        Some(Standing::Failed(failed)) => Some(self::failed(claimed, entry, failed)),
        Some(Standing::Vanishing(vanished)) => Some(ImageOnNode {
            state: ImageState::Failed,
            reason: Some(Reason::RuntimeError),
            message: format!(
                "went from the node {} times without Larder's doing",
                vanished.times
            ),
            since: Some(Time(vanished.at)),
            ..entry
        }),
        Some(Standing::Refused(words)) => Some(refused(scope, entry, words, disk)),
        Some(Standing::Waiting) | None => Some(entry),
    };
    counts.all = counts.all.filter(|_| total > 0).map(|all| all + total);
    said
}

fn failed(claimed: &Claimed<'_>, entry: ImageOnNode, failed: &Failed) -> ImageOnNode {
    let skip = failed.failure.reason == Reason::NoMatchingPlatform
        && claimed.settings.on_missing_platform == OnMissingPlatform::Skip;
    ImageOnNode {
        state: if skip {
            ImageState::Skipped
        } else {
            ImageState::Failed
        },
        reason: Some(failed.failure.reason),
        message: shorten(&redact(&failed.failure.message), MAX_WORDS),
        attempts: failed.attempts,
        since: Some(Time(failed.at)),
        ..entry
    }
}

/// The numbers are those of the moment when the disk was last told of: they are not written each time it breathes.
fn refused(scope: &Scope<'_>, entry: ImageOnNode, words: &str, disk: Option<&DiskOnNode>) -> ImageOnNode {
    let before = scope.listed(&entry.cache, &entry.image).filter(|b| {
        b.reason == Some(Reason::InsufficientDisk) && b.digest == entry.digest && b.attempts == 0
    });
    let told = scope.input.previous.and_then(|p| p.disk.as_ref()) == disk;
    let message = before.filter(|_| told).map(|b| b.message.clone());
    ImageOnNode {
        state: ImageState::Failed,
        reason: Some(Reason::InsufficientDisk),
        message: message.unwrap_or_else(|| words.to_owned()),
        since: before
            .and_then(|b| b.since.clone())
            .or(Some(Time(scope.input.now))),
        ..entry
    }
}

fn no_platform(scope: &Scope<'_>, claimed: &Claimed<'_>, cache: &str, image: &RevisionImage) -> ImageOnNode {
    let skip = claimed.settings.on_missing_platform == OnMissingPlatform::Skip;
    let since = scope
        .listed(cache, &image.image)
        .filter(|b| b.reason == Some(Reason::NoMatchingPlatform) && b.digest == image.digest)
        .and_then(|b| b.since.clone());
    ImageOnNode {
        cache: cache.to_owned(),
        image: image.image.clone(),
        digest: image.digest.clone(),
        state: if skip {
            ImageState::Skipped
        } else {
            ImageState::Failed
        },
        reason: Some(Reason::NoMatchingPlatform),
        message: format!("no manifest for {}/{}", scope.input.os, scope.input.architecture),
        since: since.or(Some(Time(scope.input.now))),
        ..ImageOnNode::default()
    }
}

/// The digest found behind a reference for which the revision has none.
fn report(scope: &Scope<'_>, image: &RevisionImage, key: Key<'_>) -> Option<ReportedDigest> {
    if image.digest.is_some() {
        return None;
    }
    let digest = key
        .1
        .or_else(|| scope.store.digest_behind(key.0))
        .or_else(|| scope.input.memory.reported.get(key.0).map(String::as_str))?;
    Some(ReportedDigest {
        image: image.image.clone(),
        digest: digest.to_owned(),
    })
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

/// Revisions held whole, the present one first: looked at each time, not remembered. One that is to be removed is none.
fn held(scope: &Scope<'_>, claimed: &Claimed<'_>, current: &ImageCacheRevision, whole: bool) -> Vec<String> {
    let claim = claimed.claim;
    let older = scope
        .previous(&claim.uid)
        .into_iter()
        .flat_map(|p| &p.held)
        .filter(|name| **name != claim.revision && !claim.remove_revisions.contains(name))
        .filter(|name| {
            let revision = scope
                .input
                .revisions
                .get(&(claim.namespace.as_str(), name.as_str()));
            revision.is_some_and(|r| holds(scope, claim.puller, r))
        });
    let this = (whole && is_any(claim.puller, current)).then_some(&claim.revision);
    this.into_iter().chain(older).take(MAX_HELD).cloned().collect()
}

fn is_any(puller: Puller, revision: &ImageCacheRevision) -> bool {
    let spec = &revision.spec.spec;
    spec.images.iter().any(|i| is_for_agent(puller, spec, i))
}

/// The content of every image of a revision that is the agent's and that the node's platform has; tags may have moved on.
fn holds(scope: &Scope<'_>, puller: Puller, revision: &ImageCacheRevision) -> bool {
    let spec = &revision.spec.spec;
    let mut ours = spec.images.iter().filter(|i| is_for_agent(puller, spec, i));
    is_any(puller, revision)
        && ours.all(|image| {
            let here = Here::of(image, scope.input.os, scope.input.architecture);
            let Some(digest) = image.digest.as_deref().or(digest_of(&image.image)) else {
                return scope.store.tagged(&image.image).is_some_and(|i| i.complete);
            };
            let digests: Vec<&str> = std::iter::once(digest).chain(here.manifests).collect();
            here.missing || scope.store.holds(&digests).is_some()
        })
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
