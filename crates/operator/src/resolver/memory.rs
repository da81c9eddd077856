//! What registries said, and when. Pure: every moment is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use larder_api::names::Reason;
use larder_api::revision::PlatformManifest;
use larder_registry::Platform;

/// First delay after a failure; doubles to [`MAX_DELAY`].
pub const MIN_DELAY: Duration = Duration::from_secs(1);
/// Longest delay after failures.
pub const MAX_DELAY: Duration = Duration::from_mins(5);
/// Registries may ask to be left alone for at most this long.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);
/// An answer that nobody asked to be newer does for this long.
const FRESH: Duration = Duration::from_mins(5);
/// Manifests remembered at most, by digest.
const MAX_MANIFESTS: usize = 20_000;

/// Fingerprint that stands for no credentials.
const PUBLIC: &str = "";

/// What a reference meant at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Digest of an index or manifest.
    pub digest: String,
    /// Manifests of the platforms asked for, and maybe others.
    pub platforms: Vec<PlatformManifest>,
    /// True unless a request without credentials succeeded.
    pub private: bool,
    /// When it was asked.
    pub resolved_at: Timestamp,
}

/// Why a reference could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The stable reason.
    pub reason: Reason,
    /// In the registry's words.
    pub message: String,
    /// When it was asked.
    pub at: Timestamp,
    /// Not asked again before.
    pub retry_at: Timestamp,
    /// Whatever it is, it needs no credentials: anybody is told the same.
    pub public: bool,
}

/// What became of a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has a digest.
    Known(Known),
    /// It could not be resolved.
    Failed(Failure),
    /// The registry has not answered yet; the cache is marked when it has.
    Pending,
}

/// Why a registry gave no answer that can be used.
#[derive(Clone, Debug)]
pub(super) struct Why {
    /// The stable reason.
    pub(super) reason: Reason,
    /// In the registry's words.
    pub(super) message: String,
    /// How long the registry asks to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// See [`Failure::public`].
    pub(super) public: bool,
}

/// By reference and fingerprint of the credentials used.
type By<T> = BTreeMap<String, BTreeMap<String, T>>;

/// Everything remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    known: By<Head>,
    failed: By<Failed>,
    manifests: BTreeMap<String, Manifests>,
    /// A node found these to be something else than we know: what is older does not count.
    floors: BTreeMap<String, Timestamp>,
    changed: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Head {
    digest: String,
    private: bool,
    at: Timestamp,
}

#[derive(Clone, Debug)]
struct Failed {
    failure: Failure,
    attempts: u32,
}

#[derive(Clone, Debug, Default)]
struct Manifests {
    found: Vec<PlatformManifest>,
    asked: BTreeSet<Platform>,
}

impl Memory {
    /// What can be answered without asking. `not_before`: older answers do not do; without it successes do for
    /// [`FRESH`], and failures until they are to be repeated.
    pub(super) fn recall(
        &self,
        reference: &str,
        fingerprint: &str,
        not_before: Option<Timestamp>,
        platforms: &[Platform],
        now: Timestamp,
    ) -> Option<Outcome> {
        // A moment to come, from a clock that was ahead, can never be reached.
        let not_before = not_before.max(self.floor(reference)).map(|at| at.min(now));
        let fresh = not_before.unwrap_or_else(|| now.checked_sub(FRESH).unwrap_or(Timestamp::MIN));
        let not_before = not_before.unwrap_or(Timestamp::MIN);
        let heads = self.known.get(reference);
        let head = [PUBLIC, fingerprint]
            .iter()
            .filter_map(|f| heads?.get(*f))
            .filter(|h| h.at >= fresh)
            .max_by_key(|h| h.at);
        if let Some(head) = head
            && self.missing(&head.digest, platforms).is_empty()
        {
            return Some(Outcome::Known(Known {
                digest: head.digest.clone(),
                platforms: self
                    .manifests
                    .get(&head.digest)
                    .map(|m| m.found.clone())
                    .unwrap_or_default(),
                private: head.private,
                resolved_at: head.at,
            }));
        }
        let failure = self.failure(reference, fingerprint, Some(not_before))?;
        (failure.retry_at > now).then(|| Outcome::Failed(failure.clone()))
    }

    /// Why the reference could not be resolved with these credentials, not before that moment, and since then neither.
    pub(super) fn failure(
        &self,
        reference: &str,
        fingerprint: &str,
        not_before: Option<Timestamp>,
    ) -> Option<&Failure> {
        let failed = &self.failed.get(reference)?.get(fingerprint)?.failure;
        not_before.is_none_or(|n| failed.at >= n).then_some(failed)
    }

    /// Whether a registry told those with these credentials, at this moment or later, what the reference means. What it
    /// told to others does not say that it would tell these.
    pub(super) fn answered(&self, reference: &str, fingerprint: &str, since: Timestamp) -> bool {
        let Some(heads) = self.known.get(reference) else {
            return false;
        };
        let mut theirs = [PUBLIC, fingerprint].into_iter().filter_map(|f| heads.get(f));
        theirs.any(|head| head.at >= since)
    }

