//! Bounds of what an agent does on its node.

use larder_api::image_cache::Puller;
use larder_api::node_image_cache::{CacheClaim, NodeLimits};

use super::Snapshot;

/// Reports of mere progress that all agents together may write, a second.
const REPORTS_PER_SECOND: usize = 50;
/// The least time between two reports of one agent, in seconds.
const LEAST_SECONDS: i32 = 5;
/// What the schema admits.
const MOST_SECONDS: i32 = 3600;

/// The limits of one node; none where no claim leaves anything to an agent.
pub(super) fn limits(
    snapshot: &Snapshot<'_>,
    claims: &[CacheClaim],
    before: Option<&NodeLimits>,
) -> Option<NodeLimits> {
    if claims.iter().all(|c| c.puller == Puller::Job) {
        return None;
    }
    Some(NodeLimits {
        pulls: snapshot.pulls_per_node.clamp(1, 100),
        report_seconds: report_seconds(snapshot.nodes.len(), before.map(|b| b.report_seconds)),
    })
}

/// Doubles with the cluster. What a node has been told stays until it is off by more than one step: else a cluster that
/// grows and shrinks around a step would rewrite all of its nodes each time.
fn report_seconds(nodes: usize, before: Option<i32>) -> i32 {
    let least = i32::try_from(nodes.div_ceil(REPORTS_PER_SECOND)).unwrap_or(MOST_SECONDS);
    let mut seconds = LEAST_SECONDS;
    while seconds < least {
        seconds = seconds.saturating_mul(2);
    }
    let seconds = seconds.min(MOST_SECONDS);
    before
        .filter(|b| (seconds..=seconds.saturating_mul(2)).contains(b))
        .unwrap_or(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_a_large_cluster_are_rarer_and_seldom_retimed() {
        let cases = [
            (0, None, 5),
            (250, None, 5),
            (251, None, 10),
            (1000, None, 20),
            (5000, None, 160),
            (10_000_000, None, 3600),
            (250, Some(10), 10),
            (251, Some(5), 10),
            (250, Some(20), 5),
            (1000, Some(7), 20),
        ];
        for (nodes, before, expected) in cases {
            assert_eq!(
                report_seconds(nodes, before),
                expected,
                "{nodes} nodes, {before:?}"
            );
        }
    }
}
