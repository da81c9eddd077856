//! The local cluster itself, tried on this machine: needs root and takes about a minute.
//!
//! `cargo test -p larder-e2e --features cluster --test harness`

#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use larder_e2e::cluster::layout::Layout;
use larder_e2e::cluster::name::ClusterName;
use larder_e2e::cluster::registry::RegistryKind;
use larder_e2e::cluster::{Cluster, Node, NodeOptions, Options};
use larder_e2e::images::{ImageSpec, Registry, RegistryTarget};
use larder_e2e::progress::Stderr;

/// A cluster of its own for each test, taken down whatever happens.
struct Owned(ClusterName);

impl Owned {
    fn new(name: &str) -> Self {
        let owned = Self(ClusterName::new(name).unwrap());
        Cluster::down(&owned.0).unwrap();
        owned
    }

    fn options(&self) -> Options {
        Options {
            nodes: 1,
            image_disk: 1 << 30,
            ..Options::new(self.0.clone())
        }
    }

    async fn up(&self) -> Cluster {
        Cluster::up(&self.options(), &Stderr).await.unwrap()
    }

    fn assert_nothing_left(&self) {
        assert_eq!(Cluster::leftovers(&self.0).unwrap(), Vec::<String>::new());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let own = format!("{}.", self.0);
        assert!(!mounts.contains(&format!("/run/netns/{own}")), "{mounts}");
        assert!(!Layout::of_user(&self.0).unwrap().lock().exists());
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // The test has said already what went wrong.
        let _ = Cluster::down(&self.0);
    }
}

