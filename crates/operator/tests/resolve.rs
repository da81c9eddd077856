//! `larder-operator resolve` as people run it: the program itself, against a web server and a registry on this machine.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use larder_testkit::registry::{Auth, FakeRegistry, MediaTypes, TestImage};
use serde_json::{Value, json};
use tempfile::TempDir;

type Page = (&'static str, String);

/// The tags of the one repository that the web server has.
const TAGS: &str = "/v2/c/app/tags/list";

/// What the app registry is made of: `common` is extended, `fixes` mixed in, `stats` overridden, and `portal` has two
/// services, whose images are templates.
const APP_REGISTRY: &str = "
repositories:
  apps: {url: specs}
settings: {release: '2.1'}
contexts:
  common:
    apps:
      notebook: {name: Notebook, spec: nowhere.yaml}
  fixes:
    apps:
      portal: {spec: $apps/portal-next/docker-compose.yaml}
  brand:
    extends: [common]
    mixin: [fixes]
    apps:
      portal: {name: Portal}
      stats: {name: Stats}
    stats: {spec: specs/stats-pinned.yaml}
";

/// The web server of a test, a registry, and files.
struct World {
    web: SocketAddr,
    registry: FakeRegistry,
    files: TempDir,
}

impl World {
    async fn serve(pages: Vec<Page>) -> Self {
        let pages: Arc<BTreeMap<_, _>> = Arc::new(pages.into_iter().collect());
        let get = async |State(pages): State<Arc<BTreeMap<&str, String>>>, request: Request| {
            let page = pages.get(request.uri().path()).cloned();
            page.ok_or(StatusCode::NOT_FOUND)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = listener.local_addr().unwrap();
        let router = Router::new().fallback(get).with_state(pages);
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Self {
            web,
            registry: FakeRegistry::start(Auth::Open).await.unwrap(),
            files: tempfile::tempdir().unwrap(),
        }
    }

    /// Everything that the sources of [`Self::cache`] ask for.
    async fn whole() -> Self {
        let compose = |services: &str| format!("services:\n{services}");
        Self::serve(vec![
            ("/main/app-registry.yaml", APP_REGISTRY.to_owned()),
            ("/main/app-defaults.yaml", "docs: https://docs.example\n".to_owned()),
            ("/main/nowhere.yaml", compose("  main: {image: 'quay.io/a/notebook:1'}\n")),
            (
                "/main/specs/portal-next/docker-compose.yaml",
                compose("  web: {image: 'quay.io/a/portal:{{ release }}'}\n  db: {image: 'postgres:{{ pg | default(16) }}'}\n"),
            ),
            ("/main/specs/stats-pinned.yaml", compose("  main: {image: 'quay.io/a/stats:7'}\n")),
            ("/list", json!({"items": [{"image": "quay.io/b/tool:3"}, {"image": "quay.io/b/tool:debug"}]}).to_string()),
            (TAGS, json!({"name": "c/app", "tags": ["1.0.0", "1.1.0", "2.0.0", "latest"]}).to_string()),
        ])
        .await
    }

    fn cache(&self) -> Value {
        json!({
            "apiVersion": "larder.dev/v1alpha1",
            "kind": "ImageCache",
            "metadata": {"name": "web"},
            "spec": {
                "images": [{"image": "nginx:1.27"}],
                "exclude": ["*:debug"],
                "sources": [
                    {"name": "apps", "appRegistry": {"url": format!("http://{}/main", self.web), "brand": "brand"}},
                    {"name": "page", "http": {
                        "url": format!("http://{}/list", self.web), "format": "Json", "jsonPath": "{.items[*].image}",
                    }},
                    {"name": "tags", "registryTags": {
                        "repository": format!("{}/c/app", self.web), "semver": "^1", "newest": 1,
                    }},
                ],
            },
        })
    }

    /// Pushes one image for each reference that the sources give; the digest of each.
    fn fill(&self, references: &[&str]) -> BTreeMap<String, String> {
        let put = |reference: &&str| {
            let (repository, tag) = reference.rsplit_once(':').unwrap();
            let (_, repository) = repository.split_once('/').unwrap();
            let image = TestImage::new(MediaTypes::Oci, "linux/amd64", &[reference.as_bytes()]);
            (
                (*reference).to_owned(),
                self.registry.put(repository, tag, &image),
            )
        };
        references.iter().map(put).collect()
    }

    /// The program's end. Every registry is the fake one, but for the web server.
    async fn resolve(&self, cache: &Value, flags: &[&str]) -> Output {
        let folder = self.files.path();
        std::fs::write(folder.join("cache.yaml"), cache.to_string()).unwrap();
        self.run(&folder.join("cache.yaml"), flags).await
    }

    async fn run(&self, file: &Path, flags: &[&str]) -> Output {
        let registries = self.files.path().join("registries.yaml");
        let host = self.registry.host();
        std::fs::write(
            &registries,
            format!(
                "\"{}\": {{plainHTTP: true}}\n\"*\": {{mirror: \"http://{host}\"}}\n",
                self.web
            ),
        )
        .unwrap();
        tokio::process::Command::new(env!("CARGO_BIN_EXE_larder-operator"))
            // Proxies of whoever runs the tests are not for this.
            .env_clear()
            .arg("resolve")
            .arg("-f")
            .arg(file)
            .arg("--registries-config")
            .arg(&registries)
            .args(flags)
            .output()
            .await
            .unwrap()
    }
}

fn printed(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn image(image: &str, source: &str, app: &str, service: &str) -> Value {
    let or_null = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
    json!({"image": image, "source": or_null(source), "app": or_null(app), "service": or_null(service)})
}

/// What [`World::whole`] gives.
fn all(world: &World) -> Vec<Value> {
    vec![
        image("docker.io/library/nginx:1.27", "", "", ""),
        image("quay.io/a/notebook:1", "apps", "notebook", "main"),
        image("quay.io/a/portal:2.1", "apps", "portal", "web"),
        image("docker.io/library/postgres:16", "apps", "portal", "db"),
        image("quay.io/a/stats:7", "apps", "stats", "main"),
        image("quay.io/b/tool:3", "page", "", ""),
        image(&format!("{}/c/app:1.1.0", world.web), "tags", "", ""),
    ]
}

#[tokio::test]
async fn every_image_is_listed_with_where_it_comes_from() {
    let world = World::whole().await;
    let flags = ["--no-digests", "--allow-private-addresses"];
    let output = world.resolve(&world.cache(), &flags).await;
    assert_eq!(printed(&output), json!({"images": all(&world), "errors": []}));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(world.registry.take_log(), [], "digests are not asked for");
}

#[tokio::test]
async fn digests_are_what_the_registry_says_and_one_that_is_missing_is_named() {
    let world = World::whole().await;
    let mut cache = world.cache();
    // The web server has no manifests.
    cache["spec"]["sources"].as_array_mut().unwrap().pop();
    let mut wanted = all(&world);
    wanted.pop();
    let references: Vec<String> = wanted
        .iter()
        .map(|i| i["image"].as_str().unwrap().to_owned())
        .collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    let digests = world.fill(&references);
    for image in &mut wanted {
        image["digest"] = json!(digests[image["image"].as_str().unwrap()]);
    }
    let output = world.resolve(&cache, &["--allow-private-addresses"]).await;
    assert_eq!(printed(&output), json!({"images": wanted, "errors": []}));
    assert_eq!(output.status.code(), Some(0));

    world.registry.remove("a/stats", "7");
    let output = world.resolve(&cache, &["--allow-private-addresses"]).await;
    let printed = printed(&output);
    wanted[4].as_object_mut().unwrap().remove("digest");
    assert_eq!(printed["images"], json!(wanted));
    let errors = printed["errors"].as_array().unwrap();
    assert_eq!(named(errors), [(Some("apps"), Some("stats"), Some("NotFound"))]);
    assert!(
        errors[0]["message"]
            .as_str()
            .unwrap()
            .contains("quay.io/a/stats:7"),
        "{errors:?}"
    );
    assert_eq!(output.status.code(), Some(1));
}

/// Source, app and reason of each.
fn named(errors: &[Value]) -> Vec<(Option<&str>, Option<&str>, Option<&str>)> {
    let said = |error: &Value| error["message"].as_str().is_some_and(|m| !m.is_empty());
    assert!(errors.iter().all(said), "{errors:?}");
    let of = |e| (text(e, "source"), text(e, "app"), text(e, "reason"));
    errors.iter().map(of).collect()
}

fn text<'a>(error: &'a Value, key: &str) -> Option<&'a str> {
    error.get(key).and_then(Value::as_str)
}

#[tokio::test]
async fn what_is_broken_is_named_with_its_app_and_costs_nothing_else() {
    let world = World::serve(vec![
        ("/main/app-registry.yaml", APP_REGISTRY.to_owned()),
        (
            "/main/specs/portal-next/docker-compose.yaml",
            "services: {web: {image: '{{ release | shout }}'}, db: {image: 'postgres:16'}}".to_owned(),
        ),
        (
            "/main/specs/stats-pinned.yaml",
            "services: {main: {image: 'quay.io/a/stats:7'}}".to_owned(),
        ),
        (TAGS, json!({"tags": ["1.1.0"]}).to_string()),
    ])
    .await;
    let flags = ["--no-digests", "--allow-private-addresses"];
    let output = world.resolve(&world.cache(), &flags).await;
    let printed = printed(&output);
    let images = all(&world);
    assert_eq!(printed["images"], json!([images[0], images[4], images[6]]));
    assert_eq!(
        named(printed["errors"].as_array().unwrap()),
        [
            (Some("apps"), Some("notebook"), Some("NotFound")),
            (Some("apps"), Some("portal"), Some("BrokenTemplate")),
            (Some("page"), None, Some("NotFound")),
        ],
        "{printed:#}"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn this_machine_is_not_asked_unless_a_flag_says_so() {
    let world = World::whole().await;
    let output = world.resolve(&world.cache(), &["--no-digests"]).await;
    let printed = printed(&output);
    assert_eq!(printed["images"], json!([all(&world)[0]]));
    let errors = printed["errors"].as_array().unwrap();
    let sources: Vec<_> = errors.iter().map(|e| text(e, "source").unwrap()).collect();
    assert_eq!(sources, ["apps", "page", "tags"]);
    for error in errors {
        let message = text(error, "message").unwrap();
        assert!(
            message.contains("a loopback address, which is not contacted"),
            "{error}"
        );
    }
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_another_end_and_prints_no_list() {
    let world = World::serve(Vec::new()).await;
    let missing = world.run(&world.files.path().join("missing.yaml"), &[]).await;
    let other = world
        .resolve(&json!({"kind": "Pod", "metadata": {"name": "a"}}), &[])
        .await;
    for (output, words) in [(missing, "missing.yaml"), (other, "no ImageCache")] {
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(words), "{said}");
    }
}
