//! What the API server refuses, and that its message names the field: bad input must never reach a node.

use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use larder_api::ImageCache;
use serde_json::{Value, json};

use crate::support::{Env, Namespace};

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

/// Specs with one mistake each, and the field that the message must name.
fn out_of_bounds() -> Vec<(Value, String)> {
    let many: Vec<String> = (0..501).map(|i| format!("a.io/x:{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let of_image = |entry: Value| json!({"images": [entry]});
    let mut cases: Vec<(Value, String)> = [
        (images(&many), "images"),
        (images(&["nginx:1.27", "busybox", "nginx:1.27"]), "images[2]"),
        (of_image(json!({"priority": 1})), "images[0].image"),
        (
            of_image(json!({"image": "x", "priority": 1001})),
            "images[0].priority",
        ),
        (
            of_image(json!({"image": "x", "priority": -1001})),
            "images[0].priority",
        ),
        (with("removal", json!("Delete")), "removal"),
        (with("puller", json!("DaemonSet")), "puller"),
        (with("resolve", json!("Never")), "resolve"),
        (with("onMissingPlatform", json!("Ignore")), "onMissingPlatform"),
        (
            with("pullSecrets", json!([{"name": "Reg Cred"}])),
            "pullSecrets[0].name",
        ),
        // There is no way to name another namespace's.
        (
            with("pullSecrets", json!([{"name": "other/regcred"}])),
            "pullSecrets[0].name",
        ),
        (with("privateImages", json!("Job")), "privateImages"),
        (
            json!({"images": [{"image": "nginx"}], "puller": "Job", "privateImages": "Agent"}),
            "privateImages must not be Agent",
        ),
        (
            with("pullSecrets", json!([{"name": "a"}, {"name": "a"}])),
            "pullSecrets[1]",
        ),
        (with("refresh", json!({})), "refresh: "),
        (
            with("refresh", json!({"interval": "1h", "schedule": "0 3 * * *"})),
            "refresh: ",
        ),
        (
            with("refresh", json!({"interval": "1h", "timeZone": "UTC"})),
            "refresh: ",
        ),
        (with("sources", json!([{"name": "a"}])), "sources[0]: "),
        (
            with(
                "sources",
                json!([{"name": "a", "workloads": {}, "http": {"url": "http://a"}}]),
            ),
            "sources[0]: ",
        ),
        (
            with(
                "sources",
                json!([{"name": "a", "workloads": {}}, {"name": "a", "workloads": {}}]),
            ),
            "sources[1]",
        ),
        (
            with(
                "sources",
                json!([{"name": "a", "http": {"url": "file:///etc/passwd"}}]),
            ),
            "sources[0].http.url",
        ),
        (
            with(
                "sources",
                json!([{"name": "a", "http": {"url": "http://a", "format": "Json"}}]),
            ),
            "sources[0].http: ",
        ),
        (
            with(
                "sources",
                json!([{"name": "a", "registryTags": {"repository": "a", "newest": 1}}]),
            ),
            "sources[0].registryTags: ",
        ),
        (
            with(
                "sources",
                (0..21)
                    .map(|i| json!({"name": format!("s{i}"), "workloads": {}}))
                    .collect(),
            ),
            "sources",
        ),
        (
            with(
                "sources",
                json!([{"name": "a", "configMap": {"name": "a/b", "key": "k"}}]),
            ),
            "sources[0].configMap.name",
        ),
        (
            with(
                "sources",
                json!([{"name": "a", "http": {"url": "https://user:password@a.example/list"}}]),
            ),
            "sources[0].http.url",
        ),
        (
            with(
                "sources",
                json!([{"name": "a", "registryTags": {"repository": "a", "semver": "*", "newest": 101}}]),
            ),
            "sources[0].registryTags.newest",
        ),
        (with("exclude", json!(["a b"])), "exclude[0]"),
        (
            with("rollout", json!({"imagesPerNode": 0})),
            "rollout.imagesPerNode",
        ),
        (
            with("rollout", json!({"imagesPerNode": 21})),
            "rollout.imagesPerNode",
        ),
    ]
    .map(|(spec, field)| (spec, field.to_owned()))
    .into();
    for limit in [
        json!("0%"),
        json!("101%"),
        json!("1.5%"),
        json!("50"),
        json!(0),
        json!(10_001),
        json!(-1),
    ] {
        let spec = with("rollout", json!({"maxConcurrentNodes": limit}));
        cases.push((spec, "spec.rollout.maxConcurrentNodes".into()));
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
        let case = |value: &str| {
            (
                with(group, json!({field: value})),
                format!("spec.{group}.{field}"),
            )
        };
        cases.extend(bad.map(case));
    }
    let reserved = [
        "larder.dev/x",
        "app.kubernetes.io/name",
        "kubernetes.io/os",
        "batch.kubernetes.io/x",
        "k8s.io/x",
    ];
    for map in ["labels", "annotations"] {
        let case = |key: &str| {
            (
                with("podTemplate", json!({map: {key: "x"}})),
                format!("spec.podTemplate.{map}"),
            )
        };
        cases.extend(reserved.map(case));
    }
    cases
}

#[tokio::test]
async fn values_out_of_bounds_are_refused_by_the_name_of_their_field() {
    let env = Env::shared().await;
    let namespace = env.namespace("validation").await;
    let mut wrong = Vec::new();
    for (spec, field) in out_of_bounds() {
        let shown: String = spec.to_string().chars().take(200).collect();
        match attempt(&namespace, "bad", spec).await {
            Ok(_) => wrong.push(format!("{shown} was accepted")),
            Err(message) if !message.contains(&field) => wrong.push(format!("{shown}: {message}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
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
async fn refusals_that_concern_several_fields_say_what_is_expected() {
    let env = Env::shared().await;
    let namespace = env.namespace("validation").await;
    let source = |mut keys: Value| {
        keys["name"] = json!("a");
        with("sources", json!([keys]))
    };
    for (spec, words) in [
        (json!({}), "images or sources must name something"),
        (
            json!({"images": [], "sources": []}),
            "images or sources must name something",
        ),
        (
            source(json!({})),
            "exactly one of configMap, http, appRegistry, workloads and registryTags",
        ),
        (
            source(json!({"http": {"url": "http://a", "format": "Json"}})),
            "http.jsonPath must be set",
        ),
        (
            source(json!({"http": {"url": "http://a", "jsonPath": "{.a}"}})),
            "http.jsonPath must be set",
        ),
        (
            source(json!({"registryTags": {"repository": "a", "newest": 1}})),
            "exactly one of semver and regex",
        ),
        (with("refresh", json!({})), "exactly one of interval and schedule"),
        (
            with("refresh", json!({"interval": "1h", "timeZone": "UTC"})),
            "refresh.timeZone needs refresh.schedule",
        ),
    ] {
        let message = attempt(&namespace, "bad", spec.clone())
            .await
            .expect_err(&format!("{spec} was accepted"));
        assert!(message.contains(words), "{spec}: {message}");
    }
    namespace.delete().await;
}

/// As many sources as there may be, of every kind.
fn full_sources() -> Value {
    let kinds = [
        json!({"configMap": {"name": "list", "key": "images.txt"}}),
        json!({"http": {"url": "https://a.example/list"}}),
        json!({"http": {"url": "http://a.example:8080/list?x=1", "format": "Json", "jsonPath": "{.items[*].image}",
            "secretName": "token", "caBundle": "-----BEGIN CERTIFICATE-----"}}),
        json!({"appRegistry": {"url": "https://a.example/main", "brand": "brand"}}),
        json!({"workloads": {"namespaces": ["team-a"], "selector": {"matchLabels": {"a": "b"}}, "kinds": ["Pod", "Job"]}}),
        json!({"registryTags": {"repository": "ghcr.io/acme/app", "semver": ">=1.2, <2", "newest": 100}}),
        json!({"registryTags": {"repository": "[::1]:5000/app", "regex": "^main-", "newest": 1}}),
    ];
    let sources = (0..20).map(|i| {
        let mut source = kinds[i % kinds.len()].clone();
        source["name"] = json!(format!("source-{i}"));
        source
    });
    sources.collect()
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
        with("sources", full_sources()),
        json!({"sources": [{"name": "alone", "workloads": {}}]}),
        with("exclude", json!(["docker.io/library/*", "*:debug"])),
        with("refresh", json!({"interval": "1m"})),
        with(
            "refresh",
            json!({"schedule": "0 3 * * *", "timeZone": "Europe/Berlin"}),
        ),
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
    // No defaults inside lists: they would make every second `kubectl apply` look like a change.
    assert_eq!(filled["images"], json!([{"image": "nginx"}]));
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

/// What is not there is not accepted and ignored: a field of a later release, or another namespace's secret.
#[tokio::test]
async fn fields_that_do_nothing_are_named_as_unknown() {
    let env = Env::shared().await;
    let namespace = env.namespace("validation").await;
    for (spec, field) in [
        ("readiness: {}", "spec.readiness"),
        (
            "rollout: {bandwidthPerNode: 50Mi}",
            "spec.rollout.bandwidthPerNode",
        ),
        (
            "pullSecrets: [{name: regcred, namespace: other}]",
            "spec.pullSecrets[0].namespace",
        ),
    ] {
        let yaml = format!(
            "apiVersion: larder.dev/v1alpha1\nkind: ImageCache\nmetadata: {{name: x, namespace: {}}}\n\
             spec: {{images: [{{image: nginx}}], {spec}}}\n",
            namespace.name
        );
        let message = env.apply(&yaml).unwrap_err();
        assert!(
            message.contains(&format!("unknown field \"{field}\"")),
            "{message}"
        );
    }
    namespace.delete().await;
}
