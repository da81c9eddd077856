//! `larder-agent purge` as a program, against the fake runtime.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::{Output, Stdio};

use jiff::{SignedDuration, Timestamp};
use larder_api::names::PINNED_LABEL;
use larder_core::removal::{MAX_MESSAGE_BYTES, Outcome, PurgeEntry, PurgeReport};
use larder_runtime::proto::cri::ContainerState;
use larder_runtime::{Runtime, RuntimeClient, Timeouts};
use larder_testkit::runtime::{Call, FakeContainer, FakeImage, FakeRuntime, Fault, Serves};
use tempfile::TempDir;
use tokio::process::Command;

const CLAIMED_AT: Timestamp = Timestamp::constant(1_700_000_000, 0);

struct Node {
    folder: TempDir,
    runtime: FakeRuntime,
}

impl Node {
    async fn new(serves: Serves) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("containerd/containerd.sock");
        let runtime = FakeRuntime::start(&socket, serves).await.unwrap();
        runtime.model().now = CLAIMED_AT;
        Self { folder, runtime }
    }

    fn pull(&self, reference: &str, word: &str) -> FakeImage {
        let image = FakeImage::new(word);
        let mut model = self.runtime.model();
        model.publish(reference, &image);
        model.pull(reference).unwrap();
        image
    }

    fn pull_before_larder(&self, reference: &str, word: &str) -> FakeImage {
        self.runtime.model().now = CLAIMED_AT - SignedDuration::from_hours(1);
        let image = self.pull(reference, word);
        self.runtime.model().now = CLAIMED_AT;
        image
    }

    async fn purge(&self, arguments: &[String]) -> Output {
        self.purge_below("", arguments).await
    }

    /// Searches for the runtime below a folder of the node.
    async fn purge_below(&self, folder: &str, arguments: &[String]) -> Output {
        self.command(folder, arguments).output().await.unwrap()
    }

    fn command(&self, folder: &str, arguments: &[String]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder-agent"));
        command
            .arg("purge")
            .arg("--host-run")
            .arg(self.folder.path().join(folder))
            .arg("--termination-log")
            .arg(self.folder.path().join("termination-log"))
            .args(arguments);
        command
    }

    fn termination_message(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("termination-log")).unwrap()
    }

    async fn report(&self, arguments: &[String]) -> PurgeReport {
        let output = self.purge(arguments).await;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let message = self.termination_message();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), message);
        serde_json::from_str(&message).unwrap()
    }

    async fn error(&self, arguments: &[String]) -> String {
        let output = self.purge(arguments).await;
        assert_eq!(output.status.code(), Some(1));
        let message: serde_json::Value = serde_json::from_str(&self.termination_message()).unwrap();
        message["error"].as_str().unwrap().to_owned()
    }
}

fn entry(reference: &str, image: Option<&FakeImage>, all: bool) -> [String; 2] {
    let entry = PurgeEntry {
        reference: reference.to_owned(),
        digest: image.map(|i| i.manifest.clone()),
        claimed_at: CLAIMED_AT,
        all,
    };
    ["--entry".to_owned(), serde_json::to_string(&entry).unwrap()]
}

fn running(image: &FakeImage) -> FakeContainer {
    FakeContainer {
        id: "4f1c2d".to_owned(),
        image_id: image.config.clone(),
        state: ContainerState::ContainerRunning,
        mounts: Vec::new(),
    }
}

fn outcomes(report: &PurgeReport) -> Vec<(&str, Outcome)> {
    report
        .outcomes
        .iter()
        .map(|o| (o.reference.as_str(), o.outcome))
        .collect()
}

#[tokio::test]
async fn every_outcome_is_counted_and_all_but_removed_are_named() {
    let node = Node::new(Serves::Containerd).await;
    let gone = node.pull("gone:1", "gone");
    let used = node.pull("used:1", "used");
    let ended = node.pull("ended:1", "ended");
    let old = node.pull_before_larder("old:1", "old");
    let shared = node.pull("shared:1", "shared");
    node.pull("registry.example/mirror:1", "shared");
    node.runtime.model().containers = vec![
        running(&used),
        FakeContainer {
            state: ContainerState::ContainerExited,
            ..running(&ended)
        },
    ];
    let arguments = [
        entry("gone:1", Some(&gone), false),
        entry("used:1", Some(&used), false),
        entry("ended:1", Some(&ended), false),
        entry("old:1", Some(&old), false),
        entry("shared:1", Some(&shared), false),
        entry("never:1", None, false),
    ];
    let report = node.report(&arguments.concat()).await;
    let counts = [
        report.removed,
        report.absent,
        report.in_use,
        report.foreign,
        report.shared,
        report.failed,
    ];
    assert_eq!(counts, [2, 1, 1, 1, 1, 0]);
    assert_eq!(
        outcomes(&report),
        [
            ("used:1", Outcome::InUse),
            ("old:1", Outcome::Foreign),
            ("shared:1", Outcome::Shared),
            ("never:1", Outcome::Absent),
        ]
    );
    let model = node.runtime.model();
    assert!(
        !model.has_content(&gone.layers[0].digest),
        "the last deletion has to collect the content"
    );
    for kept in [&used, &old, &shared] {
        assert!(model.has_content(&kept.layers[0].digest));
    }
    assert!(
        !model
            .names()
            .iter()
            .any(|name| name.contains("/shared") || name.contains("/gone"))
    );
}

