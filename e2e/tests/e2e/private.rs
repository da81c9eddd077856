//! Images that a registry gives to those with a password only.

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{ListParams, PostParams};
use larder_api::ImageCacheRevision;
use larder_api::image_cache_status::Failure;
use larder_api::names::Reason;
use larder_e2e::cluster::registry::RegistryKind;
use serde_json::{Value, json};

use crate::support::{Cache, Env, Namespace, condition, eventually, nothing_tells};

struct Private {
    image: String,
    host: String,
    user: String,
    password: String,
}

impl Private {
    async fn push(env: &Env, namespace: &Namespace) -> Self {
        let image = namespace.image(env, RegistryKind::Auth, "app").await;
        let registry = env.registry(RegistryKind::Auth);
        let (user, password) = registry.credentials.unwrap();
        Self {
            image,
            host: registry.host,
            user,
            password,
        }
    }

    fn spec(&self, secrets: &[&str]) -> Value {
        let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
        json!({
            "images": [{"image": self.image}], "pullSecrets": secrets,
            "retry": {"initialDelay": "1s", "maxDelay": "10s"},
        })
    }

    async fn secret(&self, namespace: &Namespace, name: &str) {
        namespace
            .pull_secret(name, &self.host, &self.user, &self.password)
            .await;
    }
}

/// The failure of the image once nodes or the operator report it.
async fn failure(cache: &Cache, image: &str, allowed: &[Reason]) -> Failure {
    let find = |failures: &[Failure]| {
        failures
            .iter()
            .find(|f| f.image == image && allowed.contains(&f.reason))
            .cloned()
    };
    let what = format!("{image} fails for one of {allowed:?}");
    let status = cache.until(&what, 45, |s| find(&s.failures).is_some()).await;
    assert_eq!(condition(&status, "Degraded"), Some("True"), "{status:?}");
    assert_eq!(condition(&status, "Resolved"), Some("False"), "{status:?}");
    assert_ne!(condition(&status, "Ready"), Some("True"), "{status:?}");
    find(&status.failures).unwrap()
}

#[tokio::test]
async fn a_pull_secret_opens_a_private_registry_and_the_revision_says_private() {
    let env = Env::shared().await;
    let namespace = env.namespace("private").await;
    let private = Private::push(&env, &namespace).await;
    let public = namespace.image(&env, RegistryKind::Open, "public").await;
    private.secret(&namespace, "regcred").await;
    let mut spec = private.spec(&["regcred"]);
    spec["images"]
        .as_array_mut()
        .unwrap()
        .push(json!({"image": public}));
    let cache = namespace.cache("web", spec).await;
    let status = cache.ready(60).await;
    assert_eq!((status.images.total, status.images.unresolved), (2, 0));
    for node in env.nodes() {
        assert!(
            env.node_has(&node, &private.image),
            "{node}: {:?}",
            env.images_on(&node)
        );
    }
    let revision = namespace
        .api::<ImageCacheRevision>()
        .get(&status.revision.unwrap())
        .await
        .unwrap();
    let is_private = |image: &str| {
        revision
            .spec
            .spec
            .images
            .iter()
            .find(|i| i.image == image)
            .unwrap()
            .private
    };
    assert!(is_private(&private.image));
    assert!(!is_private(&public));
    nothing_tells(&env, &[&private.password]);
    namespace.delete().await;
}

#[tokio::test]
async fn a_wrong_password_is_unauthorized_and_mending_the_secret_heals() {
    let env = Env::shared().await;
    let namespace = env.namespace("private").await;
    let private = Private::push(&env, &namespace).await;
    let wrong = "not-the-password-8113";
    namespace
        .pull_secret("regcred", &private.host, &private.user, wrong)
        .await;
    let cache = namespace.cache("web", private.spec(&["regcred"])).await;
    let failure = failure(&cache, &private.image, &[Reason::Unauthorized]).await;
    assert!(
        failure.message.contains("401") || failure.message.to_lowercase().contains("unauthorized"),
        "{failure:?}"
    );
    nothing_tells(&env, &[wrong, &private.password]);
    for node in env.nodes() {
        assert!(!env.node_has(&node, &private.image));
    }
    private.secret(&namespace, "regcred").await;
    let status = cache.ready(60).await;
    assert!(status.failures.is_empty(), "{:?}", status.failures);
    eventually("the image counts as resolved", 30, || async {
        let status = cache.status().await;
        let resolved =
            condition(&status, "Resolved") == Some("True") && condition(&status, "Degraded") == Some("False");
        resolved
            .then_some(())
            .ok_or_else(|| format!("{:?}", status.conditions))
    })
    .await;
    namespace.delete().await;
}

