//! Namespaces that hold pods to rules: quotas, Pod Security, service accounts.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace as CoreNamespace, Pod, ResourceQuota, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use larder_api::names::Reason;
use larder_e2e::cluster::registry::RegistryKind;
use serde_json::{Value, json};

use crate::support::{Env, Namespace, condition};

async fn spec(env: &Env, namespace: &Namespace) -> Value {
    let image = namespace.image(env, RegistryKind::Open, "app").await;
    json!({"images": [{"image": image}], "retry": {"initialDelay": "1s", "maxDelay": "5s"}})
}

#[tokio::test]
async fn a_quota_that_forbids_pods_is_named_and_lifting_it_heals() {
    let env = Env::shared().await;
    let namespace = env.namespace("quota").await;
    let quotas = namespace.api::<ResourceQuota>();
    let quota =
        serde_json::from_value(json!({"metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}}}));
    quotas
        .create(&PostParams::default(), &quota.unwrap())
        .await
        .unwrap();
    crate::support::eventually("the quota is in force", 30, || async {
        let known = quotas
            .get("no-pods")
            .await
            .unwrap()
            .status
            .is_some_and(|s| s.hard.is_some());
        known.then_some(()).ok_or_else(String::new)
    })
    .await;

    let cache = namespace.cache("web", spec(&env, &namespace).await).await;
    let nodes = i32::try_from(env.nodes().len()).unwrap();
    let status = cache
        .until("PodRejected on every node", 30, |s| {
            s.failures
                .iter()
                .any(|f| f.reason == Reason::PodRejected && f.nodes == nodes)
        })
        .await;
    let failure = status
        .failures
        .iter()
        .find(|f| f.reason == Reason::PodRejected)
        .unwrap();
    assert!(failure.message.contains("exceeded quota: no-pods"), "{failure:?}");
    assert_eq!(condition(&status, "Ready"), Some("False"));
    assert_eq!(condition(&status, "Degraded"), Some("True"));
    // A dry run found it: no Job lies around whose pod is refused over and over.
    let jobs = namespace
        .api::<Job>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    assert!(jobs.is_empty(), "{jobs:?}");

    quotas.delete("no-pods", &DeleteParams::default()).await.unwrap();
    let status = cache.ready(60).await;
    assert!(status.failures.is_empty(), "{:?}", status.failures);
    assert_eq!(condition(&status, "Degraded"), Some("False"));
    namespace.delete().await;
}

#[tokio::test]
async fn a_namespace_under_the_restricted_standard_works() {
    let env = Env::shared().await;
    let namespace = env.namespace("restricted").await;
    let labels = json!({"metadata": {"labels": {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }}});
    let namespaces: Api<CoreNamespace> = Api::all(env.client.clone());
    namespaces
        .patch(&namespace.name, &PatchParams::default(), &Patch::Merge(&labels))
        .await
        .unwrap();
    // The rule is in force: a plain pod is refused.
    let plain: Pod = serde_json::from_value(json!({
        "metadata": {"name": "plain"}, "spec": {"containers": [{"name": "main", "image": "busybox"}]},
    }))
    .unwrap();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let refusal = namespace
        .api::<Pod>()
        .create(&dry, &plain)
        .await
        .unwrap_err()
        .to_string();
    assert!(refusal.contains("violates PodSecurity"), "{refusal}");

    let cache = namespace.cache("web", spec(&env, &namespace).await).await;
    let status = cache.ready(60).await;
    assert_eq!(status.nodes.ready, i32::try_from(env.nodes().len()).unwrap());
    assert!(status.failures.is_empty(), "{:?}", status.failures);
    namespace.delete().await;
}

#[tokio::test]
async fn a_missing_service_account_is_named_and_making_it_heals() {
    let env = Env::shared().await;
    let namespace = env.namespace("account").await;
    let mut spec = spec(&env, &namespace).await;
    spec["podTemplate"] = json!({"serviceAccountName": "puller"});
    let cache = namespace.cache("web", spec).await;
    let status = cache
        .until("PodRejected", 30, |s| {
            s.failures.iter().any(|f| f.reason == Reason::PodRejected)
        })
        .await;
    let failure = status
        .failures
        .iter()
        .find(|f| f.reason == Reason::PodRejected)
        .unwrap();
    assert!(
        failure.message.contains("serviceaccount \"puller\" not found"),
        "{failure:?}"
    );
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "puller"}})).unwrap();
    namespace
        .api::<ServiceAccount>()
        .create(&PostParams::default(), &account)
        .await
        .unwrap();
    cache.ready(60).await;
    namespace.delete().await;
}
