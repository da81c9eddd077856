//! `larder-agent pull` as a program, against the fake runtime.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use larder_testkit::runtime::{Call, FakeImage, FakeRuntime, Fault, Serves};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tonic::Code;

struct Host {
    folder: TempDir,
    runtime: FakeRuntime,
}

impl Host {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/containerd.sock");
        let runtime = FakeRuntime::start(&socket, Serves::Containerd).await.unwrap();
        Self { folder, runtime }
    }

    fn publish(&self, references: &[&str]) {
        for reference in references {
            self.runtime
                .model()
                .publish(reference, &FakeImage::new(reference));
        }
    }

    fn want_login(&self, host: &str) {
        let login = ("robot".to_owned(), "s3cret".to_owned());
        self.runtime.model().logins.insert(host.to_owned(), login);
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder-agent"));
        command
            .arg("pull")
            .arg("--cri-socket")
            .arg(format!("unix://{}", self.runtime.path().display()))
            .args([
                "--retry-delay",
                "10ms",
                "--max-retry-delay",
                "20ms",
                "--node-name",
                "host-1",
            ]);
        command
    }

    async fn pull(&self, arguments: &[&str]) -> Pulled {
        Pulled::of(self.command().args(arguments).output().await.unwrap())
    }
}

struct Pulled {
    code: Option<i32>,
    attempts: Vec<Value>,
    summary: Value,
    everything: String,
}