/// Nobody goes on with what a secret once said: neither the operator nor the kubelet, for which it worked before.
#[tokio::test]
async fn a_secret_that_is_replaced_counts_from_the_next_attempt_on() {
    let env = Env::shared().await;
    let namespace = env.namespace("private").await;
    let private = Private::push(&env, &namespace).await;
    private.secret(&namespace, "regcred").await;
    let cache = namespace.cache("web", private.spec(&["regcred"])).await;
    cache.ready(60).await;

    let next = namespace.image(&env, RegistryKind::Auth, "next").await;
    let wrong = "replaced-by-4471";
    namespace
        .pull_secret("regcred", &private.host, &private.user, wrong)
        .await;
    let both = json!([{"image": private.image}, {"image": next}]);
    cache.patch(json!({"spec": {"images": both}})).await;
    failure(&cache, &next, &[Reason::Unauthorized]).await;
    private.secret(&namespace, "regcred").await;
    let status = cache.ready(60).await;
    assert!(status.failures.is_empty(), "{:?}", status.failures);
    for node in env.nodes() {
        assert!(env.node_has(&node, &next), "{node}");
    }
    nothing_tells(&env, &[wrong, &private.password]);
    namespace.delete().await;
}

#[tokio::test]
async fn a_missing_secret_is_named_and_making_it_heals() {
    let env = Env::shared().await;
    let namespace = env.namespace("private").await;
    let elsewhere = env.namespace("elsewhere").await;
    let private = Private::push(&env, &namespace).await;
    // A secret of that name in another namespace is of no use.
    private.secret(&elsewhere, "regcred").await;
    let cache = namespace.cache("web", private.spec(&["regcred"])).await;
    let allowed = [Reason::CredentialsMissing, Reason::Unauthorized];
    failure(&cache, &private.image, &allowed).await;
    let status = cache
        .until("the secret is named", 30, |s| {
            s.failures.iter().any(|f| f.message.contains("regcred"))
                || s.conditions.iter().any(|c| c.message.contains("regcred"))
        })
        .await;
    assert_eq!(status.nodes.ready, 0);
    private.secret(&namespace, "regcred").await;
    let status = cache.ready(60).await;
    assert!(status.failures.is_empty(), "{:?}", status.failures);
    nothing_tells(&env, &[&private.password]);
    namespace.delete().await;
    elsewhere.delete().await;
}

#[tokio::test]
async fn without_any_secret_the_registry_is_quoted() {
    let env = Env::shared().await;
    let namespace = env.namespace("private").await;
    let private = Private::push(&env, &namespace).await;
    let cache = namespace.cache("web", private.spec(&[])).await;
    let failure = failure(
        &cache,
        &private.image,
        &[Reason::CredentialsMissing, Reason::Unauthorized],
    )
    .await;
    assert!(!failure.message.is_empty());
    // Naming a secret that exists is a change of the spec: it needs no patience.
    private.secret(&namespace, "regcred").await;
    cache
        .patch(json!({"spec": {"pullSecrets": [{"name": "regcred"}]}}))
        .await;
    cache.ready(30).await;
    nothing_tells(&env, &[&private.password]);
    namespace.delete().await;
}

/// The operator never reads what a service account brings along; the nodes' kubelets do.
#[tokio::test]
async fn a_service_account_serves_for_its_pull_secrets() {
    let env = Env::shared().await;
    let namespace = env.namespace("private").await;
    let private = Private::push(&env, &namespace).await;
    private.secret(&namespace, "of-the-account").await;
    let account: ServiceAccount = serde_json::from_value(json!({
        "metadata": {"name": "puller"}, "imagePullSecrets": [{"name": "of-the-account"}],
    }))
    .unwrap();
    namespace
        .api::<ServiceAccount>()
        .create(&PostParams::default(), &account)
        .await
        .unwrap();
    let mut spec = private.spec(&[]);
    spec["podTemplate"] = json!({"serviceAccountName": "puller"});
    spec["resolve"] = json!("OnNode");
    let cache = namespace.cache("web", spec).await;
    cache.ready(60).await;
    for node in env.nodes() {
        assert!(env.node_has(&node, &private.image));
    }
    let secrets = namespace
        .api::<Secret>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    assert_eq!(
        secrets.len(),
        1,
        "Larder makes no secrets of its own: {secrets:?}"
    );
    nothing_tells(&env, &[&private.password]);
    namespace.delete().await;
}
