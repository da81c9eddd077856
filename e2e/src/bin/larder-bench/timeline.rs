//! Where the time goes between apply and Ready: from the audit log, and from what pods told of themselves.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod, PodSpec};
use larder_e2e::cluster::audit::AuditEvent;
use tokio::task::JoinHandle;

use crate::bench::{Bench, PATIENCE};
use crate::pulled::is_pull;
use crate::watch::Watch;

/// Further figures of a run: seconds since apply, by step.
pub type Steps = BTreeMap<String, f64>;

/// What a pod told at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    at: Instant,
    pod: String,
    scheduled: bool,
    /// Containers that have ended, and all of them.
    done: (usize, usize),
}

/// Notes what pods and kubelets tell while something is measured.
pub struct PodNotes {
    notes: Arc<Mutex<Notes>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Notes {
    pods: Vec<Told>,
    /// What each pod is to run.
    specs: BTreeMap<String, PodSpec>,
    /// When the first image was there.
    pulled: Option<Instant>,
}

enum News {
    Pod(Box<Pod>),
    Event(Box<Event>),
}

impl PodNotes {
    /// Begins to listen.
    pub async fn begin(bench: &Bench) -> anyhow::Result<Self> {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let pods = Watch::begin(&bench.api(), "", |pod| News::Pod(Box::new(pod))).await?;
        let events = Watch::begin(&bench.api(), "", |event| News::Event(Box::new(event))).await?;
        let mut watch = pods.and(events);
        let kept = Arc::clone(&notes);
        let task = tokio::spawn(async move {
            let note = |at, news| {
                let mut notes = kept.lock().unwrap_or_else(PoisonError::into_inner);
                match news {
                    News::Pod(pod) => notes.pod(at, *pod),
                    News::Event(event) if is_pull(&event, None) => notes.pulled = notes.pulled.or(Some(at)),
                    News::Event(_) => {}
                }
                Err::<(), _>(String::new())
            };
            // It ends when it is told to, or when there is nothing more to be heard.
            let _ = watch.until(PATIENCE, note).await;
        });
        Ok(Self { notes, task })
    }

    /// Stops listening; the first and last moment of each step, in seconds since `since`, and the pods that were seen.
    pub fn end(self, since: Instant) -> (Steps, BTreeMap<String, PodSpec>) {
        self.task.abort();
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        (steps_of_pods(&notes, since), std::mem::take(&mut notes.specs))
    }
}

impl Notes {
    fn pod(&mut self, at: Instant, pod: Pod) {
        let done = ended(&pod);
        let name = pod.metadata.name.unwrap_or_default();
        let spec = pod.spec.unwrap_or_default();
        self.pods.push(Told {
            at,
            pod: name.clone(),
            scheduled: spec.node_name.is_some(),
            done,
        });
        self.specs.insert(name, spec);
    }
}

/// Containers of the pod that have ended, and all of them.
pub fn ended(pod: &Pod) -> (usize, usize) {
    let statuses = pod
        .status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten());
    let ended = statuses.filter(|c| c.state.as_ref().is_some_and(|state| state.terminated.is_some()));
    (
        ended.count(),
        pod.spec.as_ref().map_or(0, |spec| spec.containers.len()),
    )
}

fn steps_of_pods(notes: &Notes, since: Instant) -> Steps {
    let first = |wanted: fn(&Told) -> bool| notes.pods.iter().find(|told| wanted(told)).map(|told| told.at);
    // When each pod first told that all of its containers have ended.
    let mut whole: BTreeMap<&str, Instant> = BTreeMap::new();
    for told in notes
        .pods
        .iter()
        .filter(|told| told.done.0 > 0 && told.done.0 == told.done.1)
    {
        whole.entry(&told.pod).or_insert(told.at);
    }
    let steps = [
        ("at_first_pod_scheduled_s", first(|told| told.scheduled)),
        ("at_first_image_pulled_s", notes.pulled),
        ("at_first_container_done_s", first(|told| told.done.0 > 0)),
        ("at_first_pod_done_s", whole.values().min().copied()),
        ("at_last_pod_done_s", whole.values().max().copied()),
    ];
    let seconds = |at: Instant| at.saturating_duration_since(since).as_secs_f64();
    steps
        .into_iter()
        .filter_map(|(name, at)| Some((name.to_owned(), seconds(at?))))
        .collect()
}