impl Pulled {
    fn of(output: Output) -> Self {
        let stdout = String::from_utf8(output.stdout).unwrap();
        let mut lines: Vec<Value> = stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let summary = lines
            .pop()
            .map(|mut last| last["summary"].take())
            .unwrap_or_default();
        Self {
            code: output.status.code(),
            attempts: lines,
            summary,
            everything: format!("{stdout}{}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    fn errors_of(&self, image: &str) -> Vec<&str> {
        let of_image = self.attempts.iter().filter(|a| a["image"] == image);
        of_image.map(|a| a["error"].as_str().unwrap()).collect()
    }
}

#[tokio::test]
async fn a_list_is_pulled_and_what_fails_costs_only_itself() {
    let host = Host::new().await;
    host.publish(&["nginx:1.27", "quay.io/a/b:1"]);
    let list = host.file(
        "list",
        "# ours\nnginx:1.27\ndocker.io/library/nginx:1.27\n\nmissing:1 # gone\nNot/A:Ref;reboot\n",
    );
    let list = list.to_str().unwrap();
    let pulled = host.pull(&["quay.io/a/b:1", "--image-list-file", list]).await;
    assert_eq!(pulled.code, Some(1), "{}", pulled.everything);
    let summary = &pulled.summary;
    assert_eq!(
        (&summary["total"], &summary["ready"], &summary["failed"]),
        (&4.into(), &2.into(), &2.into())
    );
    let mut failures: Vec<(&str, &str)> = summary["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| (f["image"].as_str().unwrap(), f["reason"].as_str().unwrap()))
        .collect();
    failures.sort_unstable();
    assert_eq!(
        failures,
        [
            ("Not/A:Ref;reboot", "InvalidReference"),
            ("docker.io/library/missing:1", "NotFound")
        ]
    );
    assert_eq!(
        pulled.errors_of("docker.io/library/missing:1").len(),
        3,
        "it is given up"
    );
    let there = pulled
        .attempts
        .iter()
        .find(|a| a["image"] == "quay.io/a/b:1")
        .unwrap();
    assert_eq!((&there["error"], &there["node"]), (&"".into(), &"host-1".into()));
    assert!(there["size_bytes"].as_i64().unwrap() > 0 && there["duration_ms"].is_i64());
    assert!(there["attempt_id"].as_str().unwrap().len() == 16 && there["started_at"].is_string());
    let names = host.runtime.model().names();
    assert!(
        names.contains(&"docker.io/library/nginx:1.27".to_owned()),
        "{names:?}"
    );
}

#[tokio::test]
async fn all_there_is_success() {
    let host = Host::new().await;
    host.publish(&["a:1", "b:1", "c:1", "d:1"]);
    let pulled = host.pull(&["a:1", "b:1", "c:1", "d:1", "--parallel", "2"]).await;
    assert_eq!(pulled.code, Some(0), "{}", pulled.everything);
    assert_eq!((pulled.attempts.len(), &pulled.summary["ready"]), (4, &4.into()));
    assert_eq!(pulled.summary["failures"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn what_may_heal_is_repeated_until_it_does() {
    let host = Host::new().await;
    host.publish(&["a:1"]);
    let refused = "dial tcp 10.0.0.1:443: connect: connection refused";
    host.runtime.fault(
        Call::PullImage,
        Fault::Fail(Code::Unavailable, refused.to_owned()),
    );
    let mut command = host.command();
    let running = tokio::spawn(async move { command.arg("a:1").output().await.unwrap() });
    tokio::time::sleep(Duration::from_millis(500)).await;
    host.runtime.heal();
    let pulled = Pulled::of(running.await.unwrap());
    assert_eq!(pulled.code, Some(0), "{}", pulled.everything);
    let errors = pulled.errors_of("docker.io/library/a:1");
    assert!(
        errors.len() > 3 && errors[0].contains("connection refused"),
        "{errors:?}"
    );
    assert_eq!(errors.last(), Some(&""));
}

#[tokio::test]
async fn a_hanging_pull_ends_with_its_attempt_and_with_the_whole() {
    let host = Host::new().await;
    host.publish(&["a:1"]);
    host.runtime.fault(Call::PullImage, Fault::Hang);
    let begun = Instant::now();
    let arguments = [
        "a:1",
        "--attempt-timeout",
        "100ms",
        "--max-attempt-timeout",
        "200ms",
        "--overall-timeout",
        "1s",
    ];
    let pulled = host.pull(&arguments).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(pulled.code, Some(1));
    let attempts: Vec<i64> = pulled
        .attempts
        .iter()
        .map(|a| a["duration_ms"].as_i64().unwrap())
        .collect();
    assert!(
        attempts.len() >= 2 && attempts[0] < 200 && attempts[1] >= 200,
        "{attempts:?}"
    );
    let failure = &pulled.summary["failures"][0];
    assert_eq!(failure["reason"], "Timeout");
    assert_eq!(failure["error"], "not done within --overall-timeout");
}

#[tokio::test]
async fn every_fitting_login_is_tried_and_none_is_shown() {
    let host = Host::new().await;
    host.publish(&["registry.example/team/app:1", "quay.io/open/app:1"]);
    host.want_login("registry.example");
    let config = r#"{"auths": {
        "registry.example/team": {"username": "stale", "password": "hunter2"},
        "registry.example": {"auth": "cm9ib3Q6czNjcmV0"},
        "quay.io": {"username": "stale", "password": "hunter2"}
    }}"#;
    let config = host.file("config.json", config);
    let arguments = [
        "registry.example/team/app:1",
        "quay.io/open/app:1",
        "--docker-config",
        config.to_str().unwrap(),
    ];
    let pulled = host.pull(&arguments).await;
    assert_eq!(pulled.code, Some(0), "{}", pulled.everything);
    let without = host.pull(&["registry.example/team/app:1"]).await;
    assert_eq!(
        without.summary["failures"][0]["reason"], "CredentialsMissing",
        "{}",
        without.everything
    );
    for shown in [pulled.everything, without.everything] {
        assert!(!shown.contains("hunter2") && !shown.contains("s3cret"), "{shown}");
    }
}

/// A plugin that notes what it was asked and answers for `registry.example`.
fn plugin(host: &Host, script: &str) -> [String; 4] {
    let bin = host.folder.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let path = bin.join("plugin");
    std::fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let asked = host.folder.path().join("asked");
    let config = host.file(
        "providers.yaml",
        &format!(
            "kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n\
             - name: plugin\n  matchImages: [\"*.example\"]\n  defaultCacheDuration: 10m\n  \
             apiVersion: credentialprovider.kubelet.k8s.io/v1\n  args: [get, \"$(reboot)\"]\n  \
             env: [{{name: ASKED, value: {}}}, {{name: PASSWORD, value: s3cret}}]\n",
            asked.display()
        ),
    );
    [
        "--image-credential-provider-config".to_owned(),
        config.to_str().unwrap().to_owned(),
        "--image-credential-provider-bin-dir".to_owned(),
        bin.to_str().unwrap().to_owned(),
    ]
}

const ANSWER: &str = r#"
{ echo "$1 $2"; cat; echo; } >> "$ASKED"
echo '{"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
  "cacheKeyType": "Registry", "cacheDuration": "5m", "auth": {"*.example": {"username": "robot", "password": "'$PASSWORD'"}}}'
"#;

#[tokio::test]
async fn a_plugin_is_asked_as_the_kubelet_asks_it() {
    let host = Host::new().await;
    let images = ["registry.example/a:1", "registry.example/b:1", "quay.io/c:1"];
    host.publish(&images);
    host.want_login("registry.example");
    let plugin = plugin(&host, ANSWER);
    let arguments: Vec<&str> = images
        .into_iter()
        .chain(plugin.iter().map(String::as_str))
        .chain(["--parallel", "1"])
        .collect();
    let pulled = host.pull(&arguments).await;
    assert_eq!(pulled.code, Some(0), "{}", pulled.everything);
    assert!(!pulled.everything.contains("s3cret"));
    let asked = std::fs::read_to_string(host.folder.path().join("asked")).unwrap();
    let lines: Vec<&str> = asked.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines[0], "get $(reboot)", "arguments never pass a shell");
    let request: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(request["kind"], "CredentialProviderRequest");
    assert_eq!(request["apiVersion"], "credentialprovider.kubelet.k8s.io/v1");
    assert_eq!(request["image"], "registry.example/a:1");
    assert_eq!(lines.len(), 2, "the answer is good for the registry: {asked}");
}

#[tokio::test]
async fn a_slow_plugin_takes_nothing_of_the_time_for_an_attempt() {
    let host = Host::new().await;
    host.publish(&["registry.example/a:1"]);
    host.want_login("registry.example");
    let plugin = plugin(&host, &format!("sleep 3\n{ANSWER}"));
    let arguments: Vec<&str> = ["registry.example/a:1"]
        .into_iter()
        .chain(plugin.iter().map(String::as_str))
        .chain(["--attempt-timeout", "2s", "--max-attempt-timeout", "2s"])
        .chain(["--overall-timeout", "20s"])
        .collect();
    let pulled = host.pull(&arguments).await;
    assert_eq!(pulled.code, Some(0), "{}", pulled.everything);
}

#[tokio::test]
async fn a_failing_plugin_is_named_where_its_credentials_were_needed() {
    let host = Host::new().await;
    host.publish(&["registry.example/a:1", "open.example/b:1"]);
    host.want_login("registry.example");
    let plugin = plugin(&host, "echo 'no metadata service' >&2\nexit 3\n");
    let arguments: Vec<&str> = ["registry.example/a:1", "open.example/b:1"]
        .into_iter()
        .chain(plugin.iter().map(String::as_str))
        .collect();
    let pulled = host.pull(&arguments).await;
    assert_eq!(pulled.code, Some(1));
    assert_eq!(pulled.errors_of("open.example/b:1"), [""]);
    let error = pulled.errors_of("registry.example/a:1")[0];
    assert!(
        error.contains("credential provider plugin") && error.contains("no metadata service"),
        "{error}"
    );
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_told_apart_from_failures() {
    let host = Host::new().await;
    let bad = host.file("bad.json", "hunter2");
    let bad = bad.to_str().unwrap();
    let table: [(&[&str], &str); 7] = [
        (&[], "nothing to pull"),
        (
            &["a:1", "--image-list-file", "/nonexistent/list"],
            "cannot read the image list",
        ),
        (&["a:1", "--docker-config", bad], "is not JSON"),
        (&["a:1", "--parallel", "0"], "--parallel"),
        (&["a:1", "--attempt-timeout", "soon"], "no duration"),
        (&["a:1", "--image-credential-provider-config", bad], "bin-dir"),
        (
            &[
                "a:1",
                "--image-credential-provider-config",
                bad,
                "--image-credential-provider-bin-dir",
                "/",
            ],
            "--image-credential-provider-config",
        ),
    ];
    for (arguments, words) in table {
        let output = host.command().args(arguments).output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains(words) && !stderr.contains("hunter2"),
            "{arguments:?}: {stderr}"
        );
    }
    let mut nowhere = Command::new(env!("CARGO_BIN_EXE_larder-agent"));
    let output = nowhere
        .args(["pull", "a:1", "--cri-socket", "/nonexistent/socket"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "no runtime is a failure");
}

#[tokio::test]
async fn a_signal_ends_it_with_a_summary() {
    let host = Host::new().await;
    host.publish(&["a:1"]);
    host.runtime.fault(Call::PullImage, Fault::Hang);
    let mut command = host.command();
    let child = command
        .arg("a:1")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let pid = child.id().unwrap().to_string();
    Command::new("kill").arg(&pid).status().await.unwrap();
    let pulled = Pulled::of(child.wait_with_output().await.unwrap());
    assert_eq!(pulled.code, Some(1));
    assert_eq!(pulled.summary["failures"][0]["error"], "ended by SIGTERM");
}
