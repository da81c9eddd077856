//! What the agent remembers between two decisions.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use larder_api::NodeImageCacheSpec;
use larder_api::names::Reason;
use larder_api::node_image_cache::{AgentStatus, ImageState, NodeState};

use super::left;
use super::presence::{Presence, Store};
use super::remove;
use super::types::{Failed, Memory, Observed, PullFailure, PullResult, Removed, Vanished};
use super::wanted::Wanted;
use crate::plan::{Revisions, saturating};
use crate::removal::PurgeReport;

/// An image that has not vanished for this long is as good as one that never did.
const FORGET_AFTER: SignedDuration = SignedDuration::from_hours(6);
/// Before an image that vanished for the second time is pulled again; it doubles each time.
const FIRST_BRAKE: SignedDuration = SignedDuration::from_mins(1);
/// The longest such delay.
const LONGEST_BRAKE: SignedDuration = SignedDuration::from_hours(1);

impl Memory {
    /// What a process remembers of the one before it.
    pub fn from_status(status: &AgentStatus) -> Self {
        let mut memory = Self::default();
        for image in &status.puller.images {
            // What failed without an attempt was not tried, and is judged anew.
            let tried = matches!(image.state, ImageState::Failed | ImageState::Skipped) && image.attempts > 0;
            let (true, Some(since)) = (tried, &image.since) else {
                continue;
            };
            let failed = Failed {
                attempts: image.attempts,
                at: since.0,
                asked_at: since.0,
                failure: PullFailure {
                    reason: image.reason.unwrap_or(Reason::RuntimeError),
                    message: image.message.clone(),
                },
            };
            memory
                .failures
                .insert((image.image.clone(), image.digest.clone()), failed);
        }
        for cache in &status.puller.caches {
            if cache.state == NodeState::Purged {
                let report = PurgeReport {
                    removed: cache.removed,
                    in_use: cache.in_use,
                    foreign: cache.foreign,
                    shared: cache.shared,
                    ..PurgeReport::default()
                };
                let removed = Removed {
                    work: remove::WORK_OF_STATUS.to_owned(),
                    at: cache.since.as_ref().map_or(Timestamp::MIN, |t| t.0),
                    report: Ok(report),
                    // Whatever is there now may have come while nobody looked.
                    left: Some(left::NOTHING.to_owned()),
                };
                memory.removals.insert(cache.uid.clone(), removed);
            }
        }
        memory
    }

    /// A pull ended. To be called before the runtime is looked at again: what was seen before the end is not what the
    /// pull brought. A pull that was cancelled is no result.
    pub fn pulled(&mut self, result: &PullResult) {
        let order = &result.order;
        let key = (order.image.clone(), order.digest.clone());
        match &result.outcome {
            Ok(()) => {
                self.failures.remove(&key);
                self.seen.insert(order.image.clone(), order.digest.clone());
                if order.digest.is_none() {
                    self.pulled.insert(order.image.clone(), order.asked_at);
                }
            }
            Err(failure) => {
                let before = self.failures.get(&key);
                let again = before.filter(|f| f.asked_at >= order.asked_at);
                let failed = Failed {
                    attempts: again.map_or(0, |f| f.attempts).saturating_add(1),
                    at: result.ended_at,
                    asked_at: order.asked_at,
                    failure: failure.clone(),
                };
                self.failures.insert(key, failed);
            }
        }
    }

    /// A removal ended: that of [`super::RemoveOrder::work`] for the cache with this UID.
    pub fn removed(
        &mut self,
        cache_uid: &str,
        work: &str,
        at: Timestamp,
        report: Result<PurgeReport, String>,
    ) {
        let before = self
            .removals
            .get(cache_uid)
            .filter(|r| r.work == work || r.work == remove::WORK_OF_STATUS)
            .and_then(|r| r.report.as_ref().ok())
            .map_or(0, |r| r.removed);
        let report = report.and_then(|report| match report.error {
            Some(error) => Err(error),
            None => Ok(PurgeReport {
                removed: report.removed + before,
                // What is gone since an earlier run says nothing new.
                absent: 0,
                ..report
            }),
        });
        let removed = Removed {
            work: work.to_owned(),
            at,
            report,
            left: None,
        };
        self.removals.insert(cache_uid.to_owned(), removed);
    }

    /// The runtime was looked at, and a decision follows: notes what is there and what went, and forgets what concerns
    /// nobody any more.
    pub fn observe(
        &mut self,
        now: Timestamp,
        os: &str,
        architecture: &str,
        spec: &NodeImageCacheSpec,
        revisions: &Revisions<'_>,
        observed: &Observed,
    ) {
        let wanted = Wanted::of(os, architecture, spec, revisions);
        let store = Store::of(observed);
        for (key, want) in &wanted.images {
            let (reference, digest) = (key.0.to_owned(), key.1.map(str::to_owned));
            if store.presence(*key, want) == Presence::Absent {
                let was_here = self.seen.get(&reference) == Some(&digest);
                if was_here {
                    self.seen.remove(&reference);
                    let times = self.vanished.get(&reference).map_or(0, |v| v.times);
                    let vanished = Vanished {
                        times: times.saturating_add(1),
                        at: now,
                    };
                    self.vanished.insert(reference, vanished);
                }
            } else {
                if digest.is_some() {
                    self.failures.remove(&(reference.clone(), digest.clone()));
                }
                self.seen.insert(reference, digest);
            }
        }
        self.vanished.retain(|_, v| now < saturating(v.at, FORGET_AFTER));
        remove::look(self, spec, revisions, &store);
        if !wanted.blind {
            self.forget(spec, &wanted);
        }
    }

    fn forget(&mut self, spec: &NodeImageCacheSpec, wanted: &Wanted<'_>) {
        let keys: BTreeSet<(&str, Option<&str>)> = wanted.images.keys().copied().collect();
        let references: BTreeSet<&str> = keys.iter().map(|(reference, _)| *reference).collect();
        self.failures
            .retain(|(reference, digest), _| keys.contains(&(reference.as_str(), digest.as_deref())));
        self.seen
            .retain(|reference, digest| keys.contains(&(reference.as_str(), digest.as_deref())));
        self.vanished.retain(|r, _| references.contains(r.as_str()));
        self.pulled.retain(|r, _| references.contains(r.as_str()));
        self.removals
            .retain(|uid, _| spec.caches.iter().any(|c| c.uid == *uid));
    }
}

impl Vanished {
    /// When the image may be pulled again: the first time at once, then after ever longer.
    pub(super) fn until(self) -> Timestamp {
        let doublings = match self.times {
            ..=1 => return self.at,
            times => u32::try_from(times - 2).unwrap_or(0).min(10),
        };
        saturating(self.at, (FIRST_BRAKE * (1 << doublings)).min(LONGEST_BRAKE))
    }
}
