//! Counts what a new status of a node tells beyond the one before.

use larder_api::NodeImageCache;
use larder_api::node_image_cache::{ImageState, PullerStatus};

use crate::metrics::Metrics;
use crate::world::Change;

/// Counts what an agent newly tells. What it told before this process knew of the node's object does not count.
pub(crate) fn agent(metrics: &Metrics, change: &Change<NodeImageCache>) {
    let block = |side: &NodeImageCache| {
        let agent = side.status.as_ref()?.agent.as_ref()?;
        (agent.puller.node_uid == side.spec.node_uid).then(|| agent.puller.clone())
    };
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return;
    };
    if let Some(after) = block(new) {
        count(metrics, "Agent", block(old).as_ref(), &after);
    }
}

/// Counts pulls and removals that ended since `before`.
pub(super) fn count(metrics: &Metrics, puller: &str, before: Option<&PullerStatus>, after: &PullerStatus) {
    for (reason, n) in failures(before, after) {
        metrics
            .pulls
            .with_label_values(&[puller, "failed", &reason])
            .inc_by(n);
    }
    for cache in &after.caches {
        let old = before.and_then(|b| b.caches.iter().find(|c| c.uid == cache.uid));
        let ready = old
            .filter(|o| o.revision == cache.revision)
            .map_or(0, |o| o.ready);
        let more = u64::try_from(cache.ready.saturating_sub(ready)).unwrap_or(0);
        metrics
            .pulls
            .with_label_values(&[puller, "held", ""])
            .inc_by(more);
        let purged_anew = cache.state != old.map(|o| o.state).unwrap_or_default();
        if purged_anew && cache.state == larder_api::node_image_cache::NodeState::Purged {
            let outcomes = [
                ("removed", cache.removed),
                ("inUse", cache.in_use),
                ("foreign", cache.foreign),
                ("shared", cache.shared),
            ];
            for (outcome, n) in outcomes {
                let n = u64::try_from(n).unwrap_or(0);
                metrics.removals.with_label_values(&[outcome]).inc_by(n);
            }
        }
    }
}

/// Attempts that failed, by reason.
fn failures(before: Option<&PullerStatus>, after: &PullerStatus) -> Vec<(String, u64)> {
    let failed = after.images.iter().filter(|i| i.state == ImageState::Failed);
    let counted = failed.filter_map(|image| {
        let old = before
            .and_then(|b| {
                b.images
                    .iter()
                    .find(|o| o.cache == image.cache && o.image == image.image)
            })
            .filter(|o| o.state == ImageState::Failed && o.digest == image.digest)
            .map_or(0, |o| o.attempts);
        let more = u64::try_from(image.attempts.saturating_sub(old))
            .ok()
            .filter(|n| *n > 0)?;
        Some((image.reason.map(|r| r.to_string()).unwrap_or_default(), more))
    });
    counted.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use larder_api::names::Reason;
    use larder_api::node_image_cache::{CacheOnNode, ImageOnNode};

    use super::*;

    fn status(ready: i32, attempts: i32) -> PullerStatus {
        PullerStatus {
            caches: vec![CacheOnNode {
                uid: "u".into(),
                revision: "r".into(),
                ready,
                ..CacheOnNode::default()
            }],
            images: vec![ImageOnNode {
                state: ImageState::Failed,
                reason: Some(Reason::NotFound),
                attempts,
                ..ImageOnNode::default()
            }],
            ..PullerStatus::default()
        }
    }

    #[test]
    fn only_what_is_new_counts() {
        let metrics = Metrics::new().unwrap();
        count(&metrics, "Kubelet", None, &status(3, 1));
        count(&metrics, "Kubelet", Some(&status(3, 1)), &status(3, 1));
        count(&metrics, "Kubelet", Some(&status(3, 1)), &status(5, 4));
        count(&metrics, "Kubelet", Some(&status(5, 4)), &status(2, 4));
        let pulls = |labels: [&str; 3]| metrics.pulls.with_label_values(&labels).get();
        assert_eq!(pulls(["Kubelet", "held", ""]), 5);
        assert_eq!(pulls(["Kubelet", "failed", "NotFound"]), 4);
    }
}
