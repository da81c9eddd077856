//! Revisions: what they are made of, how they are named, which of them are still needed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use larder_api::image_cache::PullSecret;
use larder_api::revision::{PlatformManifest, RevisionImage};
use larder_api::{ImageCacheRevision, ImageCacheRevisionSpec};

use crate::hash as content;
use crate::images::WantedImages;

/// Revisions of a cache that are kept whether or not a node names them.
pub const KEPT: usize = 3;
/// A younger revision may be named by a node object that is not seen yet.
pub const PRUNE_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// Platforms that a revision lists for one image, as its schema allows.
const MAX_PLATFORMS: usize = 20;
/// Longest name of a revision, as the schema of node objects allows.
const MAX_NAME: usize = 63;

/// What a registry said about a reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Digest of an index or manifest.
    pub digest: Option<String>,
    /// Manifests of the platforms that the cluster has.
    pub platforms: Vec<PlatformManifest>,
    /// True unless an anonymous request was answered with the manifest, or with "not found".
    pub private: bool,
}

/// Makes a revision. `resolved` is keyed by normalised reference; a reference without an entry has the digest that it
/// names itself, or none, and counts as private.
pub fn build(
    wanted: &WantedImages,
    resolved: &BTreeMap<String, Resolved>,
    pull_secrets: &[PullSecret],
) -> ImageCacheRevisionSpec {
    let images = wanted
        .images
        .iter()
        .map(|image| {
            let found = resolved.get(image.reference.normalized());
            let own = || image.reference.digest().map(str::to_owned);
            let mut platforms = found.map(|f| f.platforms.clone()).unwrap_or_default();
            platforms.truncate(MAX_PLATFORMS);
            RevisionImage {
                image: image.reference.normalized().to_owned(),
                digest: found.and_then(|f| f.digest.clone()).or_else(own),
                platforms,
                priority: image.priority,
                private: found.is_none_or(|f| f.private),
                sources: image.sources.iter().cloned().collect(),
            }
        })
        .collect();
    let pull_secrets = pull_secrets
        .iter()
        .cloned()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    ImageCacheRevisionSpec { images, pull_secrets }
}

/// Reference, digest, priority and sources of an image.
type ImageIdentity<'a> = (&'a str, Option<&'a str>, i32, BTreeSet<&'a str>);

/// What makes a revision the one it is. Sizes, platforms and `private` are knowledge about it.
type Identity<'a> = (BTreeSet<ImageIdentity<'a>>, BTreeSet<&'a str>);

fn identity(spec: &ImageCacheRevisionSpec) -> Identity<'_> {
    let images = spec
        .images
        .iter()
        .map(|i| {
            let sources = i.sources.iter().map(String::as_str).collect();
            (i.image.as_str(), i.digest.as_deref(), i.priority, sources)
        })
        .collect();
    (
        images,
        spec.pull_secrets.iter().map(|s| s.name.as_str()).collect(),
    )
}

/// 13 characters over sorted (reference, digest, priority), pull secrets and, where there are any, sources.
pub fn hash(spec: &ImageCacheRevisionSpec) -> String {
    let (images, secrets) = identity(spec);
    let mut parts = vec![images.len().to_string()];
    let mut from = Vec::new();
    for (image, digest, priority, sources) in images {
        parts.extend([
            image.to_owned(),
            digest.unwrap_or_default().to_owned(),
            priority.to_string(),
        ]);
        if !sources.is_empty() {
            // At the end, so that revisions without sources keep the names they had before there were any; and with
            // characters that no secret's name has.
            from.push(format!(
                "{image} from {}",
                sources.into_iter().collect::<Vec<_>>().join(",")
            ));
        }
    }
    parts.extend(secrets.into_iter().map(str::to_owned));
    parts.extend(from);
    content::short(parts.iter().map(String::as_str))
}

