//! Everything that the operator counts. Labels come from closed sets; no object is ever named in one.

mod budgets;

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use larder_api::image_cache_status::NodeCounts;
use larder_api::{ImageCache, NodeImageCache};
use larder_core::merge::{Agent, Blocks};
use larder_registry::HttpRegistry;
use prometheus::{
    Encoder, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// The metrics of one operator.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Nodes by state, as the statuses of all caches count them: `Ready` and `Updated` overlap the others.
    pub nodes: IntGaugeVec,
    /// Images on nodes, by puller and whether they are there.
    pub images: IntGaugeVec,
    /// Nodes by whether an agent works on them.
    pub agents: IntGaugeVec,
    /// Rollout slots in use.
    pub slots: IntGauge,
    /// Image caches.
    pub caches: IntGauge,
    /// Ended pulls of an image on a node, by puller, result and reason.
    pub pulls: IntCounterVec,
    /// Removals of an image on a node, by outcome.
    pub removals: IntCounterVec,
    /// Writes to the API server, by resource and verb.
    pub api_writes: IntCounterVec,
    /// Requests to registries for a reference, by result.
    pub resolves: IntCounterVec,
    /// Tags that came to mean another digest, each counted once a cache.
    pub tags_moved: IntCounter,
    /// Keys due in a queue.
    pub queue_depth: IntGaugeVec,
    /// Reconciles that failed and are repeated.
    pub reconcile_errors: IntCounterVec,
    /// Seconds of a reconcile.
    pub reconcile_duration: HistogramVec,
    /// Events that were dropped because there were too many.
    pub events_dropped: IntCounter,
    /// Watches that broke and were begun again, by kind.
    pub watch_errors: IntCounterVec,
    /// Unix time of the start.
    pub started: Gauge,
}

