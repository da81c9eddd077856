//! Every example applies, and becomes Ready where its images are to be had.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use larder_e2e::cluster::registry::RegistryKind;
use larder_e2e::images::{Destination, ImageSpec};
use serde_json::json;

use crate::support::{Cache, Env, reason};

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    files
}

/// Values of a key anywhere in the YAML, such as of `image`.
fn values<'a>(yaml: &'a str, key: &str) -> Vec<&'a str> {
    let prefix = format!("{key}: ");
    yaml.lines()
        .map(|line| line.trim_start().trim_start_matches("- "))
        .filter_map(|line| line.strip_prefix(prefix.as_str()))
        .collect()
}

#[tokio::test]
async fn every_example_becomes_ready_and_can_be_deleted() {
    let env = Env::exclusive().await;
    // The example for some nodes finds one.
    let nodes: Api<Node> = Api::all(env.client.clone());
    let chosen = env.nodes().remove(0);
    let label = |value| Patch::Merge(json!({"metadata": {"labels": {"pool": value}}}));
    nodes
        .patch(&chosen, &PatchParams::default(), &label(json!("web")))
        .await
        .unwrap();
    for (number, file) in examples().iter().enumerate() {
        let shown = file.file_name().unwrap().to_string_lossy().into_owned();
        let yaml = fs::read_to_string(file).unwrap();
        for image in values(&yaml, "image") {
            // Nodes take the open registry for every public one.
            let Destination { repository, tag } = Destination::parse(image).unwrap();
            let spec = ImageSpec::new(8_900 + number as u64).layers(1, 10_000);
            env.push(RegistryKind::Open, &spec, &repository, &tag).await;
        }
        let path = file.to_str().unwrap();
        let applied = env
            .kubectl(&["apply", "-f", path, "--output=name"])
            .unwrap_or_else(|e| panic!("{shown}: {e}"));
        let names: Vec<&str> = applied
            .lines()
            .filter_map(|l| l.strip_prefix("imagecache.larder.dev/"))
            .collect();
        // Everything is about caches, but for one about who may ask.
        assert_eq!(
            names.is_empty(),
            shown == "network-policy.yaml",
            "{shown}: {applied}"
        );
        let namespace = values(&yaml, "namespace").into_iter().next_back().unwrap();
        for name in names {
            let cache = Cache {
                namespace: namespace.into(),
                name: name.into(),
                client: env.client.clone(),
            };
            let status = cache.ready(90).await;
            assert_eq!(
                reason(&status, "Ready"),
                Some("AllNodesReady"),
                "{shown}: {status:?}"
            );
            assert!(status.nodes.selected > 0, "{shown}: {status:?}");
        }
        // Twice is once.
        let again = env.kubectl(&["apply", "-f", path]).unwrap();
        let ours = |l: &&str| l.starts_with("imagecache") || l.starts_with("networkpolicy");
        let mut lines = again.lines().filter(ours);
        assert!(lines.all(|l| l.ends_with(" unchanged")), "{shown}: {again}");
        env.kubectl(&["delete", "-f", path, "--timeout=90s"])
            .unwrap_or_else(|e| panic!("{shown}: {e}"));
    }
    nodes
        .patch(&chosen, &PatchParams::default(), &label(json!(null)))
        .await
        .unwrap();
}
