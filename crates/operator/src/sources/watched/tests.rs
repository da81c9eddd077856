#![allow(clippy::unwrap_used)]

use std::cell::RefCell;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, Event};
use serde_json::json;

use super::*;
use crate::testing::cache;

fn deployment(name: &str, images: &[&str]) -> Deployment {
    let containers: Vec<_> = images
        .iter()
        .enumerate()
        .map(|(i, image)| json!({"name": format!("c{i}"), "image": image}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"selector": {}, "template": {"spec": {"containers": containers}}},
    }))
    .unwrap()
}

#[tokio::test]
async fn what_is_kept_follows_the_objects() {
    let events = vec![
        Ok(Event::Init),
        Ok(Event::InitApply(deployment("a", &["nginx", "redis"]))),
        Ok(Event::InitDone),
        Ok(Event::Apply(deployment("b", &["redis"]))),
        Ok(Event::Delete(deployment("a", &[]))),
        Err(watcher::Error::NoResourceVersion),
        Err(watcher::Error::WatchError(
            kube::core::Status::failure("too old", "Expired")
                .with_code(410)
                .boxed(),
        )),
        Ok(Event::Init),
        Ok(Event::InitApply(deployment("c", &["x"]))),
        Ok(Event::InitDone),
        Err(watcher::Error::WatchError(
            kube::core::Status::failure("may not list deployments", "Forbidden")
                .with_code(403)
                .boxed(),
        )),
    ];
    let told = RefCell::new(Vec::new());
    let broken = RefCell::new(Vec::new());
    follow::events_of(
        futures::stream::iter(events),
        workloads::read,
        |kept| {
            told.borrow_mut()
                .push(kept.values().flatten().cloned().collect::<Vec<_>>().join(" "));
        },
        |problem| broken.borrow_mut().push(problem),
    )
    .await;
    assert_eq!(
        told.into_inner(),
        ["nginx redis", "nginx redis redis", "redis", "x"]
    );
    let broken = broken.into_inner();
    assert_eq!(broken.len(), 1, "what heals itself is no news");
    assert_eq!(
        (broken[0].reason.as_str(), broken[0].message.as_str()),
        ("Unauthorized", "may not list deployments")
    );
}

#[test]
fn a_config_map_says_references_and_what_is_wrong_hides_them() {
    let map: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "lists"},
        "data": {"good": "nginx:1 # web\n\nredis\n", "bad": "nginx:1\nA B\n", "empty": ""},
    }))
    .unwrap();
    let good = config_map::read(&map, "good");
    assert_eq!(
        (good.images.len(), good.problem, good.incomplete),
        (2, None, false)
    );
    let bad = config_map::read(&map, "bad");
    assert_eq!((bad.images.len(), bad.incomplete), (1, false));
    assert_eq!(bad.problem.unwrap().reason, "InvalidReference");
    let none = config_map::read(&map, "other");
    assert!(none.incomplete);
    assert_eq!(none.problem.unwrap().reason, "NotFound");
    let empty = config_map::read(&map, "empty");
    assert_eq!(
        (empty.images.len(), empty.problem, empty.incomplete),
        (0, None, false)
    );
}

#[test]
fn what_is_watched_is_of_the_caches_own_namespace_and_not_larders() {
    let mut cache = cache();
    cache.spec.sources = serde_json::from_value(json!([
        {"name": "map", "configMap": {"name": "m", "key": "k"}},
        {"name": "all", "workloads": {}},
        {"name": "some", "workloads": {
            "kinds": ["Pod", "Pod"],
            "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]},
        }},
        {"name": "wrong", "workloads": {"selector": {"matchExpressions": [{"key": "c", "operator": "Near"}]}}},
    ]))
    .unwrap();
    let of = |i: usize| whats(&cache, &cache.spec.sources[i]);
    assert_eq!(
        of(0).unwrap(),
        [What::ConfigMap {
            namespace: "team".into(),
            name: "m".into(),
            key: "k".into(),
        }]
    );
    assert_eq!(of(1).unwrap().len(), 6);
    let [
        What::Workloads {
            namespace,
            kind,
            selector,
        },
    ] = &of(2).unwrap()[..]
    else {
        panic!("one kind")
    };
    assert_eq!((namespace.as_str(), *kind), ("team", WorkloadKind::Pod));
    assert!(selector.contains("a=b") && selector.contains('c'), "{selector}");
    assert!(
        selector.ends_with(",app.kubernetes.io/managed-by!=larder"),
        "{selector}"
    );
    assert!(of(3).unwrap_err().contains("workloads.selector"));
}

#[tokio::test]
async fn watches_live_as_long_as_somebody_names_them() {
    let (ctx, _) = crate::testing::context(|_| None);
    let watched = Watched::new(ctx.client.clone(), ctx.queues.caches.clone());
    let mut cache = cache();
    cache.spec.sources = serde_json::from_value(json!([
        {"name": "map", "configMap": {"name": "m", "key": "k"}},
    ]))
    .unwrap();
    let (one, two) = (
        ("team".to_owned(), "web".to_owned()),
        ("team".to_owned(), "api".to_owned()),
    );
    watched.follow(&one, &cache);
    watched.follow(&two, &cache);
    assert_eq!(watched.inner.slots().len(), 1, "one watch for both");
    assert_eq!(watched.view(&cache, &cache.spec.sources[0]).unwrap().images, None);
    let what = whats(&cache, &cache.spec.sources[0]).unwrap().remove(0);
    let seen = Seen {
        images: vec!["nginx".into()],
        at: Some(Timestamp::now()),
        ..Seen::default()
    };
    watched.inner.tell(&what, seen.clone());
    let mut marked = ctx.queues.caches.take_marked();
    marked.sort();
    assert_eq!(marked, [two.clone(), one.clone()]);
    watched.inner.tell(&what, seen);
    assert!(ctx.queues.caches.take_marked().is_empty(), "nothing new");
    watched.inner.broken(&what, invalid("refused".into()));
    let view = watched.view(&cache, &cache.spec.sources[0]).unwrap();
    assert_eq!(view.images.unwrap(), ["nginx"]);
    assert!(view.incomplete && view.problem.is_some() && view.read_at.is_none());
    let mut other = cache.clone();
    other.spec.sources.clear();
    watched.follow(&one, &other);
    assert_eq!(watched.inner.slots().len(), 1);
    watched.forget(&two);
    assert_eq!(watched.inner.slots().len(), 0);
}
