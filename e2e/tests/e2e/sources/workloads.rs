//! What runs already.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use serde_json::{Value, json};

use super::{holds_exactly, newest};
use crate::support::{Env, eventually, reason};

fn deployment(name: &str, image: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": name}}},
                    ]}},
                    "containers": [{"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}],
                },
            },
        },
    })
}

#[tokio::test]
async fn the_second_pod_of_a_deployment_need_not_pull() {
    let env = Env::shared().await;
    let ns = env.namespace("source-work").await;
    let repository = format!("{}/app", ns.name);
    let spec = ImageSpec::new(rand::random())
        .layers(1, 10_000)
        .runs(&Env::noop(), &[]);
    env.push(Open, &spec, &repository, "1").await;
    let image = format!("{}/{repository}:1", env.registry(Open).host);
    let cache = ns
        .cache("work", json!({"sources": [{"name": "pods", "workloads": {}}]}))
        .await;
    cache
        .until("nothing runs here yet", 30, |s| s.sources.iter().any(|s| s.ready))
        .await;

    let deployments = ns.api::<Deployment>();
    let params = PatchParams::apply("test").force();
    let apply = async |replicas| {
        let object = deployment("app", &image, replicas);
        deployments
            .patch("app", &params, &Patch::Apply(&object))
            .await
            .unwrap();
    };
    apply(1).await;
    holds_exactly(&ns, &cache, 10, &[&image]).await;
    cache.ready(60).await;
    let pods = ns.api::<Pod>();
    let of_app = ListParams::default().labels("app=app");
    let first = eventually("the first pod is there", 30, || async {
        let found = pods.list(&of_app).await.unwrap().items;
        found
            .first()
            .and_then(|p| p.metadata.name.clone())
            .ok_or_else(|| "none".to_owned())
    })
    .await;

    apply(2).await;
    let second = eventually("the second pod's container was started", 60, || async {
        let found = pods.list(&of_app).await.unwrap().items;
        let second = found.iter().find(|p| p.metadata.name.as_ref() != Some(&first));
        let statuses = second.and_then(|p| p.status.as_ref()?.container_statuses.as_ref());
        let started = statuses.is_some_and(|all| all.iter().any(|c| c.container_id.is_some()));
        match second {
            Some(pod) if started => Ok(pod.metadata.name.clone().unwrap()),
            other => Err(format!("{:?}", other.and_then(|p| p.status.as_ref()))),
        }
    })
    .await;
    let about = ListParams::default().fields(&format!("involvedObject.name={second}"));
    let events = eventually("the second pod's events are there", 30, || async {
        let events = ns.api::<Event>().list(&about).await.unwrap().items;
        let reasons: Vec<String> = events.into_iter().filter_map(|e| e.reason).collect();
        if reasons.iter().any(|r| r == "Created") {
            Ok(reasons)
        } else {
            Err(format!("{reasons:?}"))
        }
    })
    .await;
    assert!(!events.iter().any(|r| r == "Pulling"), "{events:?}");
    ns.delete().await;
}

#[tokio::test]
async fn workloads_of_other_namespaces_are_refused() {
    let env = Env::shared().await;
    let ns = env.namespace("source-others").await;
    let image = ns.image(&env, Open, "own").await;
    let source = json!({"name": "pods", "workloads": {"namespaces": ["larder-system"]}});
    let cache = ns
        .cache(
            "others",
            json!({"images": [{"image": image}], "sources": [source]}),
        )
        .await;
    let status = cache.ready(60).await;
    assert_eq!(reason(&status, "Accepted"), Some("PolicyDenied"));
    assert_eq!(status.sources[0].reason, "PolicyDenied");
    assert_eq!(newest(&ns, &cache).await, [(image, vec![])]);
    ns.delete().await;
}
