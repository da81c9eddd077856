//! The client and the search for the socket, against the fake runtime.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use larder_runtime::{Runtime, RuntimeClient, RuntimeError, Timeouts, find_runtime};
use larder_testkit::runtime::{Call, FakeImage, FakeRuntime, Fault, Serves};
use tempfile::TempDir;

const SHORT: Timeouts = Timeouts {
    probe: Duration::from_millis(300),
    read: Duration::from_millis(300),
    write: Duration::from_millis(300),
};

async fn fake(folder: &TempDir, path: &str, serves: Serves) -> FakeRuntime {
    FakeRuntime::start(&folder.path().join(path), serves)
        .await
        .unwrap()
}

fn roots(folder: &TempDir) -> Vec<PathBuf> {
    vec![folder.path().to_owned()]
}

#[tokio::test]
async fn the_first_known_socket_that_answers_cri_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    // Docker's containerd serves no CRI; CRI-O died and left its socket; cri-dockerd answers.
    let _docker = fake(&folder, "containerd/containerd.sock", Serves::NoCri).await;
    std::fs::create_dir(folder.path().join("crio")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("crio/crio.sock")).unwrap());
    let _cri_dockerd = fake(&folder, "cri-dockerd.sock", Serves::CriOnly).await;
    let found = find_runtime(&roots(&folder), None, SHORT).await.unwrap();
    assert_eq!(found.path(), folder.path().join("cri-dockerd.sock"));
    assert!(found.records().is_none());
    assert_eq!(found.version().await.unwrap().runtime, "fake");
}

#[tokio::test]
async fn a_hanging_socket_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let hanging = fake(&folder, "containerd/containerd.sock", Serves::Containerd).await;
    hanging.fault(Call::Version, Fault::Hang);
    let _k3s = fake(&folder, "k3s/containerd/containerd.sock", Serves::Containerd).await;
    let found = find_runtime(&roots(&folder), None, SHORT).await.unwrap();
    assert_eq!(found.path(), folder.path().join("k3s/containerd/containerd.sock"));
    assert!(found.records().is_some());
}

#[tokio::test]
async fn a_second_root_is_searched_and_an_explicit_path_is_the_only_one() {
    let folder = tempfile::tempdir().unwrap();
    let _microk8s = fake(&folder, "microk8s/containerd.sock", Serves::Containerd).await;
    let both = [folder.path().join("run"), folder.path().join("microk8s")];
    let found = find_runtime(&both, None, SHORT).await.unwrap();
    assert_eq!(found.path(), folder.path().join("microk8s/containerd.sock"));
    let explicit = folder.path().join("elsewhere.sock");
    let nothing = find_runtime(&both, Some(&explicit), SHORT).await.unwrap_err();
    assert_eq!(nothing.0.len(), 1);
}

#[tokio::test]
async fn finding_nothing_says_what_was_tried_and_why_it_did_not_do() {
    let folder = tempfile::tempdir().unwrap();
    let _docker = fake(&folder, "containerd/containerd.sock", Serves::NoCri).await;
    std::fs::create_dir(folder.path().join("crio")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("crio/crio.sock")).unwrap());
    let words = find_runtime(&roots(&folder), None, SHORT)
        .await
        .unwrap_err()
        .to_string();
    for part in [
        "containerd/containerd.sock (serves no CRI)",
        "Connection refused",
        "k3s/containerd/containerd.sock (absent)",
        "cri-dockerd.sock (absent)",
    ] {
        assert!(words.contains(part), "{part:?} is not in {words}");
    }
}

#[tokio::test]
async fn a_call_without_an_answer_ends_in_time_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let fake = fake(&folder, "c.sock", Serves::Containerd).await;
    let client = RuntimeClient::connect(fake.path(), SHORT).await.unwrap();
    fake.fault(Call::ListImages, Fault::Hang);
    let error = client.images().await.unwrap_err();
    assert!(
        matches!(
            error,
            RuntimeError::Timeout {
                call: "ListImages",
                ..
            }
        ),
        "{error}"
    );
    fake.heal();
    assert!(client.images().await.unwrap().is_empty());
    fake.fault(Call::PullImage, Fault::Hang);
    let error = client
        .pull("web:1", None, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "PullImage: no answer within 50ms");
}

#[tokio::test]
async fn a_restarted_runtime_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut fake = fake(&folder, "c.sock", Serves::Containerd).await;
    fake.model().publish("web:1", &FakeImage::new("web"));
    fake.model().pull("web:1").unwrap();
    let client = RuntimeClient::connect(fake.path(), Timeouts::default())
        .await
        .unwrap();
    fake.stop().await.unwrap();
    let error = client.images().await.unwrap_err();
    assert!(matches!(error, RuntimeError::Refused { .. }), "{error}");
    fake.serve().await.unwrap();
    assert_eq!(client.images().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_list_beyond_grpcs_default_limit_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let fake = fake(&folder, "c.sock", Serves::Containerd).await;
    let path = format!("registry.example/{}", "long-component/".repeat(15));
    for i in 0..6000 {
        let mut model = fake.model();
        model.publish(&format!("{path}{i}:1"), &FakeImage::new(&i.to_string()));
        model.pull(&format!("{path}{i}:1")).unwrap();
    }
    let client = RuntimeClient::connect(fake.path(), Timeouts::default())
        .await
        .unwrap();
    let images = client.images().await.unwrap();
    let bytes: usize = images
        .iter()
        .flat_map(|i| i.tags.iter().chain(&i.digests))
        .map(String::len)
        .sum();
    assert_eq!(images.len(), 6000);
    assert!(bytes > 3 << 20, "{bytes} bytes of names only");
    assert_eq!(client.records().unwrap().list().await.unwrap().len(), 18000);
}

#[tokio::test]
async fn a_broken_containerd_api_is_an_error_and_not_taken_for_its_absence() {
    let folder = tempfile::tempdir().unwrap();
    let fake = fake(&folder, "c.sock", Serves::Containerd).await;
    fake.fault(Call::ContainerdVersion, Fault::Hang);
    let error = RuntimeClient::connect(fake.path(), SHORT).await.unwrap_err();
    assert!(
        error.to_string().starts_with("containerd Version: no answer"),
        "{error}"
    );
}

#[tokio::test]
async fn no_socket_is_said_in_plain_words() {
    let error = RuntimeClient::connect(Path::new("/nonexistent/c.sock"), SHORT)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/nonexistent/c.sock: No such file or directory"),
        "{error}"
    );
}