impl Metrics {
    /// Fails only if two metrics share a name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let build = gauge_vec(
            r,
            "larder_build_info",
            "Version of the operator; always 1.",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let slots = IntGauge::new(
            "larder_rollout_slots_in_use",
            "Nodes that hold a rollout slot, over all caches.",
        )?;
        r.register(Box::new(slots.clone()))?;
        let caches = IntGauge::new("larder_imagecaches", "ImageCaches.")?;
        r.register(Box::new(caches.clone()))?;
        let tags_moved = IntCounter::new(
            "larder_tags_moved_total",
            "Tags that came to mean another digest, each counted once a cache.",
        )?;
        r.register(Box::new(tags_moved.clone()))?;
        let events_dropped =
            IntCounter::new("larder_events_dropped_total", "Events dropped by the rate limit.")?;
        r.register(Box::new(events_dropped.clone()))?;
        let started = Gauge::new("larder_start_time_seconds", "Unix time of the start.")?;
        r.register(Box::new(started.clone()))?;
        let durations = HistogramOpts::new("larder_reconcile_duration_seconds", "Duration of a reconcile.")
            .buckets(vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]);
        let reconcile_duration = HistogramVec::new(durations, &["queue"])?;
        r.register(Box::new(reconcile_duration.clone()))?;
        Ok(Self {
            nodes: gauge_vec(
                r,
                "larder_nodes",
                "Nodes by state, each counted once a cache.",
                &["state"],
            )?,
            images: gauge_vec(
                r,
                "larder_images",
                "Images that nodes should hold, each counted once a node and cache.",
                &["puller", "state"],
            )?,
            agents: gauge_vec(
                r,
                "larder_agents",
                "Nodes by whether an agent works on them.",
                &["presence"],
            )?,
            pulls: counter_vec(
                r,
                "larder_pulls_total",
                "Ended pulls of one image on one node.",
                &["puller", "result", "reason"],
            )?,
            removals: counter_vec(
                r,
                "larder_removals_total",
                "Removals of one image on one node.",
                &["outcome"],
            )?,
            api_writes: counter_vec(
                r,
                "larder_api_writes_total",
                "Writes to the API server.",
                &["kind", "verb"],
            )?,
            resolves: counter_vec(
                r,
                "larder_resolve_requests_total",
                "References looked up in a registry.",
                &["result"],
            )?,
            queue_depth: gauge_vec(r, "larder_queue_depth", "Keys due in a queue.", &["queue"])?,
            reconcile_errors: counter_vec(
                r,
                "larder_reconcile_errors_total",
                "Reconciles that failed.",
                &["queue"],
            )?,
            watch_errors: counter_vec(r, "larder_watch_errors_total", "Watches that broke.", &["kind"])?,
            reconcile_duration,
            slots,
            caches,
            tags_moved,
            events_dropped,
            started,
            registry,
        })
    }

    /// Takes over what the statuses of the caches say.
    pub fn observe(&self, caches: &[Arc<ImageCache>]) {
        self.caches.set(i64::try_from(caches.len()).unwrap_or(i64::MAX));
        let counts: Vec<&NodeCounts> = caches
            .iter()
            .filter_map(|c| c.status.as_ref())
            .map(|s| &s.nodes)
            .collect();
        let sum = |of: fn(&NodeCounts) -> i32| -> i64 { counts.iter().map(|n| i64::from(of(n))).sum() };
        let states = [
            ("Selected", sum(|n| n.selected)),
            ("Ready", sum(|n| n.ready)),
            ("Updated", sum(|n| n.updated)),
            ("Progressing", sum(|n| n.progressing)),
            ("Failed", sum(|n| n.failed)),
            ("Waiting", sum(|n| n.waiting)),
            ("Unreachable", sum(|n| n.unreachable)),
        ];
        for (state, n) in states {
            self.nodes.with_label_values(&[state]).set(n);
        }
    }

    /// Takes over what the statuses of the nodes say, and where agents are.
    pub fn observe_nodes(&self, objects: &[Arc<NodeImageCache>], agents: &BTreeMap<String, Agent>) {
        for (puller, is_agent) in [("Agent", true), ("Kubelet", false)] {
            let (mut ready, mut total) = (0, 0);
            for object in objects {
                let presence = agents.get(&object.name_any()).copied().unwrap_or_default();
                let blocks = Blocks::of(object, presence);
                let agents = blocks.agent.filter(|_| presence != Agent::Absent);
                let block = if is_agent { agents } else { blocks.kubelet };
                for cache in block.iter().flat_map(|b| &b.caches) {
                    ready += i64::from(cache.ready);
                    total += i64::from(cache.total);
                }
            }
            self.images.with_label_values(&[puller, "Ready"]).set(ready);
            let missing = total - ready;
            self.images.with_label_values(&[puller, "Missing"]).set(missing);
        }
        let count = |is: fn(&Agent) -> bool| agents.values().filter(|a| is(a)).count();
        let presences = [
            ("Alive", count(|a| *a == Agent::Alive)),
            ("Waiting", count(|a| matches!(a, Agent::Waiting { .. }))),
            ("Absent", count(|a| *a == Agent::Absent)),
        ];
        for (presence, n) in presences {
            let n = i64::try_from(n).unwrap_or(i64::MAX);
            self.agents.with_label_values(&[presence]).set(n);
        }
    }

    /// From now on what registries say of their limits is told too.
    pub fn count_budgets_of(&self, registries: Arc<HttpRegistry>) -> Result<(), prometheus::Error> {
        let collector = budgets::Collector::new(move || registries.budgets())?;
        self.registry.register(Box::new(collector))
    }

    /// In the text form that Prometheus reads.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut buffer = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer).into_owned())
    }
}

fn gauge_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own() {
        let metrics = Metrics::new().unwrap();
        metrics.pulls.with_label_values(&["Agent", "held", ""]).inc();
        let status = |ready| larder_api::ImageCacheStatus {
            nodes: NodeCounts {
                selected: 3,
                ready,
                ..NodeCounts::default()
            },
            ..larder_api::ImageCacheStatus::default()
        };
        let cache = |ready| {
            Arc::new(ImageCache {
                status: Some(status(ready)),
                ..ImageCache::default()
            })
        };
        metrics.observe(&[cache(1), cache(3)]);
        let mut object = crate::testing::object();
        let agent = object
            .status
            .get_or_insert_default()
            .agent
            .get_or_insert_default();
        agent.puller.node_uid = "node-uid".into();
        agent.puller.caches = vec![larder_api::node_image_cache::CacheOnNode {
            ready: 2,
            total: 5,
            ..Default::default()
        }];
        metrics.observe_nodes(&[Arc::new(object)], &[("node-1".to_owned(), Agent::Alive)].into());
        let text = metrics.render().unwrap();
        assert!(
            text.contains("larder_images{puller=\"Agent\",state=\"Missing\"} 3")
                && text.contains("larder_agents{presence=\"Alive\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("larder_pulls_total{puller=\"Agent\",reason=\"\",result=\"held\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("larder_nodes{state=\"Ready\"} 4") && text.contains("larder_imagecaches 2"),
            "{text}"
        );
        assert!(text.contains("larder_build_info{version="), "{text}");
    }
}