/// `<cache>-<hash>`, with `-<collision>` where another revision has that name already. At most 63 characters; the
/// cache's name is cut if need be.
pub fn name(cache: &str, hash: &str, collision: u32) -> String {
    let end = if collision > 0 {
        format!("-{hash}-{collision}")
    } else {
        format!("-{hash}")
    };
    let room = MAX_NAME.saturating_sub(end.len());
    let cut: String = cache.chars().take(room).collect();
    format!(
        "{}{end}",
        cut.trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
    )
}

/// Whether both are the same revision: equal in everything that is hashed.
pub fn same_identity(a: &ImageCacheRevisionSpec, b: &ImageCacheRevisionSpec) -> bool {
    identity(a) == identity(b)
}

/// Whether the revision has the references, priorities, sources and pull secrets that the cache asks for, whatever the digests.
pub fn matches_spec(
    revision: &ImageCacheRevisionSpec,
    wanted: &WantedImages,
    pull_secrets: &[PullSecret],
) -> bool {
    let (images, secrets) = identity(revision);
    let images: BTreeSet<_> = images
        .into_iter()
        .map(|(image, _, priority, sources)| (image, priority, sources))
        .collect();
    let asked: BTreeSet<_> = wanted
        .images
        .iter()
        .map(|i| {
            let sources = i.sources.iter().map(String::as_str).collect();
            (i.reference.normalized(), i.priority, sources)
        })
        .collect();
    images == asked && secrets == pull_secrets.iter().map(|s| s.name.as_str()).collect()
}

/// Names of revisions of one cache that can be deleted: not among the newest [`KEPT`], named by no node
/// (`referenced`, from a consistent list), older than [`PRUNE_AFTER`], not being deleted yet. Sorted by name.
pub fn prunable(
    revisions: &[&ImageCacheRevision],
    referenced: &BTreeSet<String>,
    now: Timestamp,
) -> Vec<String> {
    let mut alive: Vec<_> = revisions
        .iter()
        .filter(|r| r.metadata.deletion_timestamp.is_none())
        .collect();
    alive.sort_by(|a, b| order(b).cmp(&order(a)));
    let mut names: Vec<String> = alive
        .into_iter()
        .skip(KEPT)
        .filter(|r| {
            r.metadata
                .creation_timestamp
                .as_ref()
                .is_some_and(|t| now.duration_since(t.0) > PRUNE_AFTER)
        })
        .filter_map(|r| r.metadata.name.clone())
        .filter(|name| !referenced.contains(name))
        .collect();
    names.sort();
    names
}

/// The revision of one cache with the highest number that is not being deleted.
pub fn newest<'a>(revisions: &[&'a ImageCacheRevision]) -> Option<&'a ImageCacheRevision> {
    revisions
        .iter()
        .copied()
        .filter(|r| r.metadata.deletion_timestamp.is_none())
        .max_by(|a, b| order(a).cmp(&order(b)))
}

/// By number; equal numbers, which only a race leaves behind, by name.
fn order(revision: &ImageCacheRevision) -> (i64, Option<&str>) {
    (revision.spec.number, revision.metadata.name.as_deref())
}

/// A reference that came to mean something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Normalised reference.
    pub image: String,
    /// The digest so far.
    pub from: String,
    /// The new one.
    pub to: String,
}

/// References that both have, with different digests.
pub fn moved(old: &ImageCacheRevisionSpec, new: &ImageCacheRevisionSpec) -> Vec<Moved> {
    fn digests(spec: &ImageCacheRevisionSpec) -> BTreeMap<&str, &str> {
        let pairs = spec.images.iter();
        pairs
            .filter_map(|i| Some((i.image.as_str(), i.digest.as_deref()?)))
            .collect()
    }
    let before = digests(old);
    let after = digests(new).into_iter();
    after
        .filter_map(|(image, to)| {
            let from = before.get(image).filter(|from| **from != to)?;
            Some(Moved {
                image: image.to_owned(),
                from: (*from).to_owned(),
                to: to.to_owned(),
            })
        })
        .collect()
}

/// How many those are.
pub fn changed(old: &ImageCacheRevisionSpec, new: &ImageCacheRevisionSpec) -> i32 {
    moved(old, new).len() as i32
}

#[cfg(test)]
mod tests;