/// When which write came, in seconds since `since`; the first and the last where there are several.
pub fn steps_of_writes(events: &[AuditEvent], since: Timestamp) -> Steps {
    let mut steps = Steps::new();
    for event in events {
        let (Some(step), Ok(at)) = (step(event), event.at.parse::<Timestamp>()) else {
            continue;
        };
        let seconds = at.duration_since(since).as_secs_f64();
        // The log is in the order of answers, not of requests.
        let first = steps.entry(format!("at_first_{step}_s")).or_insert(seconds);
        *first = first.min(seconds);
        let last = steps.entry(format!("at_last_{step}_s")).or_insert(seconds);
        *last = last.max(seconds);
    }
    steps
}

fn step(event: &AuditEvent) -> Option<&'static str> {
    let dry = event.uri.contains("dryRun=All");
    Some(match (event.verb.as_str(), event.resource.as_str()) {
        ("create", "imagecacherevisions") => "revision",
        ("create" | "patch", "nodeimagecaches") => "node_object",
        ("patch", "nodeimagecaches/status") => "node_status",
        ("patch", "imagecaches/status") => "status",
        ("create", "pods") if dry => "dry_run",
        ("create", "pods") => "pod",
        ("create", "jobs") => "job",
        ("create", "pods/binding") => "binding",
        _ => return None,
    })
}

/// Steps in words with their seconds, in the order of time. A step that came once, or as good as, is told once.
pub fn in_words(steps: &Steps) -> Vec<(f64, String)> {
    let mut words = Vec::new();
    for (name, at) in steps {
        let Some(step) = name.strip_prefix("at_").and_then(|name| name.strip_suffix("_s")) else {
            continue;
        };
        let kind = step.split_once('_').map_or(step, |(_, kind)| kind);
        let first = steps.get(&format!("at_first_{kind}_s"));
        let last = steps.get(&format!("at_last_{kind}_s"));
        let once = first.zip(last).is_some_and(|(first, last)| last - first < 0.005);
        match (once, step.starts_with("last_")) {
            (true, true) => {}
            (true, false) => words.push((*at, kind.replace('_', " "))),
            (false, _) => words.push((*at, step.replace('_', " "))),
        }
    }
    words.sort_by(|a, b| a.0.total_cmp(&b.0));
    words
}

/// Steps for a person at a terminal.
pub fn show(steps: &Steps) -> String {
    let mut text = String::new();
    for (at, step) in in_words(steps) {
        let _ = writeln!(text, "    {at:8.3} s  {step}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::writes::tests::event;

    #[test]
    fn writes_become_steps_with_their_first_and_last_time() {
        let at = |mut event: AuditEvent, at: &str| {
            event.at = format!("2026-11-21T07:00:0{at}Z");
            event
        };
        let events = [
            at(event("o", "create", "pods", "/x?dryRun=All"), "1.250000"),
            at(event("o", "create", "jobs", "/x"), "2.000000"),
            at(event("o", "create", "jobs", "/x"), "1.500000"),
            at(event("o", "list", "jobs", "/x"), "3.000000"),
        ];
        let steps = steps_of_writes(&events, "2026-11-21T07:00:01Z".parse().unwrap());
        let wanted = [
            ("at_first_dry_run_s", 0.25),
            ("at_first_job_s", 0.5),
            ("at_last_dry_run_s", 0.25),
            ("at_last_job_s", 1.0),
        ];
        assert_eq!(steps, wanted.map(|(name, at)| (name.to_owned(), at)).into());
        assert_eq!(
            show(&steps),
            "       0.250 s  dry run\n       0.500 s  first job\n       1.000 s  last job\n"
        );
    }

    #[test]
    fn pods_tell_of_their_steps() {
        let since = Instant::now();
        let note = |pod: &str, milliseconds: u64, scheduled, ended| Told {
            at: since + Duration::from_millis(milliseconds),
            pod: pod.into(),
            scheduled,
            done: (ended, 2),
        };
        let pods = vec![
            note("a", 100, false, 0),
            note("a", 200, true, 0),
            note("a", 300, true, 1),
            note("a", 400, true, 2),
            note("b", 500, true, 2),
            note("a", 900, true, 2),
        ];
        let mut notes = Notes {
            pods,
            specs: BTreeMap::new(),
            pulled: Some(since + Duration::from_millis(250)),
        };
        let steps = steps_of_pods(&notes, since);
        let at = |name: &str| (steps[name] * 1000.0).round();
        assert_eq!(
            (at("at_first_pod_scheduled_s"), at("at_first_image_pulled_s")),
            (200.0, 250.0)
        );
        assert_eq!(
            (at("at_first_container_done_s"), at("at_first_pod_done_s")),
            (300.0, 400.0)
        );
        assert!((at("at_last_pod_done_s") - 500.0).abs() < 1.0);
        notes.pods.truncate(1);
        notes.pulled = None;
        assert!(steps_of_pods(&notes, since).is_empty());
    }
}
