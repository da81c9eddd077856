//! What the API server refuses, and that its message names the field. Issue: bad input must never reach a node.

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use larder_api::{ImageCache, ImageCacheRevision, NodeImageCache};
use larder_e2e::cluster::registry::RegistryKind;
use larder_e2e::images::ImageSpec;
use serde_json::{Value, json};

use crate::support::{Env, Namespace, eventually};

/// Written as any user would, without the Rust types between: these could not even express most of the mistakes.
async fn attempt(namespace: &Namespace, name: &str, spec: Value) -> Result<Value, String> {
    let resource = ApiResource::erase::<ImageCache>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(namespace.client.clone(), &namespace.name, &resource);
    let mut object = DynamicObject::new(name, &resource);
    object.data = json!({"spec": spec});
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match api.create(&params, &object).await {
        Ok(created) => Ok(created.data["spec"].clone()),
        Err(kube::Error::Api(status)) => Err(status.message.clone()),
        Err(error) => panic!("{error}"),
    }
}

fn images(references: &[&str]) -> Value {
    json!({"images": references.iter().map(|image| json!({"image": image})).collect::<Vec<_>>()})
}

fn with(field: &str, value: Value) -> Value {
    let mut spec = images(&["nginx:1.27"]);
    spec[field] = value;
    spec
}

#[tokio::test]
async fn references_that_are_none_are_refused() {
    let env = Env::shared().await;
    let namespace = env.namespace("validation").await;
    let long = format!("registry.example.com/{}:1", "a".repeat(600));
    let bad = [
        "nginx:1 .27",
        " nginx",
        "nginx ",
        "nginx\n",
        "Nginx:1.27",
        "ghcr.io/Acme/app:1",
        "nginx:1.27; rm -rf /",
        "; rm -rf /",
        "$(reboot)",
        "`reboot`",
        "nginx|sh",
        "nginx:",
        "nginx@",
        "nginx@sha256:abc",
        "nginx@md5:0123456789abcdef0123456789abcdef",
        "https://ghcr.io/acme/app:1",
        "-nginx",
        "../../etc/passwd",
        "ghcr.io//app",
        "",
        &long,
    ];
    for reference in bad {
        let refusal = attempt(&namespace, "bad", images(&["busybox", reference])).await;
        let message = refusal.expect_err(&format!("{reference:?} was accepted"));
        assert!(
            message.contains("spec.images[1].image"),
            "{reference:?}: {message}"
        );
    }
    namespace.delete().await;
}

#[tokio::test]
async fn references_of_every_lawful_form_are_accepted() {
    let env = Env::shared().await;
    let namespace = env.namespace("validation").await;
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let good = [
        "nginx".to_owned(),
        "nginx:1.27".into(),
        "library/nginx:1.27".into(),
        "localhost:5000/a".into(),
        "10.77.0.2:5000/a/b/c:v1_2.3-x".into(),
        "[::1]:5000/a".into(),
        "Registry.Example.com/a".into(),
        "a.io/b__c/d-e---f.g:T".into(),
        format!("nginx@{digest}"),
        format!("ghcr.io/acme/app:1@{digest}"),
        format!("a.io/{}:1", "b".repeat(400)),
    ];
    for reference in good {
        attempt(&namespace, "good", images(&[&reference]))
            .await
            .unwrap_or_else(|e| panic!("{reference}: {e}"));
    }
    namespace.delete().await;
}

