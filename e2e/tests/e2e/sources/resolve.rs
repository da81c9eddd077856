//! `larder-operator resolve`, as shipped, beside a real registry.

use std::path::{Path, PathBuf};

use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Env, Pages};

/// The shipped program, where the registries and pages are: in the control plane's network.
async fn resolve(env: &Env, folder: &Path) -> (Option<i32>, Value) {
    let program =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/larder/bin/linux_amd64/larder-operator");
    let registries = folder.join("registries.yaml");
    std::fs::write(
        &registries,
        format!("{}: {{plainHTTP: true}}\n", env.registry(Open).host),
    )
    .unwrap();
    let output = Command::new("ip")
        .args(["netns", "exec", &env.cluster.name().control_netns()])
        .arg(program)
        .args(["resolve", "--file"])
        .arg(folder.join("cache.yaml"))
        .arg("--registries-config")
        .arg(registries)
        // Without the proxies of whoever runs the tests.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .output()
        .await
        .unwrap();
    let printed = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), printed)
}

#[tokio::test]
async fn a_file_says_what_its_cache_would_get() {
    let env = Env::shared().await;
    let ns = env.namespace("resolve").await;
    let pages = Pages::serve(&env);
    let host = env.registry(Open).host;
    let push = async |name: &str, tag: &str| {
        let repository = format!("{}/{name}", ns.name);
        let spec = ImageSpec::new(rand::random()).layers(1, 10_000);
        let pushed = env.push(Open, &spec, &repository, tag).await;
        (format!("{host}/{repository}:{tag}"), pushed.digest)
    };
    let (web, web_digest) = push("web", "1").await;
    let (listed, listed_digest) = push("listed", "1").await;
    push("tags", "1.2.0").await;
    let (tagged, tagged_digest) = push("tags", "1.3.0").await;
    pages.put(
        "/apps/app-registry.yaml",
        "contexts: {brand: {apps: {web: {spec: web.yaml}, gone: {spec: gone.yaml}}}}\n",
    );
    pages.put(
        "/apps/web.yaml",
        &format!("services: {{main: {{image: '{web}'}}}}\n"),
    );
    pages.put("/list", &format!("{listed}\n"));
    let cache = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache", "metadata": {"name": "web"},
        "spec": {"sources": [
            {"name": "apps", "appRegistry": {"url": pages.url("/apps"), "brand": "brand"}},
            {"name": "page", "http": {"url": pages.url("/list")}},
            {"name": "tags", "registryTags": {
                "repository": format!("{host}/{}/tags", ns.name), "semver": "*", "newest": 1,
            }},
        ]},
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cache.yaml"), cache.to_string()).unwrap();
    let of = |image: &str, source: &str, app: Option<&str>, digest: &str| json!({"image": image, "source": source, "app": app, "service": app.map(|_| "main"), "digest": digest});
    let images = json!([
        of(&web, "apps", Some("web"), &web_digest),
        of(&listed, "page", None, &listed_digest),
        of(&tagged, "tags", None, &tagged_digest),
    ]);

    let (code, printed) = resolve(&env, folder.path()).await;
    assert_eq!(printed["images"], images);
    let errors = printed["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(
        (&errors[0]["source"], &errors[0]["app"]),
        (&json!("apps"), &json!("gone"))
    );
    assert_eq!(errors[0]["reason"], "NotFound");
    assert_eq!(code, Some(1));

    // Of the same image, which counts once.
    pages.put(
        "/apps/gone.yaml",
        &format!("services: {{main: {{image: '{web}'}}}}\n"),
    );
    let (code, printed) = resolve(&env, folder.path()).await;
    assert_eq!(printed, json!({"images": images, "errors": []}));
    assert_eq!(code, Some(0));

    // What the cluster itself makes of it is the same.
    let cached = ns.cache("web", cache["spec"].clone()).await;
    cached.ready(60).await;
    let newest: Vec<String> = super::newest(&ns, &cached)
        .await
        .into_iter()
        .map(|(image, _)| image)
        .collect();
    let mut wanted = vec![web, listed, tagged];
    wanted.sort();
    assert_eq!(newest, wanted);
    ns.delete().await;
}