    /// Platforms that have not been asked for of this digest.
    pub(super) fn missing(&self, digest: &str, platforms: &[Platform]) -> Vec<Platform> {
        let have = self.manifests.get(digest);
        let found = |p: &Platform| {
            have.is_some_and(|m| {
                m.asked.contains(p)
                    || m.found
                        .iter()
                        .any(|f| p.matches(&f.os, &f.architecture, f.variant.as_deref()))
            })
        };
        platforms.iter().filter(|p| !found(p)).cloned().collect()
    }

    /// Whether the reference was private when last asked with these credentials.
    pub(super) fn was_private(&self, reference: &str, fingerprint: &str) -> bool {
        self.known
            .get(reference)
            .and_then(|h| h.get(fingerprint))
            .is_some_and(|h| h.private)
    }

    /// Whether somebody learned, later than `since`, that the reference means another digest.
    pub(super) fn differs(&self, reference: &str, digest: &str, since: Timestamp) -> bool {
        let latest = self
            .known
            .get(reference)
            .and_then(|by| by.values().max_by_key(|h| h.at));
        latest.is_some_and(|h| h.at > since && h.digest != digest)
    }

    /// References that came to mean something new since this was last called.
    pub(super) fn take_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }

    /// A registry told a digest.
    pub(super) fn learn(
        &mut self,
        reference: &str,
        fingerprint: &str,
        digest: &str,
        private: bool,
        at: Timestamp,
    ) {
        // What anybody may see serves all; what is private, only those who showed the same credentials.
        let key = if private { fingerprint } else { PUBLIC };
        let head = Head {
            digest: digest.to_owned(),
            private,
            at,
        };
        let heads = self.known.entry(reference.to_owned()).or_default();
        if heads
            .values()
            .max_by_key(|h| h.at)
            .is_none_or(|h| h.digest != digest)
        {
            self.changed.insert(reference.to_owned());
        }
        if private {
            heads.remove(PUBLIC);
        }
        heads.insert(key.to_owned(), head);
        if let Some(failed) = self.failed.get_mut(reference) {
            if private {
                failed.remove(fingerprint);
            } else {
                failed.clear();
            }
        }
    }

    /// A registry told manifests.
    pub(super) fn learn_manifests(&mut self, digest: &str, asked: &[Platform], found: Vec<PlatformManifest>) {
        let manifests = self.manifests.entry(digest.to_owned()).or_default();
        manifests.asked.extend(asked.iter().cloned());
        for manifest in found {
            if !manifests.found.contains(&manifest) {
                manifests.found.push(manifest);
            }
        }
        manifests.found.sort_by(|a, b| {
            (&a.os, &a.architecture, &a.variant, &a.digest).cmp(&(
                &b.os,
                &b.architecture,
                &b.variant,
                &b.digest,
            ))
        });
    }

    /// A registry gave no answer that can be used.
    pub(super) fn fail(
        &mut self,
        reference: &str,
        fingerprint: &str,
        why: Why,
        at: Timestamp,
        now: Timestamp,
    ) {
        let failed = self.failed.entry(reference.to_owned()).or_default();
        let attempts = failed.get(fingerprint).map_or(0, |f| f.attempts);
        let doubled = MIN_DELAY.saturating_mul(1 << attempts.min(16)).min(MAX_DELAY);
        let delay = doubled.max(why.retry_after.unwrap_or_default().min(MAX_RETRY_AFTER));
        let retry_at = now.checked_add(delay).unwrap_or(Timestamp::MAX);
        let failure = Failure {
            reason: why.reason,
            message: why.message,
            at,
            retry_at,
            public: why.public,
        };
        failed.insert(
            fingerprint.to_owned(),
            Failed {
                failure,
                attempts: attempts.saturating_add(1),
            },
        );
    }

    /// What is known of the reference from before this moment does not count any more.
    pub(super) fn moved(&mut self, reference: &str, at: Timestamp) {
        let floor = self.floors.entry(reference.to_owned()).or_insert(at);
        *floor = (*floor).max(at);
    }

    /// Whether nothing is known of the reference from after the moment that was given to [`Self::moved`].
    pub(super) fn in_doubt(&self, reference: &str) -> bool {
        let latest = self
            .known
            .get(reference)
            .and_then(|by| by.values().map(|h| h.at).max());
        self.floor(reference)
            .is_some_and(|floor| latest.is_none_or(|at| at < floor))
    }

    fn floor(&self, reference: &str) -> Option<Timestamp> {
        self.floors.get(reference).copied()
    }

    /// Forgets references and digests that nobody names, and manifests beyond a bound.
    pub(super) fn retain(&mut self, references: &BTreeSet<String>, digests: &BTreeSet<String>) {
        self.known.retain(|r, _| references.contains(r));
        self.failed.retain(|r, by| {
            by.retain(|_, f| f.attempts > 0);
            references.contains(r) && !by.is_empty()
        });
        self.floors.retain(|r, _| references.contains(r));
        let current: BTreeSet<&str> = self
            .known
            .values()
            .flat_map(BTreeMap::values)
            .map(|h| h.digest.as_str())
            .collect();
        let mut room = MAX_MANIFESTS;
        self.manifests.retain(|digest, _| {
            let keep = room > 0 && (current.contains(digest.as_str()) || digests.contains(digest));
            room -= usize::from(keep);
            keep
        });
    }
}

#[cfg(test)]
mod tests;