#[tokio::test]
async fn what_starts_between_two_removals_is_seen() {
    let node = Node::new(Serves::Containerd).await;
    let images = [node.pull("a:1", "a"), node.pull("b:1", "b")];
    // Images go in the order of their ids: a container of the second starts when the first is being removed.
    let second = usize::from(images[0].config < images[1].config);
    let container = running(&images[second]);
    node.runtime
        .before_next(Call::DeleteRecord, move |model| model.containers.push(container));
    let arguments = [entry("a:1", None, false), entry("b:1", None, false)].concat();
    let report = node.report(&arguments).await;
    assert_eq!((report.removed, report.in_use), (1, 1));
    assert!(node.runtime.model().has_content(&images[second].layers[0].digest));
}

#[tokio::test]
async fn an_image_mounted_as_a_volume_is_in_use() {
    let node = Node::new(Serves::Containerd).await;
    let program = node.pull("program:1", "program");
    let model = node.pull("model:1", "model");
    let container = FakeContainer {
        mounts: vec![model.config.clone()],
        ..running(&program)
    };
    node.runtime.model().containers = vec![container.clone()];
    let report = node.report(&entry("model:1", Some(&model), true)).await;
    assert_eq!(outcomes(&report), [("model:1", Outcome::InUse)]);
    let ended = FakeContainer {
        state: ContainerState::ContainerExited,
        ..container
    };
    node.runtime.model().containers = vec![ended];
    assert_eq!(
        node.report(&entry("model:1", Some(&model), true)).await.removed,
        1
    );
}

#[tokio::test]
async fn a_pin_of_larders_own_is_no_reason_to_stay() {
    let node = Node::new(Serves::Containerd).await;
    let (ours, other) = (node.pull("ours:1", "ours"), node.pull("other:1", "other"));
    let socket = node.folder.path().join("containerd/containerd.sock");
    let runtime = RuntimeClient::connect(&socket, Timeouts::default())
        .await
        .unwrap();
    let pin = ("io.cri-containerd.pinned".to_owned(), "pinned".to_owned());
    let mut labels = BTreeMap::from([pin]);
    let records = runtime.records().unwrap();
    records.set_labels(&other.config, &labels).await.unwrap();
    labels.insert(PINNED_LABEL.to_owned(), "true".to_owned());
    records.set_labels(&ours.config, &labels).await.unwrap();
    let arguments = [
        entry("ours:1", Some(&ours), false),
        entry("other:1", Some(&other), false),
    ];
    let report = node.report(&arguments.concat()).await;
    assert_eq!((report.removed, report.in_use), (1, 1), "{report:?}");
}

#[tokio::test]
async fn what_is_kept_stays_and_what_cannot_be_understood_is_refused() {
    let node = Node::new(Serves::Containerd).await;
    let image = node.pull("a:1", "a");
    let by_digest = format!("docker.io/library/a@{}", image.manifest);
    let keep = |reference: &str| ["--keep".to_owned(), reference.to_owned()];
    let report = node
        .report(&[entry("a:1", Some(&image), false), keep(&by_digest)].concat())
        .await;
    assert_eq!(outcomes(&report), [("a:1", Outcome::Shared)]);
    assert_eq!(node.runtime.model().names(), [by_digest, image.config.clone()]);
    assert!(
        node.error(&[entry("a:1", None, true), keep("A B")].concat())
            .await
            .starts_with("--keep A B")
    );
    assert!(node.runtime.model().has_content(&image.layers[0].digest));
}

#[tokio::test]
async fn through_cri_alone_only_all_removes() {
    let node = Node::new(Serves::CriOnly).await;
    let image = node.pull("a:1", "a");
    let report = node.report(&entry("a:1", Some(&image), false)).await;
    assert_eq!(outcomes(&report), [("a:1", Outcome::Foreign)]);
    let report = node.report(&entry("a:1", Some(&image), true)).await;
    assert_eq!((report.removed, report.outcomes.len()), (1, 0));
    assert!(node.runtime.model().names().is_empty());
}

