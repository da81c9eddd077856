//! One ImageCache with images of every kind, on every node.

use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use serde_json::json;

use crate::support::{Env, condition, node, who_pulls};

#[tokio::test]
async fn five_images_arrive_on_every_node_and_the_status_says_so() {
    let env = Env::shared().await;
    let ns = env.namespace("basic").await;
    let noop = Env::noop();
    let multi = ImageSpec::new(11)
        .layers(2, 200_000)
        .architectures(&["amd64", "arm64"])
        .runs(&noop, &["hold"]);
    env.push(Open, &multi, "basic/multi", "1").await;
    env.push(
        Open,
        &ImageSpec::new(12).layers(1, 100_000).runs(&noop, &["hold"]),
        "basic/shell-less",
        "1",
    )
    .await;
    let by_digest = env
        .push(
            Open,
            &ImageSpec::new(13).layers(1, 100_000).runs(&noop, &["hold"]),
            "basic/digest",
            "1",
        )
        .await;
    env.push(
        Open,
        &ImageSpec::new(14).layers(1, 50_000).runs(&noop, &["hold"]),
        "basic/first",
        "1",
    )
    .await;
    env.push(
        Open,
        &ImageSpec::new(15).layers(3, 300_000).runs(&noop, &["hold"]),
        "library/nginx",
        "1.27",
    )
    .await;
    let digest = format!("quay.io/basic/digest@{}", by_digest.digest);
    let images = [
        "quay.io/basic/multi:1",
        "quay.io/basic/shell-less:1",
        &digest,
        "quay.io/basic/first:1",
        "nginx:1.27",
    ];

    let cache = ns
        .cache(
            "web",
            json!({"images": images.iter().map(|i| json!({
                "image": i, "priority": if i.contains("first") { 10 } else { 0 },
            })).collect::<Vec<_>>()}),
        )
        .await;
    // What a user would do.
    let waited = env.kubectl(&[
        "wait",
        "--namespace",
        &ns.name,
        "imagecache/web",
        "--for=condition=Ready",
        "--timeout=90s",
    ]);
    assert!(waited.is_ok(), "{waited:?}: {:#?}", cache.status().await);

    let nodes = env.nodes();
    let status = cache.status().await;
    let n = i32::try_from(nodes.len()).unwrap();
    assert_eq!(
        (status.nodes.selected, status.nodes.ready, status.nodes.updated),
        (n, n, n)
    );
    assert_eq!(
        (
            status.nodes.failed,
            status.nodes.progressing,
            status.nodes.waiting
        ),
        (0, 0, 0)
    );
    assert_eq!((status.images.total, status.images.unresolved), (5, 0));
    assert!(status.images.bytes > 1_500_000, "{}", status.images.bytes);
    for (kind, wanted) in [
        ("Accepted", "True"),
        ("Resolved", "True"),
        ("Ready", "True"),
        ("Progressing", "False"),
        ("Degraded", "False"),
    ] {
        assert_eq!(
            condition(&status, kind),
            Some(wanted),
            "{kind}: {:#?}",
            status.conditions
        );
    }
    for name in &nodes {
        let told = node(&status, name).unwrap();
        assert_eq!(
            (told.ready, told.total, told.puller.as_str()),
            (5, 5, who_pulls().as_str()),
            "{told:?}"
        );
        let listed = env.images_on(name);
        for image in images {
            let full = if image == "nginx:1.27" {
                "docker.io/library/nginx:1.27"
            } else {
                image
            };
            assert!(
                listed.iter().any(|l| l == full),
                "{full} is not on {name}: {listed:?}"
            );
        }
        for image in images {
            ns.runs_without_pulling(name, image).await;
        }
    }
    let row = env
        .kubectl(&["get", "ic", "--namespace", &ns.name, "--output=wide"])
        .unwrap();
    let header: Vec<&str> = row
        .lines()
        .next()
        .unwrap()
        .split("  ")
        .map(str::trim)
        .filter(|c| !c.is_empty())
        .collect();
    assert_eq!(
        header,
        [
            "NAME",
            "READY",
            "UP-TO-DATE",
            "IMAGES",
            "SIZE",
            "FAILED",
            "LAST REFRESH",
            "AGE",
            "REVISION",
            "PULLER"
        ]
    );
    let values: Vec<&str> = row.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        &values[..4],
        ["web", &format!("{n}/{n}"), &n.to_string(), "5"],
        "{row}"
    );
    // No Job is left, and no image that was not asked for.
    let jobs = env
        .kubectl(&["get", "jobs,pods", "--namespace", &ns.name, "--output=name"])
        .unwrap();
    let left: Vec<&str> = jobs.lines().filter(|l| l.contains("larder-pull")).collect();
    assert!(left.len() <= nodes.len() * 2, "Jobs go soon: {left:?}");
    ns.delete().await;
}

#[tokio::test]
async fn a_cache_that_selects_no_node_is_ready_and_says_why() {
    let env = Env::shared().await;
    let ns = env.namespace("empty").await;
    env.push(Open, &ImageSpec::new(16).layers(1, 1000), "basic/nobody", "1")
        .await;
    let spec = json!({
        "images": [{"image": "quay.io/basic/nobody:1"}],
        "nodes": {"selector": {"matchLabels": {"pool": "nowhere"}}},
    });
    let cache = ns.cache("none", spec).await;
    let status = cache.ready(30).await;
    assert_eq!(crate::support::reason(&status, "Ready"), Some("NoNodesSelected"));
    assert_eq!(status.nodes.selected, 0);
    ns.delete().await;
}