#[tokio::test]
async fn values_out_of_bounds_are_refused_by_the_name_of_their_field() {
    let env = Env::shared().await;
    let namespace = env.namespace("validation").await;
    let many: Vec<String> = (0..501).map(|i| format!("a.io/x:{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut cases = vec![
        (json!({}), "spec.images"),
        (json!({"images": []}), "spec.images"),
        (images(&many), "spec.images"),
        (images(&["nginx:1.27", "busybox", "nginx:1.27"]), "spec.images[2]"),
        (
            json!({"images": [{"image": "nginx", "priority": 1001}]}),
            "spec.images[0].priority",
        ),
        (
            json!({"images": [{"image": "nginx", "priority": -1001}]}),
            "spec.images[0].priority",
        ),
        (json!({"images": [{"priority": 1}]}), "spec.images[0].image"),
        (with("removal", json!("Delete")), "spec.removal"),
        (with("puller", json!("DaemonSet")), "spec.puller"),
        (with("resolve", json!("Never")), "spec.resolve"),
        (
            with("onMissingPlatform", json!("Ignore")),
            "spec.onMissingPlatform",
        ),
        (
            with("pullSecrets", json!([{"name": "Reg Cred"}])),
            "spec.pullSecrets[0].name",
        ),
        (
            with("pullSecrets", json!([{"name": "a"}, {"name": "a"}])),
            "spec.pullSecrets[1]",
        ),
        (with("refresh", json!({})), "spec.refresh.interval"),
        (
            with("rollout", json!({"imagesPerNode": 0})),
            "spec.rollout.imagesPerNode",
        ),
        (
            with("rollout", json!({"imagesPerNode": 21})),
            "spec.rollout.imagesPerNode",
        ),
    ];
    for limit in [
        json!("0%"),
        json!("101%"),
        json!("1.5%"),
        json!("50"),
        json!(0),
        json!(10_001),
        json!(-1),
    ] {
        cases.push((
            with("rollout", json!({"maxConcurrentNodes": limit})),
            "rollout.maxConcurrentNodes",
        ));
    }
    for (group, field, bad) in [
        ("refresh", "interval", ["59s", "721h", "-1h", "hourly", "1h 30m"]),
        ("timeouts", "attempt", ["0s", "999ms", "721h", "", "-1s"]),
        (
            "timeouts",
            "overall",
            ["0s", "999ms", "99999999999999h", "1d", "5"],
        ),
        ("retry", "initialDelay", ["0s", "999ms", "721h", "soon", "-1s"]),
        ("retry", "maxDelay", ["0s", "999ms", "721h", "1", "-1s"]),
    ] {
        for value in bad {
            let path = match field {
                "interval" => "refresh.interval",
                "attempt" => "timeouts.attempt",
                "overall" => "timeouts.overall",
                "initialDelay" => "retry.initialDelay",
                _ => "retry.maxDelay",
            };
            cases.push((with(group, json!({field: value})), path));
        }
    }
    for map in ["labels", "annotations"] {
        for key in [
            "larder.dev/purpose",
            "app.kubernetes.io/name",
            "kubernetes.io/os",
            "batch.kubernetes.io/job-name",
            "node.k8s.io/x",
            "k8s.io/x",
        ] {
            let field = if map == "labels" {
                "podTemplate.labels"
            } else {
                "podTemplate.annotations"
            };
            cases.push((with("podTemplate", json!({map: {key: "x"}})), field));
        }
    }
    for (spec, field) in cases {
        let shown: String = spec.to_string().chars().take(200).collect();
        let message = attempt(&namespace, "bad", spec)
            .await
            .expect_err(&format!("{shown} was accepted"));
        assert!(message.contains(field), "{shown}: {message}");
    }
    let message = attempt(&namespace, &"n".repeat(50), images(&["nginx"]))
        .await
        .unwrap_err();
    assert!(message.contains("metadata.name"), "{message}");
    attempt(&namespace, &"n".repeat(49), images(&["nginx"]))
        .await
        .unwrap();
    namespace.delete().await;
}

#[tokio::test]
async fn bounds_themselves_are_accepted_and_defaults_are_as_documented() {
    let env = Env::shared().await;
    let namespace = env.namespace("validation").await;
    for spec in [
        with("rollout", json!({"maxConcurrentNodes": "1%", "imagesPerNode": 1})),
        with(
            "rollout",
            json!({"maxConcurrentNodes": "100%", "imagesPerNode": 20}),
        ),
        with("rollout", json!({"maxConcurrentNodes": 1})),
        with("rollout", json!({"maxConcurrentNodes": 10_000})),
        with("refresh", json!({"interval": "1m"})),
        with("refresh", json!({"interval": "720h"})),
        with("timeouts", json!({"attempt": "1s", "overall": "720h"})),
        with("retry", json!({"initialDelay": "1.5s", "maxDelay": "1h30m"})),
        with(
            "podTemplate",
            json!({"labels": {"team": "web", "notkubernetes.io/x": "y", "example.com/k8s.io": "z"}}),
        ),
    ] {
        attempt(&namespace, "good", spec.clone())
            .await
            .unwrap_or_else(|e| panic!("{spec}: {e}"));
    }
    let filled = attempt(&namespace, "plain", images(&["nginx"])).await.unwrap();
    assert_eq!(filled["images"], json!([{"image": "nginx", "priority": 0}]));
    assert_eq!(filled["puller"], "Auto");
    assert_eq!(filled["resolve"], "Central");
    assert_eq!(filled["onMissingPlatform"], "Skip");
    assert_eq!(filled["removal"], "Retain");
    assert_eq!(filled["suspend"], false);
    assert_eq!(
        filled["rollout"],
        json!({"maxConcurrentNodes": "25%", "imagesPerNode": 3})
    );
    assert_eq!(filled["nodes"]["includeUnschedulable"], false);
    assert_eq!(filled.get("refresh"), None);
    namespace.delete().await;
}

/// Fields of later releases are not accepted and ignored.
#[tokio::test]
async fn fields_that_do_nothing_yet_are_named_as_unknown() {
    let env = Env::shared().await;
    let namespace = env.namespace("validation").await;
    for field in ["sources", "exclude", "protect", "readiness", "privateImages"] {
        let yaml = format!(
            "apiVersion: larder.dev/v1alpha1\nkind: ImageCache\nmetadata: {{name: x, namespace: {}}}\n\
             spec: {{images: [{{image: nginx}}], {field}: {{}}}}\n",
            namespace.name
        );
        let message = env.apply(&yaml).unwrap_err();
        assert!(
            message.contains(&format!("unknown field \"spec.{field}\"")),
            "{message}"
        );
    }
    namespace.delete().await;
}

/// Nobody but the operator writes revisions, so this one is written in its name. Its reference reaches the purge
/// program of a real node, and a shell on the way would leave a file.
#[tokio::test]
async fn a_command_inside_a_reference_is_inert_where_it_arrives() {
    let env = Env::shared().await;
    let namespace = env.namespace("inert").await;
    let host = env.registry(RegistryKind::Open).host;
    env.push(
        RegistryKind::Open,
        &ImageSpec::new(8_121).layers(1, 10_000),
        "h8/inert",
        "1",
    )
    .await;
    let good = format!("{host}/h8/inert:1");
    let cache = namespace
        .cache(
            "web",
            json!({"images": [{"image": good}], "removal": "Purge", "pullSecrets": []}),
        )
        .await;
    let status = cache.ready(60).await;
    let node = env.nodes().remove(0);
    let marker = format!("/run/larder-injected-{}", namespace.name);
    let evil = format!("docker.io/library/x:1; touch {marker}; $(touch {marker}) `touch {marker}`");

    let operator = env
        .act_as("system:serviceaccount:larder-system:larder-operator")
        .await;
    let owner = cache.get().await.controller_owner_ref(&()).unwrap();
    let revision: ImageCacheRevision = serde_json::from_value(json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCacheRevision",
        "metadata": {"name": "web-evil", "namespace": namespace.name, "ownerReferences": [owner]},
        "number": 1,
        "spec": {"images": [{"image": evil, "platforms": [], "priority": 0, "private": false}]},
    }))
    .unwrap();
    let revisions: Api<ImageCacheRevision> = Api::namespaced(operator.clone(), &namespace.name);
    revisions.create(&PostParams::default(), &revision).await.unwrap();

    let objects: Api<NodeImageCache> = Api::all(operator);
    let uid = cache.get().await.uid().unwrap();
    let claim_index = |object: &NodeImageCache| object.spec.caches.iter().position(|c| c.uid == uid);
    eventually("the removal of the evil revision is asked for", 10, || async {
        let object = objects.get(&node).await.unwrap();
        let index = claim_index(&object).ok_or("no claim")?;
        let mut claims = object.spec.caches.clone();
        claims[index].remove_revisions = vec!["web-evil".into()];
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": object.resource_version()}, "spec": {"caches": claims},
        }));
        objects
            .patch(&node, &PatchParams::default(), &patch)
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    })
    .await;
    // The removal ends, one way or the other: the name is no image's, so there is nothing to remove.
    eventually("the purge program has answered", 60, || async {
        let object = objects.get(&node).await.unwrap();
        let on_node = object
            .status
            .iter()
            .flat_map(|s| &s.kubelet)
            .flat_map(|k| &k.caches)
            .find(|c| c.uid == uid)
            .cloned()
            .ok_or("no status")?;
        let claim = claim_index(&object)
            .map(|i| object.spec.caches[i].clone())
            .ok_or("no claim")?;
        let done =
            on_node.removed_revisions.iter().any(|r| r == "web-evil") || claim.remove_revisions.is_empty();
        if done || !on_node.removal_error.is_empty() {
            Ok(())
        } else {
            Err(format!("{on_node:?}"))
        }
    })
    .await;
    assert!(!env.node_file_exists(&node, &marker), "a shell has run on {node}");
    assert!(
        !std::path::Path::new(&marker).exists(),
        "a shell has run on this machine"
    );
    assert!(env.node_has(&node, &good));

    // As the newest revision it may even be pulled for a moment; the operator puts the right one back.
    let patch = json!({"number": 99});
    revisions
        .patch("web-evil", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    let name = status.revision.unwrap();
    eventually("the right revision is the newest again", 30, || async {
        let object = revisions.get(&name).await.unwrap();
        if object.spec.number > 99 {
            Ok(())
        } else {
            Err(format!("number {}", object.spec.number))
        }
    })
    .await;
    cache.ready(60).await;
    assert!(!env.node_file_exists(&node, &marker), "a shell has run on {node}");
    // A name that is none can never be removed; whoever does not want to wait for that says so.
    cache.patch(json!({"spec": {"removal": "Retain"}})).await;
    cache.delete().await;
    cache.gone(30).await;
    namespace.delete().await;
}