#[tokio::test]
async fn one_refusal_does_not_end_the_others() {
    let node = Node::new(Serves::CriOnly).await;
    node.pull("a:1", "a");
    node.runtime.fault(
        Call::RemoveImage,
        Fault::Fail(tonic::Code::Internal, "disk on fire".into()),
    );
    let arguments = [entry("a:1", None, true), entry("b:1", None, true)].concat();
    let report = node.report(&arguments).await;
    assert_eq!((report.failed, report.absent), (1, 1));
    assert_eq!(report.outcomes[0].message, "RemoveImage: disk on fire");
}

#[tokio::test]
async fn a_runtime_that_stops_answering_is_an_error_with_what_was_done() {
    let node = Node::new(Serves::Containerd).await;
    node.pull("a:1", "a");
    node.pull("b:1", "b");
    // The second look at the node fails, after the first image went.
    node.runtime.fail_after(
        Call::ListImages,
        1,
        Fault::Fail(tonic::Code::Unavailable, "shutting down".into()),
    );
    let arguments = [entry("a:1", None, false), entry("b:1", None, false)].concat();
    assert_eq!(node.error(&arguments).await, "ListImages: shutting down");
    let report: PurgeReport = serde_json::from_str(&node.termination_message()).unwrap();
    assert_eq!((report.removed, report.failed), (1, 1));
    assert_eq!(report.outcomes[0].message, "not decided");
}

#[tokio::test]
async fn told_to_end_it_ends_and_says_so() {
    let node = Node::new(Serves::Containerd).await;
    let (arrived, at_work) = tokio::sync::oneshot::channel();
    node.runtime
        .before_next(Call::ListImages, |_| arrived.send(()).unwrap());
    node.runtime.fault(Call::ListImages, Fault::Hang);
    let mut command = node.command("", &entry("a:1", None, false));
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    at_work.await.unwrap();
    let kill = Command::new("kill").arg(child.id().unwrap().to_string()).status();
    assert!(kill.await.unwrap().success());
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
    assert!(node.termination_message().contains("told to end"));
}

#[tokio::test]
async fn no_runtime_is_said_with_what_was_tried() {
    let node = Node::new(Serves::NoCri).await;
    let words = node.error(&entry("a:1", None, false)).await;
    assert!(
        words.starts_with("no container runtime answers; tried "),
        "{words}"
    );
    assert!(
        words.contains("containerd/containerd.sock (serves no CRI)"),
        "{words}"
    );
    let output = node.purge_below("nothing-here", &entry("a:1", None, false)).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        node.termination_message()
            .contains("k3s/containerd/containerd.sock (absent)")
    );
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_refused_before_anything_is_done() {
    let node = Node::new(Serves::Containerd).await;
    node.pull("a:1", "a");
    assert!(node.error(&[]).await.starts_with("nothing to remove"));
    let broken = ["--entry".to_owned(), r#"{"reference":"a:1"}"#.to_owned()];
    let words = node.error(&[entry("a:1", None, true), broken].concat()).await;
    assert!(words.contains("missing field `claimedAt`"), "{words}");
    let many: Vec<String> = (0..101)
        .flat_map(|i| entry(&format!("a:{i}"), None, true))
        .collect();
    assert!(node.error(&many).await.starts_with("101 entries; at most 100"));
    assert_eq!(node.runtime.model().names().len(), 3);
}

#[tokio::test]
async fn a_reference_that_is_a_command_is_inert() {
    let node = Node::new(Serves::Containerd).await;
    node.pull("a:1", "a");
    let canary = node.folder.path().join("canary");
    let arguments = [
        entry(&format!("a:1; touch {}", canary.display()), None, true),
        entry("$(touch canary)", None, true),
        entry("--socket=/tmp/x", None, true),
    ];
    let report = node.report(&arguments.concat()).await;
    assert_eq!((report.absent, report.removed), (3, 0));
    assert!(!canary.exists());
    assert_eq!(node.runtime.model().names().len(), 3);
}

#[tokio::test]
async fn a_hundred_long_outcomes_fit_into_the_termination_message() {
    let node = Node::new(Serves::Containerd).await;
    let path = format!("registry.example/{}", "component/".repeat(24));
    let entries: Vec<String> = (0..100)
        .map(|i| entry(&format!("{path}{i}:1"), None, true)[1].clone())
        .collect();
    let file = node.folder.path().join("entries.json");
    std::fs::write(&file, format!("[{}]", entries.join(","))).unwrap();
    let report = node
        .report(&["--entries-file".to_owned(), file.display().to_string()])
        .await;
    assert!(node.termination_message().len() <= MAX_MESSAGE_BYTES);
    assert_eq!(report.absent, 100);
    assert_eq!(report.outcomes.len() as i32 + report.omitted, 100);
    assert!(report.outcomes.len() > 5);
}

#[tokio::test]
async fn the_version_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_larder-agent"))
        .arg("--version")
        .output()
        .await
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        concat!("larder-agent ", env!("CARGO_PKG_VERSION"), "\n")
    );
}
