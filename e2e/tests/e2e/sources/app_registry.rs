//! App registries.

use larder_e2e::cluster::registry::RegistryKind::Open;
use serde_json::json;

use super::{holds_exactly, newest};
use crate::support::{Env, Namespace, Pages, eventually};

/// A compose file of these services and images.
fn compose(services: &[(&str, &str)]) -> String {
    let services = services
        .iter()
        .map(|(name, image)| format!("  {name}:\n    image: {image}\n"));
    format!("version: '3'\nservices:\n{}", services.collect::<String>())
}

/// Uses each rule: `base` is inherited, `own` is changed by a mixin and its image a template with a filter, `pinned` is
/// overridden, `pair` has two services, `gone` no compose file, and the template of `wrong` is broken.
fn registry(host: &str) -> String {
    format!(
        "
api: 1
version: 1
repositories:
  apps: {{url: specs}}
settings:
  host: {host}
contexts:
  common:
    apps:
      base: {{name: base}}
  late:
    apps:
      own: {{spec: $apps/moved/docker-compose.yaml}}
      never: {{name: never}}
  brand:
    extends: [common]
    mixin: [late]
    apps:
      own: {{name: own}}
      pinned: {{name: pinned}}
      pair: {{name: pair}}
      gone: {{name: gone}}
      wrong: {{name: wrong}}
    pinned: {{spec: elsewhere/pinned.yaml}}
"
    )
}

/// The path and tag of an image, without its host.
fn path(image: &str) -> &str {
    image.split_once('/').unwrap().1
}

#[tokio::test]
async fn a_brand_is_exactly_its_apps_images_and_what_is_broken_is_named() {
    let env = Env::shared().await;
    let ns = env.namespace("source-apps").await;
    let pages = Pages::serve(&env);
    let mut images = Vec::new();
    for name in ["base", "own", "pinned", "web", "db", "same"] {
        images.push(ns.image(&env, Open, name).await);
    }
    let [base, own, pinned, web, db, same] = &images[..] else {
        unreachable!()
    };
    let host = env.registry(Open).host;
    let template = format!("\"{{{{ host }}}}/{{{{ missing | default('{}') }}}}\"", path(own));
    pages.put("/main/app-registry.yaml", &registry(&host));
    pages.put("/main/app-defaults.yaml", "docs: https://docs.example\n");
    for (spec, services) in [
        ("specs/base/docker-compose.yaml", &[("base", base.as_str())][..]),
        ("specs/moved/docker-compose.yaml", &[("own", &template)]),
        ("elsewhere/pinned.yaml", &[("pinned", pinned)]),
        ("specs/pair/docker-compose.yaml", &[("web", web), ("db", db)]),
        (
            "specs/wrong/docker-compose.yaml",
            &[("wrong", "\"{{ host | nonsense }}\"")],
        ),
    ] {
        pages.put(&format!("/main/{spec}"), &compose(services));
    }
    // Of another registry the defaults say where every app's compose file is.
    pages.put(
        "/uniform/app-registry.yaml",
        "contexts: {brand: {apps: {a: {spec: a.yaml}, b: {spec: b.yaml}}}}\n",
    );
    pages.put("/uniform/app-defaults.yaml", "spec: same.yaml\n");
    pages.put("/uniform/same.yaml", &compose(&[("main", same)]));
    let source = |name: &str| json!({"name": name, "appRegistry": {"url": pages.url(&format!("/{name}")), "brand": "brand"}});
    let cache = ns
        .cache("apps", json!({"sources": [source("main"), source("uniform")]}))
        .await;

    let status = cache.ready(90).await;
    let mut wanted: Vec<(String, Vec<String>)> = [base, own, pinned, web, db]
        .map(|image| (image.clone(), vec!["main".to_owned()]))
        .into();
    wanted.push((same.clone(), vec!["uniform".to_owned()]));
    wanted.sort();
    assert_eq!(newest(&ns, &cache).await, wanted);
    for node in env.nodes() {
        let there = env.images_on(&node);
        assert!(
            images.iter().all(|image| there.contains(image)),
            "{node}: {there:?}"
        );
    }
    let [main, uniform] = &status.sources[..] else {
        panic!("{:?}", status.sources)
    };
    assert_eq!((main.ready, main.images), (false, 5));
    for app in ["gone: ", "wrong: "] {
        assert!(main.message.contains(app), "{main:?}");
    }
    assert_eq!(
        main.message.matches("; ").count(),
        1,
        "and nothing else: {main:?}"
    );
    assert_eq!(
        (uniform.ready, uniform.images, uniform.message.as_str()),
        (true, 1, "")
    );
    ns.delete().await;
}

/// The registry of one cache: the images of some apps, and an app that is broken.
fn serve_apps(pages: &Pages, cache: &str, apps: &[(&str, &str)]) {
    let mut listed = vec!["gone: {}".to_owned()];
    for (app, image) in apps {
        listed.push(format!("{app}: {{}}"));
        let spec = format!("/{cache}/specs/{app}/docker-compose.yaml");
        pages.put(&spec, &compose(&[(app, image)]));
    }
    let listed = listed.join(", ");
    let registry =
        format!("repositories: {{apps: {{url: specs}}}}\ncontexts: {{brand: {{apps: {{{listed}}}}}}}\n");
    pages.put(&format!("/{cache}/app-registry.yaml"), &registry);
}

#[tokio::test]
async fn an_app_that_leaves_its_registry_is_purged_or_retained() {
    let env = Env::shared().await;
    let ns = env.namespace("source-left").await;
    let pages = Pages::serve(&env);
    let mut caches = Vec::new();
    for removal in ["Purge", "Retain"] {
        let name = removal.to_lowercase();
        let images = images(&env, &ns, &name).await;
        let [a, b, old] = &images;
        serve_apps(&pages, &name, &[("a", a), ("old", old), ("b", b)]);
        let source =
            json!({"name": "apps", "appRegistry": {"url": pages.url(&format!("/{name}")), "brand": "brand"}});
        let cache = ns
            .cache(&name, json!({"sources": [source], "removal": removal}))
            .await;
        caches.push((name, images, cache));
    }
    for (_, [a, b, old], cache) in &caches {
        cache.ready(90).await;
        holds_exactly(&ns, cache, 5, &[a, b, old]).await;
    }
    for (name, [a, b, _], cache) in &caches {
        serve_apps(&pages, name, &[("a", a), ("b", b)]);
        cache.refresh("dropped").await;
        holds_exactly(&ns, cache, 10, &[a, b]).await;
        cache.ready(60).await;
    }
    let [(_, [kept, _, purged], _), (_, [_, _, retained], _)] = &caches[..] else {
        unreachable!()
    };
    for node in env.nodes() {
        eventually(&format!("{purged} leaves {node}"), 60, || async {
            if env.node_has(&node, purged) {
                Err("still there".to_owned())
            } else {
                Ok(())
            }
        })
        .await;
        assert!(
            env.node_has(&node, kept),
            "{node} lost what the registry still has"
        );
        assert!(
            env.node_has(&node, retained),
            "{node} lost what was to be retained"
        );
    }
    ns.delete().await;
}

async fn images(env: &Env, ns: &Namespace, prefix: &str) -> [String; 3] {
    let image = async |name: &str| ns.image(env, Open, &format!("{prefix}-{name}")).await;
    [image("a").await, image("b").await, image("old").await]
}
