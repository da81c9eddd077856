//! Sources that say too much, or lead where the operator does not go.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use larder_api::ImageCacheRevision;
use larder_api::names::REFRESH_ANNOTATION;
use larder_e2e::cluster::addresses::{API_PORT, API_SERVICE, CONTROL_PLANE};
use larder_e2e::images::ImageSpec;
use larder_testkit::registry::{Auth, Fault};
use serde_json::json;

use crate::support::{Env, Guest, Pages, condition, reason};

/// Nothing is pulled for a cache that selects no node.
fn nowhere() -> serde_json::Value {
    json!({"selector": {"matchLabels": {"example.com/there-is": "none"}}})
}

async fn restarts(env: &Env) -> i32 {
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), "larder-system");
    let pods = pods.list(&ListParams::default()).await.unwrap();
    let statuses = pods
        .iter()
        .filter_map(|p| p.status.as_ref()?.container_statuses.as_ref());
    statuses.flatten().map(|c| c.restart_count).sum()
}

#[tokio::test]
async fn two_hundred_images_of_a_source_are_taken_and_five_thousand_lines_are_refused() {
    let env = Env::shared().await;
    let ns = env.namespace("bounds").await;
    let guest = Guest::serve(&env, 1, Auth::Open).await;
    let pages = Pages::serve(&env);
    let repository = format!("{}/many", ns.name);
    let image = ImageSpec::new(rand::random()).layers(1, 1_000);
    let references = |n: usize| -> Vec<String> {
        let tags = 0..n;
        tags.map(|tag| format!("{}/{repository}:{tag}", guest.host()))
            .collect()
    };
    for tag in 0..200 {
        guest.put(&repository, &tag.to_string(), &image);
    }
    let before = restarts(&env).await;
    pages.put("/list", &references(200).join("\n"));
    let source = json!({"name": "page", "http": {"url": pages.url("/list"), "format": "Lines"}});
    let cache = ns
        .cache("many", json!({"sources": [source], "nodes": nowhere()}))
        .await;
    let status = cache
        .until("all of them are resolved", 90, |s| {
            s.images.total == 200 && reason(s, "Resolved") == Some("AllResolved")
        })
        .await;
    assert_eq!((status.sources[0].images, status.images.unresolved), (200, 0));
    let revision = status.revision.clone().unwrap();
    let content = ns.api::<ImageCacheRevision>().get(&revision).await.unwrap();
    let images = content.spec.spec.images;
    assert_eq!(images.len(), 200);
    assert!(images.iter().all(|i| i.digest.is_some() && i.sources == ["page"]));

    for (token, lines, words) in [("lines", 5_000, "2000"), ("images", 501, "500")] {
        pages.put("/list", &references(lines).join("\n"));
        cache.annotate(REFRESH_ANNOTATION, token).await;
        let status = cache
            .until("the source is refused, and the refresh has an end", 60, |s| {
                let ended = s.last_refresh.as_ref().and_then(|r| r.finished_token.as_deref());
                ended == Some(token) && s.sources[0].reason == "TooLarge"
            })
            .await;
        let source = &status.sources[0];
        assert!(source.message.contains(words), "{source:?}");
        assert_eq!((source.ready, source.images), (false, 200));
        assert_eq!(status.revision.as_ref(), Some(&revision));
        assert_eq!(reason(&status, "Resolved"), Some("TooLarge"));
    }
    pages.put("/list", &references(200).join("\n"));
    cache
        .until("it is read again without a touch", 90, |s| s.sources[0].ready)
        .await;
    assert_eq!(restarts(&env).await, before, "nothing crashed");
    ns.delete().await;
}

#[tokio::test]
async fn sources_lead_neither_to_the_api_server_nor_to_the_operators_own_machine() {
    let env = Env::shared().await;
    let ns = env.namespace("refused").await;
    let pages = Pages::serve(&env);
    pages.put("/empty", "# nothing\n");
    let hop = Guest::serve(&env, 2, Auth::Open).await;
    hop.registry.fault(
        "/*",
        Fault::Redirect("http://169.254.169.254/latest/meta-data/".to_owned()),
    );
    let refused = [
        (
            format!("https://{CONTROL_PLANE}:{API_PORT}/version"),
            "API server",
        ),
        (format!("https://{API_SERVICE}/version"), "API server"),
        ("http://127.0.0.1:8080/metrics".to_owned(), "loopback"),
        ("http://[::1]:8080/metrics".to_owned(), "loopback"),
        ("http://localhost:8080/metrics".to_owned(), "loopback"),
        ("http://2130706433:8080/metrics".to_owned(), "loopback"),
        ("http://0.0.0.0:8080/metrics".to_owned(), "unspecified"),
        (
            "http://169.254.169.254/latest/meta-data/".to_owned(),
            "link-local",
        ),
        (format!("http://{}/moved", hop.host()), "link-local"),
    ];
    let http =
        |n: usize, url: &str| json!({"name": format!("s{n}"), "http": {"url": url, "format": "Lines"}});
    let urls = refused.iter().map(|(url, _)| url.as_str());
    let mut sources: Vec<_> = urls.enumerate().map(|(n, url)| http(n, url)).collect();
    let registry = json!({"url": "http://127.0.0.1:8080/main", "brand": "brand"});
    sources.push(json!({"name": "apps", "appRegistry": registry}));
    // The way to what is allowed is open.
    sources.push(http(99, &pages.url("/empty")));
    let cache = ns
        .cache("refused", json!({"sources": sources, "nodes": nowhere()}))
        .await;
    let status = cache
        .until("all have been asked", 60, |s| {
            s.sources.iter().all(|s| s.ready || !s.message.is_empty())
        })
        .await;
    let (allowed, others) = status.sources.split_last().unwrap();
    assert!(allowed.ready, "{allowed:?}");
    for (source, (url, words)) in others.iter().zip(&refused) {
        assert_eq!(
            (source.ready, source.reason.as_str()),
            (false, "AddressRefused"),
            "{url}"
        );
        assert!(source.message.contains(words), "{url}: {source:?}");
    }
    let apps = others.last().unwrap();
    assert_eq!(apps.reason, "AddressRefused", "{apps:?}");
    assert_eq!(condition(&status, "Resolved"), Some("False"));
    ns.delete().await;
}
