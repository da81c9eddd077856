//! Images that a registry gives to those with a password only, and who may use them on a node afterwards.

mod component;
mod policies;

use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use larder_api::names::Reason;
use larder_e2e::cluster::NodeOptions;
use larder_e2e::cluster::registry::RegistryKind::Auth;
use larder_e2e::progress::Stderr;
use serde_json::{Value, json};

use super::{agent_is_there, pod_on};
use crate::support::{Env, failure, node};
use component::Component;

const NODE: &str = "keyring";

/// A cache of the node that has plugins, out of the other tests' way.
fn on_the_node(mut spec: Value) -> Value {
    spec["nodes"] = json!({
        "selector": {"matchLabels": {"keyring": "true"}},
        "tolerations": [{"key": "keyring", "operator": "Exists"}],
    });
    spec
}

/// All that a reader of the cluster could find a password in, but for the secrets themselves.
async fn what_can_be_read(env: &Env) -> String {
    let objects = "imagecaches,imagecacherevisions,nodeimagecaches,events,pods,jobs,daemonsets";
    let mut read = env
        .kubectl(&["get", objects, "--all-namespaces", "-o", "json"])
        .unwrap();
    let logs = |namespace: &str, of: &str| env.kubectl(&["-n", namespace, "logs", of, "--tail=-1"]).unwrap();
    read += &logs("larder-system", "deployment/larder-operator");
    for node in env.nodes().iter().map(String::as_str).chain([NODE]) {
        let pod = pod_on(env, node).await.unwrap().metadata.name.unwrap();
        let log = logs("larder-agents", &pod);
        assert!(log.contains("\"pulling\""), "not the log of an agent: {log}");
        read += &log;
    }
    read
}

#[tokio::test]
async fn the_agent_pulls_private_images_by_its_nodes_plugin_and_without_one_says_what_is_missing() {
    let env = Env::exclusive().await;
    let ns = env.namespace("plugin").await;
    let registry = env.registry(Auth);
    let (user, password) = registry.credentials.clone().unwrap();
    let mut images = Vec::new();
    for name in ["job", "looked-up", "on-node", "bare"] {
        images.push(ns.image(&env, Auth, name).await);
    }
    ns.pull_secret("regcred", &registry.host, &user, &password).await;

    let component = Component::install(&env, NODE, &registry.host, &user, &password);
    let options = NodeOptions {
        name: Some(NODE.into()),
        taints: vec!["keyring=true:NoSchedule".into()],
        labels: [("keyring".to_owned(), "true".to_owned())].into(),
        ..NodeOptions::default()
    };
    env.cluster.node_add(options, &Stderr).await.unwrap();
    agent_is_there(&env, NODE).await;

    // By the kubelet with the cache's secret, unless the cache says otherwise.
    let secrets = json!([{"name": "regcred"}]);
    let spec = json!({"images": [{"image": images[0]}], "pullSecrets": secrets, "puller": "Auto"});
    let by_job = ns.cache("by-job", on_the_node(spec)).await;
    let status = by_job.ready(60).await;
    assert_eq!(node(&status, NODE).unwrap().puller, "Job");

    // By the agent: the operator looked one of them up with a secret, nobody the other.
    let spec = json!({
        "images": [{"image": images[1]}], "pullSecrets": secrets, "puller": "Auto", "privateImages": "Agent",
    });
    let looked_up = ns.cache("looked-up", on_the_node(spec)).await;
    let spec = json!({
        "images": [{"image": images[2]}], "resolve": "OnNode", "puller": "Auto", "privateImages": "Agent",
    });
    let by_node = ns.cache("on-node", on_the_node(spec)).await;
    for cache in [&looked_up, &by_node] {
        let status = cache.ready(60).await;
        assert_eq!(node(&status, NODE).unwrap().puller, "Agent", "{}", cache.name);
    }
    for image in &images[..3] {
        assert!(env.node_has(NODE, image), "{image}");
    }
    let jobs = ns.api::<Job>().list(&ListParams::default()).await.unwrap().items;
    let names = |job: &Job| serde_json::to_string(&job.spec).unwrap();
    for image in &images[1..] {
        assert!(jobs.iter().all(|j| !names(j).contains(image.as_str())), "{image}");
    }

    // The other nodes' agents have no plugins.
    let spec = json!({
        "images": [{"image": images[3]}], "resolve": "OnNode", "puller": "Auto", "privateImages": "Agent",
    });
    let bare = ns.cache("bare", spec).await;
    let nodes = i32::try_from(env.nodes().len()).unwrap();
    let status = bare
        .until("credentials are missing", 60, |s| {
            failure(s, &images[3]).is_some_and(|f| f.reason == Reason::CredentialsMissing && f.nodes == nodes)
        })
        .await;
    let message = &failure(&status, &images[3]).unwrap().message;
    assert!(
        message.contains("no credential provider plugins are set up"),
        "{message}"
    );

    let read = what_can_be_read(&env).await;
    assert!(!read.contains(&password), "the password can be read");
    env.cluster.node_remove(NODE).await.unwrap();
    drop(component);
    ns.delete().await;
}
