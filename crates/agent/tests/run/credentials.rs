//! Private images: the node's credential provider plugins.

use std::os::unix::fs::PermissionsExt as _;

use larder_agent::ProviderFiles;
use larder_api::image_cache::{PrivateImages, Puller};
use larder_api::names::Reason;
use larder_api::node_image_cache::{CacheClaim, ImageOnNode, NodeState};
use larder_testkit::runtime::{FakeImage, Serves};
use serde_json::{Value, json};

use crate::node::{NODE, Node, claim, of, revision_image, revision_of, spec};

const HOST: &str = "registry.internal";

/// A plugin for images of `host` that answers what is in the file `password`, and writes down what it was asked.
fn plugin(node: &Node, host: &str, password: &str) -> ProviderFiles {
    let folder = node.folder.path().join("plugins");
    std::fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    let answer = json!({
        "kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "cacheKeyType": "Registry", "cacheDuration": "1h", "auth": {host: {"username": "robot", "password": "%s"}},
    });
    let script = format!(
        "#!/bin/sh\ncat >> {}\nprintf '{answer}' \"$(cat {})\"\n",
        path("asked"),
        path("password"),
    );
    std::fs::write(path("keyring"), script).unwrap();
    std::fs::set_permissions(path("keyring"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(path("password"), password).unwrap();
    let config = json!({
        "kind": "CredentialProviderConfig", "apiVersion": "kubelet.config.k8s.io/v1",
        "providers": [{
            "name": "keyring", "matchImages": [host], "defaultCacheDuration": "1h",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        }],
    });
    std::fs::write(path("config.json"), config.to_string()).unwrap();
    ProviderFiles {
        config: folder.join("config.json"),
        folder,
    }
}

/// A claim of a private and a public image of a registry that wants a password for the former.
fn want(node: &Node) -> CacheClaim {
    let (private, public) = (FakeImage::new("private"), FakeImage::new("public"));
    let login = ("robot".to_owned(), "s3cret".to_owned());
    node.runtime.model().logins.insert(HOST.to_owned(), login);
    let reference = format!("{HOST}/app:1");
    node.runtime.model().publish(&reference, &private);
    node.runtime.model().publish("public:1", &public);
    let mut image = revision_image(&reference, &private);
    image.private = true;
    let revision = revision_of("web-1", vec![image, revision_image("public:1", &public)]);
    node.api.publish(revision);
    let mut claim = claim("web", "web-1");
    claim.puller = Puller::Auto;
    claim.private_images = PrivateImages::Agent;
    claim
}

/// What is said of the private image once it failed for this reason.
async fn failure(node: &Node, reason: Reason) -> ImageOnNode {
    let status = node
        .until(&format!("{reason}"), |s| {
            s.puller.images.iter().any(|i| i.reason == Some(reason))
                && of(s, "web").is_some_and(|c| c.ready == 1)
        })
        .await;
    let image = status.puller.images[0].clone();
    assert_eq!(image.image, format!("{HOST}/app:1"));
    assert!(!image.message.contains("s3cret"), "{}", image.message);
    image
}

#[tokio::test]
async fn a_private_image_comes_by_a_plugin_that_is_asked_for_nothing_else() {
    for serves in [Serves::Containerd, Serves::CriOnly] {
        let mut node = Node::new(serves).await;
        let claim = want(&node);
        node.providers = Some(plugin(&node, HOST, "s3cret"));
        node.api.want(NODE, spec(vec![claim]));
        node.agent().await;
        node.until_state("web", NodeState::Ready).await;
        let asked = std::fs::read_to_string(node.folder.path().join("plugins/asked")).unwrap();
        assert_eq!(asked.matches("\"image\":").count(), 1, "{asked}");
        assert!(asked.contains(HOST), "{asked}");
        node.kill();
    }
}

#[tokio::test]
async fn what_no_plugin_opens_lacks_credentials_and_says_why() {
    let mut node = Node::new(Serves::Containerd).await;
    let claim = want(&node);
    node.api.want(NODE, spec(vec![claim]));
    let elsewhere = plugin(&node, "elsewhere.internal", "s3cret");
    let broken = node.folder.path().join("broken.json");
    std::fs::write(&broken, "kind: Secret").unwrap();
    let cases = [
        (None, "no credential provider plugins are set up"),
        (
            Some(elsewhere.clone()),
            "no credential provider plugin of this node has",
        ),
        (
            Some(ProviderFiles {
                config: broken,
                ..elsewhere
            }),
            "plugins cannot be used",
        ),
    ];
    for (providers, words) in cases {
        node.providers = providers;
        node.agent().await;
        node.until(words, |s| {
            s.puller.images.iter().any(|i| i.message.contains(words))
        })
        .await;
        let image = failure(&node, Reason::CredentialsMissing).await;
        assert!(image.message.contains("pull access denied"), "{}", image.message);
    }
}

#[tokio::test]
async fn a_password_that_is_refused_is_asked_for_anew() {
    let mut node = Node::new(Serves::Containerd).await;
    let claim = want(&node);
    node.providers = Some(plugin(&node, HOST, "stale"));
    node.api.want(NODE, spec(vec![claim]));
    node.agent().await;
    let image = failure(&node, Reason::Unauthorized).await;
    assert!(image.message.contains("401"), "{}", image.message);
    std::fs::write(node.folder.path().join("plugins/password"), "s3cret").unwrap();
    node.until_state("web", NodeState::Ready).await;
}

#[tokio::test]
async fn the_time_that_a_plugin_takes_is_not_the_pulls() {
    let mut node = Node::new(Serves::Containerd).await;
    let claim = want(&node);
    let providers = plugin(&node, HOST, "s3cret");
    let program = providers.folder.join("keyring");
    let script = std::fs::read_to_string(&program).unwrap();
    // Longer than the pull may be without progress.
    std::fs::write(&program, script.replacen('\n', "\nsleep 4\n", 1)).unwrap();
    node.providers = Some(providers);
    node.api.want(NODE, spec(vec![claim]));
    node.agent().await;
    node.until_state("web", NodeState::Ready).await;
}

#[tokio::test]
async fn a_plugin_that_fails_is_named_beside_a_password_that_is_refused() {
    let mut node = Node::new(Serves::Containerd).await;
    let claim = want(&node);
    let providers = plugin(&node, HOST, "stale");
    let program = providers.folder.join("broken");
    std::fs::write(&program, "#!/bin/sh\necho 'no metadata service' >&2\nexit 3\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut config: Value = serde_json::from_slice(&std::fs::read(&providers.config).unwrap()).unwrap();
    let mut broken = config["providers"][0].clone();
    broken["name"] = json!("broken");
    config["providers"].as_array_mut().unwrap().push(broken);
    std::fs::write(&providers.config, config.to_string()).unwrap();
    node.providers = Some(providers);
    node.api.want(NODE, spec(vec![claim]));
    node.agent().await;
    let image = failure(&node, Reason::Unauthorized).await;
    assert!(
        image.message.contains("401") && image.message.contains("credential provider broken"),
        "{}",
        image.message
    );
}

#[tokio::test]
async fn credentials_are_for_caches_that_ask_for_them() {
    let mut node = Node::new(Serves::Containerd).await;
    let mut claim = want(&node);
    claim.private_images = PrivateImages::Kubelet;
    node.providers = Some(plugin(&node, HOST, "s3cret"));
    node.api.want(NODE, spec(vec![claim]));
    node.agent().await;
    let web = node.until_state("web", NodeState::Ready).await;
    assert_eq!((web.ready, web.total), (1, 1), "the other is the kubelet's");
    assert!(!node.has(&format!("{HOST}/app:1")));
    assert!(!node.folder.path().join("plugins/asked").exists());
}
