#![allow(clippy::unwrap_used)]

use std::cell::RefCell;

use futures::StreamExt as _;
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

type Events = Vec<watcher::Result<Event<Deployment>>>;

fn refused(code: u16, message: &str) -> Box<kube::core::Status> {
    kube::core::Status::failure(message, "Refused")
        .with_code(code)
        .boxed()
}

fn listed(name: &str, images: &[&str]) -> Events {
    vec![
        Ok(Event::Init),
        Ok(Event::InitApply(deployment(name, images))),
        Ok(Event::InitDone),
    ]
}

/// What is told, and what is broken, in an hour of watches that end as these do; the last stands.
async fn followed(watches: Vec<Events>) -> Vec<String> {
    let mut watches = watches.into_iter();
    let said = RefCell::new(Vec::new());
    let following = follow::begun_anew(
        || {
            let events = watches.next().unwrap_or_default();
            futures::stream::iter(events).chain(futures::stream::pending())
        },
        workloads::read,
        |kept| {
            let images = kept.values().flatten().cloned().collect::<Vec<_>>();
            said.borrow_mut().push(images.join(" "));
        },
        |problem| {
            said.borrow_mut()
                .push(format!("{}: {}", problem.reason, problem.message));
        },
    );
    let _ = tokio::time::timeout(std::time::Duration::from_hours(1), following).await;
    said.into_inner()
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_follows_the_objects() {
    let mut events = listed("a", &["nginx", "redis"]);
    events.extend([
        Ok(Event::Apply(deployment("b", &["redis"]))),
        Ok(Event::Delete(deployment("a", &[]))),
        Err(watcher::Error::NoResourceVersion),
        Err(watcher::Error::WatchError(refused(410, "too old"))),
    ]);
    events.extend(listed("c", &["x"]));
    assert_eq!(
        followed(vec![events]).await,
        ["nginx redis", "nginx redis redis", "redis", "x"],
        "what heals itself is no news"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_asked_for_again_until_it_is_had() {
    let start = |code| watcher::Error::WatchStartFailed(kube::Error::Api(refused(code, "not now")));
    let list = |code| watcher::Error::InitialListFailed(kube::Error::Api(refused(code, "not now")));
    let then = |mut events: Events, error| {
        events.push(Err(error));
        events
    };
    for (case, watches, said) in [
        (
            "a right that was missing",
            vec![then(listed("a", &["nginx"]), start(403)), listed("a", &["redis"])],
            vec!["nginx", "Unauthorized: not now", "redis"],
        ),
        (
            "a watch without the right to it is not whole after each list",
            vec![
                then(listed("a", &["nginx"]), start(403)),
                then(listed("a", &["nginx"]), start(403)),
                listed("a", &["nginx"]),
            ],
            vec!["nginx", "Unauthorized: not now", "Unauthorized: not now", "nginx"],
        ),
        (
            "a moment's trouble",
            vec![
                then(
                    listed("a", &["nginx"]),
                    watcher::Error::WatchError(refused(500, "not now")),
                ),
                listed("a", &["nginx"]),
            ],
            vec!["nginx", "nginx"],
        ),
        (
            "trouble that stays for a while",
            vec![
                vec![Err(list(429))],
                vec![Err(list(429))],
                listed("a", &["nginx"]),
            ],
            vec!["RateLimited: not now", "nginx"],
        ),
        (
            "a version that is too old when the watch begins",
            vec![then(listed("a", &["nginx"]), start(410)), listed("a", &["redis"])],
            vec!["nginx", "redis"],
        ),
    ] {
        assert_eq!(followed(watches).await, said, "{case}");
    }
}

#[test]
fn of_an_object_each_image_is_kept_once_and_not_without_end() {
    let many: Vec<String> = (0..2000).map(|n| format!("nginx:{}", n / 2)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let kept = workloads::read(&deployment("a", &many[..20]));
    assert_eq!(kept.len(), 10);
    assert_eq!(workloads::read(&deployment("a", &many)).len(), 501);
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
    assert_eq!(watched.inner.slots().all.len(), 1, "one watch for both");
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
    assert_eq!(watched.inner.slots().all.len(), 1);
    watched.forget(&two);
    assert_eq!(watched.inner.slots().all.len(), 0);
}

#[tokio::test]
async fn one_namespace_does_not_use_up_the_watches() {
    let (ctx, _) = crate::testing::context(|_| None);
    let watched = Watched::new(ctx.client.clone(), ctx.queues.caches.clone());
    let named = |namespace: &str, cache_name: &str, maps: usize| {
        let mut cache = cache();
        cache.metadata.namespace = Some(namespace.into());
        cache.metadata.name = Some(cache_name.into());
        let source = |n| json!({"name": format!("s{n}"), "configMap": {"name": format!("{cache_name}-{n}"), "key": "k"}});
        cache.spec.sources = serde_json::from_value((0..maps).map(source).collect()).unwrap();
        ((namespace.to_owned(), cache_name.to_owned()), cache)
    };
    let now = Timestamp::now();
    let follow = |(key, cache): &(Key, ImageCache)| {
        watched.follow(key, cache);
        let told = cache.spec.sources.iter().map(|s| watched.view(cache, s).unwrap());
        let refused = told.filter(|view| view.problem.is_some()).count();
        (refused, watched.wake_at(key, now).is_some())
    };
    let greedy: Vec<_> = (0..6).map(|n| named("greedy", &format!("c{n}"), 20)).collect();
    let refused: Vec<_> = greedy.iter().map(follow).collect();
    assert_eq!(refused[..5], [(0, false); 5]);
    assert_eq!(refused[5], (20, true), "it says so, and is looked at again");
    assert_eq!(follow(&named("other", "web", 2)), (0, false));
    let unasked = named("other", "new", 1).1;
    let view = watched.view(&unasked, &unasked.spec.sources[0]).unwrap();
    assert_eq!(view.problem, None, "not followed yet, which is no refusal");
    watched.forget(&greedy[0].0);
    assert_eq!(follow(&greedy[5]), (0, false), "what others left is had");
}
