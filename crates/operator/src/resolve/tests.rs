#![allow(clippy::unwrap_used)]

use clap::CommandFactory as _;
use larder_registry::sources::SourceReason;
use serde_json::json;

use super::*;
use crate::testing::Lists;

#[test]
fn flags_are_well_formed() {
    ResolveArgs::command().debug_assert();
}

#[tokio::test]
async fn what_can_be_had_is_listed_and_the_rest_named() {
    let cache: ImageCache = serde_json::from_value(json!({
        "apiVersion": "larder.dev/v1alpha1",
        "kind": "ImageCache",
        "metadata": {"name": "web"},
        "spec": {
            "images": [{"image": "nginx:1"}],
            "exclude": ["*:debug"],
            "sources": [
                {"name": "apps", "appRegistry": {"url": "http://a", "brand": "b"}},
                {"name": "down", "http": {"url": "http://a/list"}},
                {"name": "locked", "http": {"url": "http://a/list", "secretName": "s"}},
                {"name": "map", "configMap": {"name": "m", "key": "k"}},
                {"name": "pods", "workloads": {}},
            ],
        },
    }))
    .unwrap();
    let lists = Lists::default();
    lists.say("apps", Ok(&["redis", "r.example/x:debug"]));
    lists.say("down", Err(SourceReason::Unreachable));
    lists.say("locked", Ok(&["never/asked:1"]));
    let resolved = gather(&cache, &lists).await;
    let printed = serde_json::to_value(&resolved).unwrap();
    assert_eq!(
        printed["images"],
        json!([
            {"image": "docker.io/library/nginx:1", "source": null, "app": null, "service": null},
            {"image": "docker.io/library/redis:latest", "source": "apps", "app": null, "service": null},
        ])
    );
    let errors: Vec<_> = resolved
        .errors
        .iter()
        .map(|e| (e.source.as_deref().unwrap_or_default(), e.reason.as_str()))
        .collect();
    assert_eq!(
        errors,
        [
            ("down", "Unreachable"),
            ("locked", "Unauthorized"),
            ("map", "Malformed"),
            ("pods", "Malformed"),
        ]
    );
    assert_eq!(
        printed["errors"][0],
        json!({"source": "down", "reason": "Unreachable", "message": "not now"})
    );
}

#[tokio::test]
async fn a_file_that_is_no_cache_is_not_begun_with() {
    let file = std::env::temp_dir().join(format!("larder-resolve-{}.yaml", std::process::id()));
    for text in [
        "spec: {}",
        "kind: Pod",
        "{",
        "metadata: {name: a}\nspec: {images: []}",
    ] {
        std::fs::write(&file, text).unwrap();
        let args = ResolveArgs::parse_from(["resolve", "-f", file.to_str().unwrap(), "--no-digests"]);
        assert!(resolve(&args).await.is_err(), "{text}");
    }
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn what_the_api_server_would_refuse_is_refused() {
    let of = |spec: serde_json::Value| {
        let cache: ImageCache = serde_json::from_value(json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache", "metadata": {"name": "web"}, "spec": spec,
        }))
        .unwrap();
        check(&cache).map_err(|error| format!("{error:#}"))
    };
    let list = json!({"url": "http://a/list"});
    let tags = json!({"repository": "nginx", "newest": 2, "semver": "*", "regex": "."});
    assert_eq!(
        of(json!({"exclude": ["*:debug"], "sources": [{"name": "a", "http": list}]})),
        Ok(())
    );
    for (spec, words) in [
        (json!({"exclude": ["a?"]}), "spec.exclude: pattern \"a?\""),
        (
            json!({"sources": [{"name": "a"}]}),
            "\"a\" must have exactly one of",
        ),
        (
            json!({"sources": [{"name": "a", "http": list, "workloads": {}}]}),
            "\"a\" must have exactly one of",
        ),
        (
            json!({"sources": [{"name": "a", "http": {"url": "http://a", "format": "Json"}}]}),
            "\"a\": http.jsonPath",
        ),
        (
            json!({"sources": [{"name": "a", "registryTags": tags}]}),
            "\"a\": registryTags must have exactly one",
        ),
        (
            json!({"sources": [{"name": "a", "http": list}, {"name": "a", "http": list}]}),
            "a name of its own",
        ),
    ] {
        let refused = of(spec.clone()).unwrap_err();
        assert!(refused.contains(words), "{spec}: {refused}");
    }
}
