//! Images from where they come from: ConfigMaps, lists behind URLs, app registries, workloads, tags.

use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use larder_api::names::REFRESH_ANNOTATION;
use larder_api::{ImageCacheRevision, ImageCacheStatus};
use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use serde_json::{Value, json};

use crate::support::{Cache, Env, Namespace, Pages, eventually, reason};

impl Namespace {
    async fn apply_list(&self, name: &str, images: &[&str]) {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"images": format!("# of a test\n{}\n", images.join("\n"))},
        });
        let params = PatchParams::apply("test").force();
        self.api::<ConfigMap>()
            .patch(name, &params, &Patch::Apply(&object))
            .await
            .unwrap();
    }
}

/// The images of the newest revision, with the source of each.
async fn newest(ns: &Namespace, cache: &Cache) -> Vec<(String, Vec<String>)> {
    let Some(name) = cache.status().await.revision else {
        return Vec::new();
    };
    let revision = ns.api::<ImageCacheRevision>().get(&name).await.unwrap();
    let images = revision.spec.spec.images;
    images.into_iter().map(|i| (i.image, i.sources)).collect()
}

/// Waits until the newest revision has exactly these images; the time that it took.
async fn holds_exactly(ns: &Namespace, cache: &Cache, seconds: u64, images: &[&str]) -> u128 {
    let begun = Instant::now();
    let mut wanted: Vec<&str> = images.to_vec();
    wanted.sort_unstable();
    eventually(&format!("the newest revision is {wanted:?}"), seconds, || async {
        let now = newest(ns, cache).await;
        let names: Vec<&str> = now.iter().map(|(image, _)| image.as_str()).collect();
        if names == wanted {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await;
    begun.elapsed().as_millis()
}

async fn refresh(cache: &Cache, token: &str) -> ImageCacheStatus {
    cache.annotate(REFRESH_ANNOTATION, token).await;
    cache
        .until(&format!("refresh {token} is finished"), 60, |s| {
            let last = s.last_refresh.as_ref();
            last.is_some_and(|r| r.finished_token.as_deref() == Some(token))
        })
        .await
}

#[tokio::test]
async fn a_config_map_is_followed() {
    let env = Env::shared().await;
    let ns = env.namespace("source-map").await;
    let (a, b) = (ns.image(&env, Open, "a").await, ns.image(&env, Open, "b").await);
    ns.apply_list("images", &[&a]).await;
    let source = json!({"name": "list", "configMap": {"name": "images", "key": "images"}});
    let cache = ns.cache("followed", json!({"sources": [source]})).await;
    cache.ready(60).await;
    assert_eq!(newest(&ns, &cache).await, [(a.clone(), vec!["list".to_owned()])]);

    ns.apply_list("images", &[&a, &b]).await;
    let took = holds_exactly(&ns, &cache, 10, &[&a, &b]).await;
    assert!(took < 2000, "{took} ms");
    let status = cache.ready(60).await;
    assert_eq!((status.sources[0].ready, status.sources[0].images), (true, 2));
    for node in env.nodes() {
        assert!(env.node_has(&node, &b));
    }

    // Without its ConfigMap the cache keeps what it has, and says so.
    ns.api::<ConfigMap>()
        .delete("images", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    let status = cache
        .until("the source is missed", 10, |s| s.sources.iter().any(|s| !s.ready))
        .await;
    assert_eq!(status.sources[0].reason, "NotFound");
    assert_eq!(reason(&status, "Resolved"), Some("NotFound"));
    holds_exactly(&ns, &cache, 5, &[&a, &b]).await;
    ns.delete().await;
}

#[tokio::test]
async fn a_list_behind_a_url_costs_nothing_while_it_stays_and_keeps_its_images_while_it_fails() {
    let env = Env::shared().await;
    let ns = env.namespace("source-http").await;
    let pages = Pages::serve(&env);
    let (a, b) = (ns.image(&env, Open, "a").await, ns.image(&env, Open, "b").await);
    pages.put("/list", &json!({"items": [{"image": a}]}).to_string());
    let http = json!({"url": pages.url("/list"), "format": "Json", "jsonPath": "{.items[*].image}"});
    let cache = ns
        .cache("listed", json!({"sources": [{"name": "page", "http": http}]}))
        .await;
    let first = cache.ready(60).await.revision;
    assert_eq!(pages.answers("/list"), [200]);

    let status = refresh(&cache, "T1").await;
    assert_eq!(pages.answers("/list"), [200, 304]);
    assert_eq!(status.revision, first);

    pages.fail(Some(503));
    refresh(&cache, "T2").await;
    let status = cache
        .until("the failure is said", 10, |s| s.sources.iter().any(|s| !s.ready))
        .await;
    let source = &status.sources[0];
    assert_eq!((source.reason.as_str(), source.images), ("Unreachable", 1));
    assert!(
        source.message.contains("503") && source.last_success_time.is_some(),
        "{source:?}"
    );
    assert_eq!(status.revision, first, "what it said last stays");

    // It comes back by itself.
    pages.put(
        "/list",
        &json!({"items": [{"image": a}, {"image": b}]}).to_string(),
    );
    pages.fail(None);
    holds_exactly(&ns, &cache, 60, &[&a, &b]).await;
    let status = cache.ready(60).await;
    assert!(status.sources[0].ready, "{:?}", status.sources);
    ns.delete().await;
}

fn compose(services: &[(&str, &str)]) -> String {
    let services = services
        .iter()
        .map(|(name, image)| format!("  {name}:\n    image: {image}\n"));
    format!("version: '3'\nservices:\n{}", services.collect::<String>())
}

#[tokio::test]
async fn an_app_registry_gives_what_its_brand_has_and_names_what_is_broken() {
    let env = Env::shared().await;
    let ns = env.namespace("source-apps").await;
    let pages = Pages::serve(&env);
    let mut images = Vec::new();
    for name in ["base", "own", "web", "db", "old"] {
        images.push(ns.image(&env, Open, name).await);
    }
    let [base, own, web, db, old] = &images[..] else {
        unreachable!()
    };
    let registry = |apps: &str| {
        format!(
            "api: 1\nversion: 1\nrepositories:\n  apps: {{url: specs}}\nsettings:\n  host: {}\ncontexts:\n  \
             common:\n    apps:\n      base: {{name: base}}\n  \
             brand:\n    extends: [common]\n    mixin: [late]\n    apps:\n{apps}  \
             late:\n    apps:\n      own: {{spec: $apps/moved/docker-compose.yaml}}\n      never: {{name: never}}\n",
            env.registry(Open).host
        )
    };
    let all = "      own: {name: own}\n      pair: {name: pair}\n      gone: {name: gone}\n      wrong: {name: wrong}\n      \
               old: {name: old}\n";
    pages.put("/main/app-registry.yaml", &registry(all));
    pages.put(
        "/main/specs/base/docker-compose.yaml",
        &compose(&[("base", base)]),
    );
    // A template over the settings, with a filter.
    let path = own.split_once('/').unwrap().1;
    pages.put(
        "/main/specs/moved/docker-compose.yaml",
        &compose(&[(
            "own",
            &format!("\"{{{{ host }}}}/{{{{ missing | default('{path}') }}}}\""),
        )]),
    );
    pages.put(
        "/main/specs/pair/docker-compose.yaml",
        &compose(&[("web", web), ("db", db)]),
    );
    pages.put(
        "/main/specs/wrong/docker-compose.yaml",
        &compose(&[("wrong", "\"{{ host | nonsense }}\"")]),
    );
    pages.put("/main/specs/old/docker-compose.yaml", &compose(&[("old", old)]));
    let source = json!({"name": "apps", "appRegistry": {"url": pages.url("/main"), "brand": "brand"}});
    let kept = ns.cache("kept", json!({"sources": [source]})).await;
    let purged = ns
        .cache("purged", json!({"sources": [source], "removal": "Purge"}))
        .await;
    for cache in [&kept, &purged] {
        let status = cache.ready(90).await;
        holds_exactly(&ns, cache, 5, &[base, own, web, db, old]).await;
        let source = &status.sources[0];
        assert!(!source.ready);
        assert!(
            source.message.contains("gone") && source.message.contains("wrong"),
            "{source:?}"
        );
    }

    // One app leaves the registry.
    pages.put(
        "/main/app-registry.yaml",
        &registry(&all.replace("      old: {name: old}\n", "")),
    );
    refresh(&kept, "T1").await;
    holds_exactly(&ns, &kept, 10, &[base, own, web, db]).await;
    for node in env.nodes() {
        assert!(
            env.node_has(&node, old),
            "another cache wants it, and this one retains"
        );
    }
    refresh(&purged, "T1").await;
    holds_exactly(&ns, &purged, 10, &[base, own, web, db]).await;
    for node in env.nodes() {
        eventually(&format!("{old} leaves {node}"), 60, || async {
            if env.node_has(&node, old) {
                Err("still there".to_owned())
            } else {
                Ok(())
            }
        })
        .await;
        assert!(env.node_has(&node, web));
    }
    ns.delete().await;
}

#[tokio::test]
async fn what_a_source_loses_at_once_is_purged_only_when_it_says_so_twice() {
    let env = Env::shared().await;
    let ns = env.namespace("source-lost").await;
    let mut images = Vec::new();
    for name in ["a", "b", "c"] {
        images.push(ns.image(&env, Open, name).await);
    }
    let all: Vec<&str> = images.iter().map(String::as_str).collect();
    ns.apply_list("images", &all).await;
    let source = json!({"name": "list", "configMap": {"name": "images", "key": "images"}});
    let cache = ns
        .cache("lost", json!({"sources": [source], "removal": "Purge"}))
        .await;
    cache.ready(60).await;
    ns.apply_list("images", &all[..1]).await;
    let status = cache
        .until("the loss is said", 5, |s| {
            s.sources.iter().any(|s| s.reason == "Shrunk")
        })
        .await;
    assert_eq!(status.sources[0].images, 3);
    // Somebody puts them back in time.
    ns.apply_list("images", &all).await;
    cache
        .until("the loss is no more", 5, |s| {
            s.sources.iter().all(|s| s.reason.is_empty())
        })
        .await;
    holds_exactly(&ns, &cache, 1, &all).await;
    // This time it is meant.
    ns.apply_list("images", &all[..1]).await;
    let took = holds_exactly(&ns, &cache, 30, &all[..1]).await;
    assert!(took > 5000, "{took} ms");
    ns.delete().await;
}

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

#[tokio::test]
async fn the_newest_tags_move_with_the_repository() {
    let env = Env::shared().await;
    let ns = env.namespace("source-tags").await;
    let repository = format!("{}/app", ns.name);
    let push = async |tag: &str| {
        let spec = ImageSpec::new(rand::random()).layers(1, 10_000);
        env.push(Open, &spec, &repository, tag).await;
    };
    for tag in ["1.0.0", "1.1.0", "1.2.0", "2.0.0", "latest"] {
        push(tag).await;
    }
    let whole = format!("{}/{repository}", env.registry(Open).host);
    let tags = json!({"repository": whole, "semver": "^1", "newest": 2});
    let cache = ns
        .cache(
            "tags",
            json!({"sources": [{"name": "tags", "registryTags": tags}]}),
        )
        .await;
    cache.ready(60).await;
    let tagged = |tag: &str| format!("{whole}:{tag}");
    holds_exactly(&ns, &cache, 5, &[&tagged("1.1.0"), &tagged("1.2.0")]).await;
    push("1.3.0").await;
    refresh(&cache, "T1").await;
    holds_exactly(&ns, &cache, 10, &[&tagged("1.2.0"), &tagged("1.3.0")]).await;
    cache.ready(60).await;
    for node in env.nodes() {
        assert!(env.node_has(&node, &tagged("1.3.0")));
    }
    ns.delete().await;
}
