//! What the agent counts.

use std::time::Duration;

use larder_api::node_image_cache::{AgentStatus, NodeState};
use larder_core::agent::{Observed, PullResult};
use larder_core::removal::PurgeReport;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Seconds from a small image out of a near registry to the longest attempt.
const SECONDS: [f64; 10] = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0];
/// Bytes from 1 MiB to 64 GiB, each four times the one before.
const FIRST_BYTES: f64 = 1_048_576.0;

/// Everything that /metrics shows.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pulls: IntCounterVec,
    duration: Histogram,
    bytes: Histogram,
    removals: IntCounterVec,
    /// Writes of the status, by result.
    pub(super) status_writes: IntCounterVec,
    pulling: IntGauge,
    pulling_bytes: IntGaugeVec,
    images: IntGaugeVec,
    caches: IntGaugeVec,
    disk: IntGaugeVec,
    runtime_up: IntGauge,
    started: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            pulls: counters(
                r,
                "larder_agent_pulls_total",
                "Ended pulls.",
                &["result", "reason"],
            )?,
            duration: histogram(
                r,
                "larder_agent_pull_duration_seconds",
                "Duration of pulls that succeeded.",
                SECONDS.to_vec(),
            )?,
            bytes: histogram(
                r,
                "larder_agent_pull_bytes",
                "Compressed bytes of images pulled.",
                prometheus::exponential_buckets(FIRST_BYTES, 4.0, 9)?,
            )?,
            removals: counters(
                r,
                "larder_agent_removals_total",
                "Removals of an image.",
                &["outcome"],
            )?,
            status_writes: counters(
                r,
                "larder_agent_status_writes_total",
                "Writes of the status.",
                &["result"],
            )?,
            pulling: gauge(r, "larder_agent_pulls_running", "Pulls at work.")?,
            pulling_bytes: gauges(
                r,
                "larder_agent_pulls_running_bytes",
                "Compressed bytes of the pulls at work, arrived and in all.",
                &["of"],
            )?,
            images: gauges(
                r,
                "larder_agent_images",
                "Images that the agent should keep on the node, counted once a cache.",
                &["state"],
            )?,
            caches: gauges(
                r,
                "larder_agent_caches",
                "Caches on the node by state.",
                &["state"],
            )?,
            disk: gauges(
                r,
                "larder_agent_disk_bytes",
                "The file system of the images.",
                &["of"],
            )?,
            runtime_up: gauge(
                r,
                "larder_agent_runtime_up",
                "Whether the container runtime answers.",
            )?,
            started: Gauge::new("larder_agent_start_time_seconds", "Unix time of the start.")?,
            registry: registry.clone(),
        };
        registry.register(Box::new(metrics.started.clone()))?;
        metrics.started.set(jiff::Timestamp::now().as_second() as f64);
        Ok(metrics)
    }

    /// A pull ended.
    pub(super) fn pulled(&self, result: &PullResult, took: Duration, bytes: i64) {
        match &result.outcome {
            Ok(()) => {
                self.pulls.with_label_values(&["success", ""]).inc();
                self.duration.observe(took.as_secs_f64());
                self.bytes.observe(bytes as f64);
            }
            Err(failure) => {
                let reason = failure.reason.to_string();
                self.pulls.with_label_values(&["failure", reason.as_str()]).inc();
            }
        }
    }

    /// A removal ended.
    pub(super) fn removed(&self, report: &PurgeReport) {
        let counts = [
            ("removed", report.removed),
            ("in-use", report.in_use),
            ("foreign", report.foreign),
            ("shared", report.shared),
            ("failed", report.failed),
        ];
        for (outcome, n) in counts {
            let n = u64::try_from(n).unwrap_or(0);
            self.removals.with_label_values(&[outcome]).inc_by(n);
        }
    }

    /// The runtime was looked at, or could not be.
    pub(super) fn looked(&self, observed: Option<&Observed>) {
        self.runtime_up.set(i64::from(observed.is_some()));
        if let Some(disk) = observed.and_then(|o| o.disk) {
            let set = |of, bytes| {
                self.disk
                    .with_label_values(&[of])
                    .set(i64::try_from(bytes).unwrap_or(i64::MAX));
            };
            set("total", disk.total);
            set("free", disk.free);
        }
    }

    /// What was decided to be the status.
    pub(super) fn decided(&self, status: &AgentStatus) {
        let sum = |of: fn(&larder_api::node_image_cache::CacheOnNode) -> i32| -> i64 {
            status.puller.caches.iter().map(|c| i64::from(of(c))).sum()
        };
        self.images.with_label_values(&["wanted"]).set(sum(|c| c.total));
        self.images.with_label_values(&["ready"]).set(sum(|c| c.ready));
        for state in [
            NodeState::Waiting,
            NodeState::Pulling,
            NodeState::Ready,
            NodeState::Failed,
            NodeState::Purging,
            NodeState::Purged,
        ] {
            let n = status.puller.caches.iter().filter(|c| c.state == state).count();
            let name = format!("{state:?}");
            self.caches.with_label_values(&[name.as_str()]).set(n as i64);
        }
    }

    /// Pulls at work, with the bytes that have arrived and those of all of it.
    pub(super) fn pulling(&self, pulls: usize, done: i64, total: i64) {
        self.pulling.set(pulls as i64);
        self.pulling_bytes.with_label_values(&["arrived"]).set(done);
        self.pulling_bytes.with_label_values(&["all"]).set(total);
    }

    /// In the text form that Prometheus reads.
    pub(super) fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn counters(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(r: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let metric = IntGauge::new(name, help)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(
    r: &Registry,
    name: &str,
    help: &str,
    buckets: Vec<f64>,
) -> Result<Histogram, prometheus::Error> {
    let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}
