//! The cluster that the tests share.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use kube::Client;
use larder_e2e::cluster::audit::{AuditEvent, AuditMark};
use larder_e2e::cluster::name::ClusterName;
use larder_e2e::cluster::registry::{Registry as ClusterRegistry, RegistryKind};
use larder_e2e::cluster::{Cluster, addresses};
use larder_e2e::images::{ImageSpec, Pushed, Registry, RegistryTarget};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Namespace, truth};

/// Tests that disturb the cluster hold it alone.
static CLUSTER: RwLock<()> = RwLock::const_new(());

enum Hold {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// The shared cluster, held for one test.
pub struct Env {
    pub cluster: Cluster,
    pub client: Client,
    _hold: Hold,
}

impl Drop for Env {
    fn drop(&mut self) {
        let found = truth::false_claims();
        assert!(
            found.is_empty() || std::thread::panicking(),
            "a status claims what the node lacks: {found:#?}"
        );
    }
}

impl Env {
    /// Beside other tests.
    pub async fn shared() -> Self {
        Self::new(Hold::Shared {
            _guard: CLUSTER.read().await,
        })
        .await
    }

    /// With nobody else at work: for tests that stop nodes, restart the operator or count everything.
    pub async fn exclusive() -> Self {
        Self::new(Hold::Alone {
            _guard: CLUSTER.write().await,
        })
        .await
    }

    async fn new(hold: Hold) -> Self {
        let name = std::env::var("LARDER_E2E_CLUSTER").unwrap_or_else(|_| "larder-test".into());
        let cluster = Cluster::attach(&ClusterName::new(name).unwrap())
            .expect("the test cluster is not up: run `make e2e`, or `larder-cluster up --name larder-test`");
        let client = cluster.client().await.unwrap();
        truth::watch(&cluster);
        Self {
            cluster,
            client,
            _hold: hold,
        }
    }

    /// A namespace for this test alone; `prefix` tells whose it is.
    pub async fn namespace(&self, prefix: &str) -> Namespace {
        Namespace::create(self, prefix).await
    }

    /// Host and port of a registry as image references in the cluster name it.
    pub fn registry(&self, kind: RegistryKind) -> ClusterRegistry {
        self.cluster.registry(kind).unwrap()
    }

    /// Pushes an image and returns what came of it.
    pub async fn push(&self, kind: RegistryKind, spec: &ImageSpec, repository: &str, tag: &str) -> Pushed {
        spec.push(&self.pusher(kind), repository, tag).await.unwrap()
    }

    /// A registry to push to.
    pub fn pusher(&self, kind: RegistryKind) -> Registry {
        let registry = self.registry(kind);
        let target = RegistryTarget {
            base: registry.url,
            credentials: registry.credentials,
            ca_file: registry.ca,
        };
        Registry::connect(&target).unwrap()
    }

    /// The static program that makes test images run.
    pub fn noop() -> PathBuf {
        let folder =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/larder/bin/linux_amd64/larder-noop");
        assert!(
            folder.exists(),
            "{} is missing: run `make binaries`",
            folder.display()
        );
        folder
    }

    /// Runs the cluster's own kubectl; returns its output, or its errors where it fails.
    pub fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new(self.cluster.binaries().join("kubectl"))
            .arg("--kubeconfig")
            .arg(self.cluster.kubeconfig())
            .args(args)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    /// Like [`Self::kubectl`] with a file of this text.
    pub fn apply(&self, yaml: &str) -> Result<String, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, yaml.as_bytes()).unwrap();
        self.kubectl(&["apply", "-f", file.path().to_str().unwrap()])
    }

    /// Names that containerd lists on a node.
    pub fn images_on(&self, node: &str) -> Vec<String> {
        let listed = self
            .cluster
            .node(node)
            .unwrap()
            .ctr(&["images", "list", "--quiet"])
            .unwrap();
        listed.lines().map(str::to_owned).collect()
    }

    /// Whether a node's containerd has this name, normalised.
    pub fn node_has(&self, node: &str, reference: &str) -> bool {
        self.images_on(node).iter().any(|name| name == reference)
    }

    /// A registry where nothing listens.
    pub fn closed_host() -> String {
        format!("{}:{}", addresses::REFUSING, addresses::REGISTRY_PORT)
    }

    /// A registry that drops every packet.
    pub fn silent_host() -> String {
        format!("{}:{}", addresses::DROPPING, addresses::REGISTRY_PORT)
    }

    /// Names of the cluster's nodes, but for those that a test added for itself with a taint.
    pub fn nodes(&self) -> Vec<String> {
        self.cluster
            .nodes()
            .unwrap()
            .iter()
            .filter(|n| n.state().taints.is_empty())
            .map(|n| n.name().to_owned())
            .collect()
    }

    /// Pulls an image as somebody else would: past Larder and the kubelet.
    pub fn pull_by_hand(&self, node: &str, reference: &str) {
        let hosts = [
            "images",
            "pull",
            "--hosts-dir",
            "/etc/containerd/certs.d",
            reference,
        ];
        self.cluster.node(node).unwrap().ctr(&hosts).unwrap();
    }

    pub async fn sleep(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// Writes that Larder itself made since then: not those of controllers on behalf of its Jobs, nor those of leases.
pub fn writes_of_larder(env: &Env, since: AuditMark) -> Vec<AuditEvent> {
    let writes = env.cluster.audit().writes_since(since).unwrap();
    let larder = |w: &AuditEvent| w.user == "system:serviceaccount:larder-system:larder-operator";
    writes
        .into_iter()
        .filter(|w| larder(w) && w.resource != "leases")
        .collect()
}
