//! Passwords stay where they were put, whatever becomes of them.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use larder_api::names::{HTTP_SOURCE_SECRET, Reason};
use larder_e2e::cluster::registry::RegistryKind::{Auth, Open};
use serde_json::json;

use crate::support::{Env, Namespace, Pages, failure, nothing_tells, told};

/// A password that nobody else has.
fn password() -> String {
    format!("pw+{:016x}/{:08x}", rand::random::<u64>(), rand::random::<u32>())
}

impl Namespace {
    /// The secret of an http source.
    async fn http_secret(&self, name: &str, host: &str, token: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "type": HTTP_SOURCE_SECRET, "stringData": {"host": host, "token": token},
        });
        let params = PatchParams::apply("test").force();
        self.api::<Secret>()
            .patch(name, &params, &Patch::Apply(&secret))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn pull_secrets_right_wrong_and_rotated_are_told_nowhere() {
    let env = Env::shared().await;
    let ns = env.namespace("secrets").await;
    let image = ns.image(&env, Auth, "app").await;
    let registry = env.registry(Auth);
    let (user, right) = registry.credentials.clone().unwrap();
    let (wrong, rotated) = (password(), password());
    let all = [right.as_str(), &wrong, &rotated];
    let give = async |password: &str| ns.pull_secret("regcred", &registry.host, &user, password).await;

    give(&wrong).await;
    let spec = json!({
        "images": [{"image": image}], "pullSecrets": [{"name": "regcred"}], "removal": "Purge",
        "retry": {"initialDelay": "1s", "maxDelay": "10s"},
    });
    let cache = ns.cache("web", spec).await;
    cache
        .until("the wrong password is refused", 60, |s| {
            failure(s, &image).is_some_and(|f| f.reason == Reason::Unauthorized)
        })
        .await;
    nothing_tells(&env, &all);
    give(&right).await;
    cache.ready(60).await;
    nothing_tells(&env, &all);
    // Rotated before the registry knows: what is there stays.
    give(&rotated).await;
    cache.refresh("rotated").await;
    nothing_tells(&env, &all);
    for node in env.nodes() {
        assert!(env.node_has(&node, &image), "{node} lost what it had");
    }
    give(&right).await;
    cache.delete().await;
    cache.gone(90).await;
    nothing_tells(&env, &all);
    ns.delete().await;
}

#[tokio::test]
async fn the_token_of_a_list_goes_to_its_host_alone_and_is_told_nowhere() {
    let env = Env::shared().await;
    let ns = env.namespace("secrets").await;
    let (pages, other) = (Pages::serve(&env), Pages::serve(&env));
    let (a, b) = (ns.image(&env, Open, "a").await, ns.image(&env, Open, "b").await);
    let (first, second) = (password(), password());
    let all = [first.as_str(), &second];
    pages.put("/list", &a);
    pages.require(&format!("Bearer {first}"));
    other.put("/list", &b);

    ns.http_secret("list", &pages.origin(), &second).await;
    let http =
        |pages: &Pages| json!({"name": "page", "http": {"url": pages.url("/list"), "secretName": "list"}});
    let cache = ns.cache("listed", json!({"sources": [http(&pages)]})).await;
    cache
        .until("the wrong token is refused", 30, |s| {
            s.sources.iter().any(|s| s.reason == "Unauthorized")
        })
        .await;
    nothing_tells(&env, &all);
    ns.http_secret("list", &pages.origin(), &first).await;
    let status = cache.ready(60).await;
    assert_eq!((status.sources[0].ready, status.sources[0].images), (true, 1));
    nothing_tells(&env, &all);

    // The server wants another one now.
    pages.require(&format!("Bearer {second}"));
    cache.refresh("rotated").await;
    let status = cache
        .until("the old token is refused", 30, |s| {
            s.sources.iter().any(|s| s.reason == "Unauthorized")
        })
        .await;
    assert_eq!(status.sources[0].images, 1, "what the list said last stays");
    nothing_tells(&env, &all);
    ns.http_secret("list", &pages.origin(), &second).await;
    cache.refresh("mended").await;
    cache
        .until("the new token serves", 30, |s| s.sources.iter().all(|s| s.ready))
        .await;

    // Whoever may change the cache cannot have the token sent elsewhere.
    cache.patch(json!({"spec": {"sources": [http(&other)]}})).await;
    let status = cache
        .until("the secret is not for that host", 30, |s| {
            s.sources.iter().any(|s| s.reason == "Unauthorized")
        })
        .await;
    assert!(
        status.sources[0].message.contains("not for"),
        "{:?}",
        status.sources
    );
    assert!(other.answers("/list").is_empty(), "it was asked");
    nothing_tells(&env, &all);
    ns.delete().await;
}

/// The search itself: an object that tells a password is found.
#[tokio::test]
async fn a_password_that_is_told_would_be_found() {
    let env = Env::shared().await;
    let ns = env.namespace("secrets").await;
    let password = password();
    ns.pull_secret("regcred", "registry.example.com", "user", &password)
        .await;
    assert_eq!(
        told(&env, &[&password]),
        Vec::<String>::new(),
        "Secrets are not searched"
    );
    let auth = base64_of(&format!("user:{password}"));
    let map: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "leak"}, "data": {"config": json!({"auths": {"registry.example.com": {"auth": auth}}}).to_string()},
    }))
    .unwrap();
    let maps = ns.api::<ConfigMap>();
    maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(told(&env, &[&password]), [format!("ConfigMap {}/leak", ns.name)]);
    maps.delete("leak", &DeleteParams::default()).await.unwrap();
    ns.delete().await;
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
