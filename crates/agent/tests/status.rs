//! `larder-agent status` as a program, against the fake runtime.

#![allow(clippy::unwrap_used)]

use larder_api::names::{PINNED_LABEL, PULLED_LABEL};
use larder_runtime::{Runtime as _, RuntimeClient, Timeouts};
use larder_testkit::runtime::{FakeImage, FakeRuntime, Serves};
use serde_json::Value;
use tokio::process::Command;

async fn status(runtime: &FakeRuntime, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder-agent"));
    let output = command
        .args(["status", "--cri-socket"])
        .arg(runtime.path())
        .args(arguments)
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn images_of_larder_are_shown_with_what_is_true_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("containerd.sock");
    let runtime = FakeRuntime::start(&socket, Serves::Containerd).await.unwrap();
    let (ours, lost, foreign) = (
        FakeImage::new("ours"),
        FakeImage::new("lost"),
        FakeImage::new("foreign"),
    );
    for (name, image) in [("ours:1", &ours), ("lost:1", &lost), ("foreign:1", &foreign)] {
        runtime.model().publish(name, image);
        runtime.model().pull(name).unwrap();
    }
    let client = RuntimeClient::connect(&socket, Timeouts::default())
        .await
        .unwrap();
    let records = client.records().unwrap();
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let pulled = label(PULLED_LABEL, "2026-01-02T03:04:05Z");
    let pins = [
        label("io.cri-containerd.pinned", "pinned"),
        label(PINNED_LABEL, "true"),
        pulled.clone(),
    ];
    records.set_labels(&ours.config, &pins.into()).await.unwrap();
    records.set_labels(&lost.config, &[pulled].into()).await.unwrap();
    runtime.model().lose_content(&lost.manifest);

    let shown: Value = serde_json::from_str(&status(&runtime, &["--output", "json"]).await).unwrap();
    assert_eq!(shown["imagesInAll"], 3);
    assert_eq!(
        shown["capabilities"],
        serde_json::json!(["Content", "Pin", "Progress"])
    );
    assert!(shown["disk"]["totalBytes"].as_u64().unwrap() > 0);
    let images: Vec<(&str, bool, bool)> = shown["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| {
            let name = i["names"][0].as_str().unwrap();
            (
                name,
                i["pinned"].as_bool().unwrap(),
                i["complete"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        images,
        [
            ("docker.io/library/lost:1", false, false),
            ("docker.io/library/ours:1", true, true)
        ]
    );
    let table = status(&runtime, &[]).await;
    assert!(
        table.contains("3 on the node, 2 by Larder") && table.contains("Content, Pin, Progress"),
        "{table}"
    );
    assert!(
        table.contains("docker.io/library/ours:1") && !table.contains("foreign"),
        "{table}"
    );
}

#[tokio::test]
async fn a_runtime_that_tells_little_is_shown_so() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = FakeRuntime::start(&folder.path().join("crio.sock"), Serves::CriOnly)
        .await
        .unwrap();
    let table = status(&runtime, &[]).await;
    assert!(table.contains("Capabilities: none"), "{table}");
    let output = Command::new(env!("CARGO_BIN_EXE_larder-agent"))
        .args(["status", "--cri-socket", "/nonexistent/socket"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/socket (absent)"));
}
