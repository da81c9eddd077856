//! What goes wrong with registries once a cache is in place: what it holds stays, the reason is named, it heals by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use larder_api::ImageCacheStatus;
use larder_api::image_cache_status::RefreshResult;
use larder_api::names::Reason;
use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use larder_testkit::registry::{Auth, Fault};
use serde_json::json;

use crate::support::{Cache, Env, Guest, Namespace, condition, eventually, reason};

fn image() -> ImageSpec {
    ImageSpec::new(rand::random()).layers(1, 10_000)
}

fn result(status: &ImageCacheStatus) -> Option<RefreshResult> {
    status.last_refresh.as_ref().and_then(|r| r.result)
}

/// Resolved again without anybody's doing.
async fn heals(cache: &Cache) -> ImageCacheStatus {
    cache
        .until("everything is resolved again", 120, |s| {
            reason(s, "Resolved") == Some("AllResolved") && condition(s, "Ready") == Some("True")
        })
        .await
}

/// Waits until each of these images is named with its reason, by the words.
async fn named(cache: &Cache, wanted: &[(&str, Reason, &str)]) -> ImageCacheStatus {
    cache
        .until("every image is named with its reason", 60, |s| {
            let resolved = s.conditions.iter().find(|c| c.type_ == "Resolved");
            let told: Vec<&str> = resolved.iter().flat_map(|c| c.message.split("; ")).collect();
            wanted.iter().all(|(image, reason, words)| {
                let begin = format!("{image}: {reason}: ");
                told.iter().any(|t| t.starts_with(&begin) && t.contains(words))
            })
        })
        .await
}

#[tokio::test]
async fn a_registry_in_trouble_takes_nothing_away_is_named_and_forgiven() {
    const KINDS: [&str; 5] = ["slow", "digest", "truncated", "endless", "loop"];
    let env = Env::shared().await;
    let ns = env.namespace("faults").await;
    let auth = Auth::Bearer {
        user: "nobody".to_owned(),
        password: "of no use".to_owned(),
        public: KINDS.iter().map(|kind| format!("{}/{kind}", ns.name)).collect(),
        lifetime: Duration::from_hours(1),
    };
    let mut guest = Guest::serve(&env, 0, auth).await;
    let repository = |kind: &str| format!("{}/{kind}", ns.name);
    let mut digests = BTreeMap::new();
    for kind in KINDS {
        digests.insert(kind, guest.put(&repository(kind), "1", &image()));
    }
    let references = KINDS.map(|kind| format!("{}/{}:1", guest.host(), repository(kind)));
    let [slow, digest, truncated, endless, circle] = &references;
    let images: Vec<_> = references.iter().map(|image| json!({"image": image})).collect();
    let cache = ns.cache("app", json!({"images": images})).await;
    let first = cache.ready(90).await.revision;

    // A fault for each image, at one refresh. What has not moved costs a HEAD, which has no body: two tags move.
    let path = |kind: &str, rest: &str| format!("/v2/{}/{rest}", repository(kind));
    let set = |kind: &str, fault| guest.registry.fault(&path(kind, "manifests/*"), fault);
    set("slow", Fault::Slow(Duration::from_mins(2)));
    set("digest", Fault::WrongDigest);
    set("truncated", Fault::Truncated);
    let piece = vec![b' '; 100_000];
    let pause = Duration::ZERO;
    set("endless", Fault::Endless { piece, pause });
    set("loop", Fault::Redirect(path("loop", "manifests/1")));
    for kind in ["truncated", "endless"] {
        digests.insert(kind, guest.put(&repository(kind), "1", &image()));
    }
    let status = cache.refresh("faults").await;
    assert_eq!(result(&status), Some(RefreshResult::Failed));
    let words = [
        (slow.as_str(), Reason::RegistryUnreachable, "no answer in time"),
        (digest, Reason::NotFound, "does not have it"),
        (truncated, Reason::RegistryUnreachable, ""),
        (endless, Reason::RegistryUnreachable, "more than 4 MiB"),
        (circle, Reason::RegistryUnreachable, "more than 5 redirects"),
    ];
    named(&cache, &words).await;
    // It stays said while the registry is asked again.
    guest.registry.take_log();
    eventually("the registry is asked again", 60, || async {
        let log = guest.registry.take_log();
        let again = log.iter().filter(|e| e.path == path("loop", "manifests/1"));
        if again.count() > 0 {
            Ok(())
        } else {
            Err(format!("{log:?}"))
        }
    })
    .await;
    let status = named(&cache, &words).await;
    assert_eq!(status.revision, first, "what was good last stays");
    assert_eq!(condition(&status, "Ready"), Some("True"));
    assert_eq!(condition(&status, "Resolved"), Some("False"));
    assert_eq!(condition(&status, "Degraded"), Some("True"));

    guest.registry.clear_faults();
    let status = heals(&cache).await;
    assert_ne!(status.revision, first, "what moved is taken up");
    for node in env.nodes() {
        for (kind, reference) in KINDS.iter().zip(&references) {
            assert!(holds(&env, &node, reference, &digests[kind]), "{node}: {kind}");
        }
    }
    let whole = status.revision;

    // The registry says when it wants to be asked again, and is left alone until then.
    let later = Fault::Status {
        status: 429,
        retry_after: Some("4"),
    };
    guest.registry.take_log();
    let begun = Instant::now();
    guest.registry.fault("/v2/*", later);
    let status = cache.refresh("later").await;
    assert_eq!(result(&status), Some(RefreshResult::Failed));
    let all = |reason, words| references.each_ref().map(|image| (image.as_str(), reason, words));
    let status = named(&cache, &all(Reason::RateLimited, "429 Too Many Requests")).await;
    assert_eq!(
        (&status.revision, condition(&status, "Ready")),
        (&whole, Some("True"))
    );
    let asked = guest.registry.take_log().len() as u64;
    let moments = begun.elapsed().as_secs() / 4 + 1;
    assert!(asked <= moments * 5, "{asked} at {moments} moments");
    guest.registry.clear_faults();
    heals(&cache).await;

    // Nobody listens.
    guest.down().await;
    let status = cache.refresh("down").await;
    assert_eq!(result(&status), Some(RefreshResult::Failed));
    let status = named(&cache, &all(Reason::RegistryUnreachable, "")).await;
    assert_eq!(
        (&status.revision, condition(&status, "Ready")),
        (&whole, Some("True"))
    );
    guest.up(&env);
    heals(&cache).await;

    // Tokens end sooner than was said, which nobody need hear of; and what remains is told.
    guest.registry.take_log();
    guest.registry.revoke_tokens();
    let remaining = vec![
        ("ratelimit-limit", "100;w=60"),
        ("ratelimit-remaining", "76;w=60"),
    ];
    guest.registry.fault("/v2/*", Fault::Headers(remaining));
    let status = cache.refresh("tokens").await;
    assert_eq!(
        (result(&status), &status.revision),
        (Some(RefreshResult::Succeeded), &whole)
    );
    let tokens = guest
        .registry
        .take_log()
        .into_iter()
        .filter(|e| e.path == "/token");
    assert_eq!(tokens.count(), KINDS.len(), "one for each repository");
    let metrics = "/api/v1/namespaces/larder-system/services/larder-operator-metrics:8080/proxy/metrics";
    let metrics = env.kubectl(&["get", "--raw", metrics]).unwrap();
    let line = format!(
        "larder_registry_requests_remaining{{registry=\"{}\"}} 76",
        guest.host()
    );
    assert!(metrics.contains(&line), "{metrics}");
    ns.delete().await;
}

