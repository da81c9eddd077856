//! A node for tests: a fake runtime, an API server, and an agent between them.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Client, Config};
use larder_agent::ProviderFiles;
use larder_agent::run::{Settings, keep};
use larder_api::image_cache::{PrivateImages, ProtectSpec, Puller, Removal, RetrySpec, TimeoutsSpec};
use larder_api::node_image_cache::{
    AgentStatus, CacheClaim, CacheOnNode, ClaimOverrides, Desired, NodeState,
};
use larder_api::revision::{PlatformManifest, RevisionBody, RevisionImage};
use larder_api::{ImageCacheRevision, ImageCacheRevisionSpec, NodeImageCacheSpec};
use larder_core::image_ref::ImageRef;
use larder_testkit::runtime::{FakeImage, FakeRuntime, Serves};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::api::FakeApi;

pub const NODE: &str = "node-1";
const NODE_UID: &str = "node-uid";

pub struct Node {
    pub folder: TempDir,
    pub runtime: FakeRuntime,
    pub api: FakeApi,
    /// For agents started from now on.
    pub providers: Option<ProviderFiles>,
    agent: Option<AbortHandle>,
    http: String,
}

impl Node {
    /// Without an agent.
    pub async fn new(serves: Serves) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/containerd/containerd.sock");
        let runtime = FakeRuntime::start(&socket, serves).await.unwrap();
        runtime.model().now = Timestamp::now();
        Self {
            folder,
            runtime,
            api: FakeApi::start().await,
            providers: None,
            agent: None,
            http: String::new(),
        }
    }

    /// Starts an agent; one that is at work is ended as by SIGKILL.
    pub async fn agent(&mut self) {
        self.kill();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.http = listener.local_addr().unwrap().to_string();
        let settings = Settings {
            node_name: NODE.to_owned(),
            pod_uid: "pod-1".to_owned(),
            socket: None,
            host_run: vec![self.folder.path().join("run")],
            look_every: Duration::from_secs(1),
            providers: self.providers.clone(),
        };
        let client = Client::try_from(Config::new(self.api.url.parse().unwrap())).unwrap();
        let agent = tokio::spawn(async move { keep(client, settings, listener).await.unwrap() });
        self.agent = Some(agent.abort_handle());
    }

    pub fn kill(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.abort();
        }
    }

    /// What the agent answers over HTTP: code and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Waits until the status says so.
    pub async fn until(&self, what: &str, holds: impl Fn(&AgentStatus) -> bool) -> AgentStatus {
        let status = || self.api.status().filter(|status| holds(status));
        let reached = until(what, async || status()).await;
        assert!(reached.is_some(), "not reached: {what}\n{:#?}", self.api.status());
        reached.unwrap()
    }

    /// Waits until the cache is in this state.
    pub async fn until_state(&self, cache: &str, state: NodeState) -> CacheOnNode {
        let status = self
            .until(&format!("{cache} {state:?}"), |s| {
                of(s, cache).is_some_and(|c| c.state == state)
            })
            .await;
        of(&status, cache).unwrap().clone()
    }

    /// Waits until something holds of the runtime.
    pub async fn until_runtime(&self, what: &str, holds: impl Fn(&FakeRuntime) -> bool) {
        let held = until(what, async || holds(&self.runtime).then_some(())).await;
        assert!(
            held.is_some(),
            "not reached: {what}; records {:?}\n{:#?}",
            self.runtime.model().names(),
            self.api.status()
        );
    }

    /// Makes images pullable, and a revision of them.
    pub fn publish(&self, revision: &str, images: &[(&str, &FakeImage)]) {
        let mut listed = Vec::new();
        for (reference, image) in images {
            self.runtime.model().publish(reference, image);
            listed.push(revision_image(reference, image));
        }
        self.api.publish(revision_of(revision, listed));
    }

    /// Whether a name points at this image.
    pub fn has(&self, name: &str) -> bool {
        self.runtime.model().names().iter().any(|n| n == name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The value as soon as there is one; none if there is none for long.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut value: impl FnMut() -> F) -> Option<T> {
    for _ in 0..400 {
        if let Some(value) = value().await {
            return Some(value);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eprintln!("waited in vain for {what}");
    None
}

pub fn of<'a>(status: &'a AgentStatus, cache: &str) -> Option<&'a CacheOnNode> {
    status.puller.caches.iter().find(|c| c.name == cache)
}

pub fn revision_image(reference: &str, image: &FakeImage) -> RevisionImage {
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    RevisionImage {
        image: ImageRef::parse(reference).unwrap().normalized().to_owned(),
        digest: Some(image.manifest.clone()),
        platforms: vec![PlatformManifest {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
            digest: image.image_manifest.clone(),
            size_bytes: i64::try_from(image.size).unwrap(),
        }],
        ..RevisionImage::default()
    }
}

pub fn revision_of(name: &str, mut images: Vec<RevisionImage>) -> ImageCacheRevision {
    images.sort_by(|a, b| a.image.cmp(&b.image));
    let spec = ImageCacheRevisionSpec {
        images,
        ..ImageCacheRevisionSpec::default()
    };
    let mut revision = ImageCacheRevision::new(name, RevisionBody { number: 1, spec });
    revision.metadata.namespace = Some("team".to_owned());
    revision
}

/// A claim of cache `name` on revision `revision`, with short delays and no care for this machine's disk.
pub fn claim(name: &str, revision: &str) -> CacheClaim {
    let now = Time(Timestamp::now());
    let seconds = |n| Duration::from_secs(n).into();
    CacheClaim {
        namespace: "team".to_owned(),
        name: name.to_owned(),
        uid: format!("uid of {name}"),
        revision: revision.to_owned(),
        desired: Desired::Present,
        remove_revisions: Vec::new(),
        claimed_at: now.clone(),
        assigned_at: now,
        removal: Removal::Purge,
        verify_after: None,
        puller: Puller::Agent,
        private_images: PrivateImages::Kubelet,
        service_account: false,
        overrides: Some(ClaimOverrides {
            protect: Some(ProtectSpec {
                pin: true,
                min_free_disk: "0%".to_owned(),
            }),
            timeouts: Some(TimeoutsSpec {
                no_progress: seconds(2),
                attempt: seconds(60),
                overall: seconds(600),
            }),
            retry: Some(RetrySpec {
                initial_delay: seconds(1),
                max_delay: seconds(10),
            }),
            ..ClaimOverrides::default()
        }),
    }
}

pub fn spec(caches: Vec<CacheClaim>) -> NodeImageCacheSpec {
    NodeImageCacheSpec {
        node_uid: NODE_UID.to_owned(),
        caches,
        limits: None,
    }
}

/// Labels of the record named like the image id.
pub fn labels(runtime: &FakeRuntime, image: &FakeImage) -> BTreeMap<String, String> {
    runtime.model().labels(&image.config).cloned().unwrap_or_default()
}