/// Asks until the answer is yes.
fn eventually(what: &str, seconds: u64, mut ask: impl FnMut() -> bool) {
    let began = Instant::now();
    while !ask() {
        assert!(
            began.elapsed() < Duration::from_secs(seconds),
            "{what}: not within {seconds} s"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs a pod from an image that only the open registry has.
async fn run_pod(cluster: &Cluster, node: &str, pod: &str) {
    let archive = cluster.layout().node(node).join("pause.tar");
    cluster.load(&archive, Some(&format!("{pod}:1"))).await.unwrap();
    let pin = format!(r#"{{"spec":{{"nodeName":"{node}","terminationGracePeriodSeconds":0}}}}"#);
    let image = format!("--image={pod}:1");
    cluster
        .kubectl(&["run", pod, &image, "--restart=Never", "--overrides", &pin])
        .unwrap();
    cluster
        .kubectl(&[
            "wait",
            "--for=condition=Ready",
            "--timeout=60s",
            &format!("pod/{pod}"),
        ])
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_runs_pods_names_what_died_is_repaired_and_leaves_nothing() {
    let owned = Owned::new("larder-harness");
    let cluster = owned.up().await;
    let mark = cluster.audit().mark().unwrap();
    run_pod(&cluster, "node-1", "hello").await;

    let node = cluster.node("node-1").unwrap();
    assert!(
        node.ctr(&["images", "list", "-q"])
            .unwrap()
            .lines()
            .any(|i| i == "docker.io/library/hello:1")
    );
    assert!(std::os::unix::net::UnixStream::connect(node.containerd_socket().unwrap()).is_ok());
    let asked = cluster.registry(RegistryKind::Open).unwrap().requests().unwrap();
    let by_node = asked
        .iter()
        .filter(|r| r.client == node.address().to_string() && r.path == "/v2/library/hello/manifests/1");
    assert_eq!(
        by_node.map(|r| (r.method.as_str(), r.status)).collect::<Vec<_>>(),
        [("HEAD", 200)]
    );
    let writes = cluster.audit().writes_since(mark).unwrap();
    let created = |w: &&larder_e2e::cluster::audit::AuditEvent| w.verb == "create" && w.resource == "pods";
    assert_eq!(
        writes
            .iter()
            .filter(created)
            .map(|w| w.user.as_str())
            .collect::<Vec<_>>(),
        ["larder-cluster-admin"]
    );

    for component in ["kube-scheduler", "node-1/kubelet", "registry-tls"] {
        cluster.crash(component).unwrap();
        eventually("a death that status tells", 5, || {
            let seen = std::fs::read_to_string(cluster.layout().deaths()).unwrap_or_default();
            seen.contains(component)
        });
        let status = cluster.status().await.unwrap();
        assert!(!status.is_healthy());
        assert!(
            status.to_string().contains(&format!("{component} died at ")),
            "{status}"
        );
    }
    cluster.crash("supervisor").unwrap();
    eventually("the supervisor's end", 5, || {
        Cluster::attach(&owned.0)
            .is_ok_and(|c| std::net::TcpStream::connect(("127.0.0.1", c.forwards().unwrap().api)).is_err())
    });
    let status = cluster.status().await.unwrap();
    assert!(status.to_string().contains("supervisor died"), "{status}");

    let cluster = owned.up().await;
    assert!(cluster.status().await.unwrap().is_healthy());
    let restarts = cluster.kubectl(&[
        "get",
        "pod",
        "hello",
        "-o",
        "jsonpath={.status.containerStatuses[0].restartCount}",
    ]);
    assert_eq!(restarts.unwrap(), "0", "a repair touches no container");

    Cluster::down(&owned.0).unwrap();
    owned.assert_nothing_left();
    assert!(Cluster::attach(&owned.0).is_err());
    Cluster::down(&owned.0).unwrap();
}

/// Pulls 4 MiB at 1 MiB/s.
async fn bandwidth_is_limited(cluster: &Cluster, node: &Node) {
    let image = ImageSpec::new(1).layers(1, 4 << 20);
    let registry = cluster.registry(RegistryKind::Open).unwrap();
    let target = RegistryTarget {
        base: registry.url,
        credentials: None,
        ca_file: None,
    };
    image
        .push(&Registry::connect(&target).unwrap(), "slow", "1")
        .await
        .unwrap();
    node.limit_bandwidth(Some(1 << 20)).unwrap();
    let began = Instant::now();
    let slow = format!("{}/slow:1", registry.host);
    node.ctr(&["images", "pull", "--hosts-dir", "/etc/containerd/certs.d", &slow])
        .unwrap();
    assert!(
        began.elapsed() > Duration::from_secs(3),
        "4 MiB at 1 MiB/s took {:?}",
        began.elapsed()
    );
    node.limit_bandwidth(None).unwrap();
    node.limit_bandwidth(None).unwrap();
}

/// Adds a node whose kubelet refuses its configuration.
async fn a_component_that_dies_is_named_at_once(cluster: &Cluster) {
    let options = NodeOptions {
        name: Some("broken".into()),
        kubelet: serde_json::json!({"maxPods": "many"}),
        ..NodeOptions::default()
    };
    let began = Instant::now();
    let error = cluster.node_add(options, &Stderr).await.unwrap_err().to_string();
    assert!(error.starts_with("broken/kubelet died"), "{error}");
    assert!(error.contains("maxPods"), "the end of its log: {error}");
    assert!(began.elapsed() < Duration::from_secs(30));
    cluster.node_remove("broken").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_go_lose_their_power_and_their_cable() {
    let owned = Owned::new("larder-harness-nodes");
    let cluster = owned.up().await;
    let options = NodeOptions {
        name: Some("extra".into()),
        labels: [("pool", "web"), ("node-role.kubernetes.io/worker", "")]
            .map(|(k, v)| (k.into(), v.into()))
            .into(),
        taints: vec!["team=a:NoSchedule".into()],
        image_disk: Some(256 << 20),
        ..NodeOptions::default()
    };
    let extra = cluster.node_add(options, &Stderr).await.unwrap();
    let get = |path: &str| {
        cluster
            .kubectl(&["get", "node", "extra", "-o", &format!("jsonpath={path}")])
            .unwrap()
    };
    assert_eq!(get("{.metadata.labels.pool}"), "web");
    assert!(get("{.metadata.labels}").contains("node-role.kubernetes.io/worker"));
    assert_eq!(
        get("{.spec.taints[0].key}{.spec.taints[0].effect}"),
        "teamNoSchedule"
    );
    let size = extra
        .exec("df", &["--output=size", "-B1M", "/var/lib/containerd"])
        .unwrap();
    let size: u64 = size.lines().last().unwrap().trim().parse().unwrap();
    assert!((200..=256).contains(&size), "{size} MiB");
    run_pod(&cluster, "extra", "survivor").await;

    bandwidth_is_limited(&cluster, &extra).await;
    a_component_that_dies_is_named_at_once(&cluster).await;

    let ready = |node: &str| {
        let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        cluster.kubectl(&["get", "node", node, "-o", path]).unwrap()
    };
    extra.set_connected(false).unwrap();
    eventually("that the cluster misses a node without a cable", 40, || {
        ready("extra") == "Unknown"
    });
    assert_eq!(ready("node-1"), "True", "the others go on");
    extra.set_connected(true).unwrap();
    eventually("that the node is back", 30, || ready("extra") == "True");

    cluster.node_stop("extra").await.unwrap();
    assert!(extra.ctr(&["version"]).is_err());
    let status = cluster.status().await.unwrap();
    assert!(
        status.to_string().contains("Stopped") && status.is_healthy(),
        "{status}"
    );
    let extra = cluster.node_start("extra", &Stderr).await.unwrap();
    assert!(
        extra
            .ctr(&["images", "list", "-q"])
            .unwrap()
            .contains("survivor:1"),
        "the disk stays"
    );

    extra.crash("containerd").unwrap();
    eventually("the end of containerd", 5, || {
        std::os::unix::net::UnixStream::connect(extra.containerd_socket().unwrap()).is_err()
    });
    extra.restart("containerd").unwrap();
    eventually("containerd's answer", 10, || extra.ctr(&["version"]).is_ok());

    cluster.node_remove("extra").await.unwrap();
    assert!(cluster.kubectl(&["get", "node", "extra"]).is_err());
    let again = NodeOptions {
        name: Some("extra".into()),
        ..NodeOptions::default()
    };
    let again = cluster.node_add(again, &Stderr).await.unwrap();
    assert!(
        !again
            .ctr(&["images", "list", "-q"])
            .unwrap()
            .contains("survivor:1"),
        "nothing of the old one is left"
    );

    Cluster::down(&owned.0).unwrap();
    owned.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_killed_run_left_behind_can_be_taken_down_or_finished() {
    let owned = Owned::new("larder-harness-killed");
    let up = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder-cluster"));
        command.args([
            "--name",
            owned.0.as_str(),
            "up",
            "--nodes",
            "1",
            "--image-disk",
            "512MiB",
        ]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    for milliseconds in [50, 150, 400, 1000, 2500, 5000] {
        let mut killed = up();
        std::thread::sleep(Duration::from_millis(milliseconds));
        killed.kill().unwrap();
        killed.wait().unwrap();
        Cluster::down(&owned.0).unwrap();
        owned.assert_nothing_left();
    }
    for milliseconds in [20, 60, 200] {
        owned.up().await;
        let mut down = Command::new(env!("CARGO_BIN_EXE_larder-cluster"));
        let mut killed = down.args(["--name", owned.0.as_str(), "down"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        killed.kill().unwrap();
        killed.wait().unwrap();
    }
    Cluster::down(&owned.0).unwrap();
    owned.assert_nothing_left();
    for milliseconds in [100, 600, 2000] {
        let mut killed = up();
        std::thread::sleep(Duration::from_millis(milliseconds));
        killed.kill().unwrap();
        killed.wait().unwrap();
    }
    let cluster = owned.up().await;
    assert!(cluster.status().await.unwrap().is_healthy());
    run_pod(&cluster, "node-1", "hello").await;
    Cluster::down(&owned.0).unwrap();
    owned.assert_nothing_left();
}