fn holds(env: &Env, node: &str, reference: &str, digest: &str) -> bool {
    let node = env.cluster.node(node).unwrap();
    let listed = node.ctr(&["images", "list", &format!("name=={reference}")]);
    listed.unwrap().contains(digest)
}

async fn event(ns: &Namespace, reason: &str, words: &str) {
    use k8s_openapi::api::core::v1::Event;
    eventually(&format!("an Event says {reason}: {words}"), 30, || async {
        let events = ns
            .api::<Event>()
            .list(&kube::api::ListParams::default())
            .await
            .unwrap();
        let told = events.iter().map(|e| (e.reason.clone(), e.message.clone()));
        let told: Vec<_> = told.collect();
        let found = told
            .iter()
            .any(|(r, m)| r.as_deref() == Some(reason) && m.as_ref().is_some_and(|m| m.contains(words)));
        if found { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_moved_tag_is_told_and_nodes_that_found_different_digests_are_too() {
    let env = Env::shared().await;
    let ns = env.namespace("drift").await;
    let repository = format!("{}/app", ns.name);
    let reference = format!("{}/{repository}:1", env.registry(Open).host);
    env.push(Open, &image(), &repository, "1").await;
    let images = json!([{"image": reference}]);
    let central = ns.cache("central", json!({"images": images})).await;
    let spec = json!({"images": images, "resolve": "OnNode", "puller": "Agent"});
    let on_node = ns.cache("on-node", spec).await;
    central.ready(60).await;
    let status = on_node.ready(60).await;
    assert_eq!(reason(&status, "Resolved"), Some("OnNode"));

    let moved = env.push(Open, &image(), &repository, "1").await.digest;
    // One node loses the image and finds another one behind the tag.
    central.delete().await;
    let node = env.nodes().remove(0);
    env.cluster
        .node(&node)
        .unwrap()
        .ctr(&["images", "remove", "--sync", &reference])
        .unwrap();
    let status = on_node
        .until("the drift is said", 90, |s| {
            reason(s, "Resolved") == Some("DigestsDiffer")
        })
        .await;
    assert!(holds(&env, &node, &reference, &moved));
    assert_eq!(condition(&status, "Ready"), Some("True"));
    assert_eq!(reason(&status, "Degraded"), Some("DigestsDiffer"));
    event(&ns, "DigestsDiffer", &moved[..19]).await;
    on_node.refresh("agree").await;
    on_node
        .until("the nodes agree", 60, |s| reason(s, "Resolved") == Some("OnNode"))
        .await;

    let central = ns.cache("central", json!({"images": images})).await;
    central.ready(60).await;
    let digest = env.push(Open, &image(), &repository, "1").await.digest;
    central.refresh("moved").await;
    event(&ns, "TagMoved", &format!(" -> {}", &digest[..19])).await;
    ns.delete().await;
}
