//! What tenants may do, and the garbage collector. What the operator may: see `access.rs`.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use larder_api::{ImageCache, ImageCacheRevision, NodeImageCache};
use larder_e2e::cluster::registry::RegistryKind;
use serde_json::{Value, json};

use crate::support::{Env, Namespace, eventually};

async fn spec(env: &Env, namespace: &Namespace) -> Value {
    let image = namespace.image(env, RegistryKind::Open, "app").await;
    json!({"images": [{"image": image}]})
}

/// A service account of the namespace with these rights in it; a client with its token.
async fn account(env: &Env, namespace: &Namespace, name: &str, rules: Value) -> Client {
    let account = ServiceAccount {
        metadata: meta(name),
        ..ServiceAccount::default()
    };
    namespace
        .api::<ServiceAccount>()
        .create(&PostParams::default(), &account)
        .await
        .unwrap();
    let rules: Vec<PolicyRule> = serde_json::from_value(rules).unwrap();
    let role = Role {
        metadata: meta(name),
        rules: Some(rules),
    };
    namespace
        .api::<Role>()
        .create(&PostParams::default(), &role)
        .await
        .unwrap();
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace.name}],
    }))
    .unwrap();
    namespace
        .api::<RoleBinding>()
        .create(&PostParams::default(), &binding)
        .await
        .unwrap();
    env.act_with_token_of(&namespace.name, name).await
}

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        ..ObjectMeta::default()
    }
}

/// The API server's words of refusal; it must be a 403.
pub(crate) fn denied<T>(what: &str, result: Result<T, kube::Error>) -> String {
    match result {
        Ok(_) => panic!("{what} was allowed"),
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 403, "{what}: {status:?}");
            status.message.clone()
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Tries every kind of write on a revision and a node object; returns the refusals.
async fn try_all_writes(client: &Client, namespace: &str, revision: &str, node: &str) -> Vec<String> {
    let revisions: Api<ImageCacheRevision> = Api::namespaced(client.clone(), namespace);
    let objects: Api<NodeImageCache> = Api::all(client.clone());
    let (post, patching, delete) = (
        PostParams::default(),
        PatchParams::default(),
        DeleteParams::default(),
    );
    let image =
        json!([{"image": "docker.io/library/evil:1", "platforms": [], "priority": 0, "private": false}]);
    let new_revision: ImageCacheRevision = serde_json::from_value(json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCacheRevision",
        "metadata": {"name": "evil"}, "number": 1000, "spec": {"images": image},
    }))
    .unwrap();
    let new_object: NodeImageCache = serde_json::from_value(json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "NodeImageCache",
        "metadata": {"name": "evil"}, "spec": {"nodeUid": "x", "caches": []},
    }))
    .unwrap();
    let number = Patch::Merge(json!({"number": 1000}));
    let uid = Patch::Merge(json!({"spec": {"nodeUid": "another"}}));
    let status = Patch::Merge(json!({"status": {"kubelet": {"nodeUid": "another"}}}));
    vec![
        denied(
            "creating a revision",
            revisions.create(&post, &new_revision).await,
        ),
        denied(
            "raising a revision",
            revisions.patch(revision, &patching, &number).await,
        ),
        denied("deleting a revision", revisions.delete(revision, &delete).await),
        denied(
            "deleting all revisions",
            revisions.delete_collection(&delete, &ListParams::default()).await,
        ),
        denied("creating a node object", objects.create(&post, &new_object).await),
        denied(
            "changing a node object",
            objects.patch(node, &patching, &uid).await,
        ),
        denied(
            "changing a node object's status",
            objects.patch_status(node, &patching, &status).await,
        ),
        denied("deleting a node object", objects.delete(node, &delete).await),
        denied(
            "deleting all node objects",
            objects.delete_collection(&delete, &ListParams::default()).await,
        ),
    ]
}

#[tokio::test]
async fn a_tenant_with_rights_on_image_caches_alone_can_write_nothing_else() {
    let env = Env::shared().await;
    let namespace = env.namespace("tenant").await;
    let rules = json!([{"apiGroups": ["larder.dev"], "resources": ["imagecaches"], "verbs": ["*"]}]);
    let tenant = account(&env, &namespace, "tenant", rules).await;
    let caches: Api<ImageCache> = Api::namespaced(tenant.clone(), &namespace.name);
    let object = serde_json::from_value(json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache", "metadata": {"name": "web"},
        "spec": spec(&env, &namespace).await,
    }))
    .unwrap();
    caches.create(&PostParams::default(), &object).await.unwrap();
    let cache = namespace.existing("web");
    let revision = cache.ready(60).await.revision.unwrap();
    let node = env.nodes().remove(0);
    for refusal in try_all_writes(&tenant, &namespace.name, &revision, &node).await {
        assert!(
            refusal.contains("cannot"),
            "the refusal is that of RBAC: {refusal}"
        );
    }
    let status = Patch::Merge(json!({"status": {"revision": "evil"}}));
    denied(
        "changing the cache's status",
        caches.patch_status("web", &PatchParams::default(), &status).await,
    );
    cache.ready(5).await;
    caches.delete("web", &DeleteParams::default()).await.unwrap();
    cache.gone(30).await;
    namespace.delete().await;
}

/// RBAC is often wider than meant: `larder.dev/*`, or cluster-wide. Admission holds all the same.
#[tokio::test]
async fn wide_rights_do_not_open_what_belongs_to_the_operator() {
    let env = Env::shared().await;
    let namespace = env.namespace("wide").await;
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let tenant = account(&env, &namespace, "wide", rules.clone()).await;
    // Node objects are of the whole cluster.
    let name = format!("{}-wide", namespace.name);
    let cluster_roles: Api<ClusterRole> = Api::all(env.client.clone());
    let bindings: Api<ClusterRoleBinding> = Api::all(env.client.clone());
    let role: ClusterRole =
        serde_json::from_value(json!({"metadata": {"name": name}, "rules": rules})).unwrap();
    cluster_roles.create(&PostParams::default(), &role).await.unwrap();
    let binding = serde_json::from_value(json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "wide", "namespace": namespace.name}],
    }))
    .unwrap();
    bindings.create(&PostParams::default(), &binding).await.unwrap();

    let cache = namespace.cache("web", spec(&env, &namespace).await).await;
    let revision = cache.ready(60).await.revision.unwrap();
    let node = env.nodes().remove(0);
    // The right reaches the authorizer's cache a moment later: until then it is RBAC that refuses.
    let objects: Api<NodeImageCache> = Api::all(tenant.clone());
    eventually("the tenant may read node objects", 20, || async {
        objects.get(&node).await.map(drop).map_err(|e| e.to_string())
    })
    .await;
    for refusal in try_all_writes(&tenant, &namespace.name, &revision, &node).await {
        assert!(refusal.contains("only the operator of Larder"), "{refusal}");
    }
    // Metadata stays open: the garbage collector needs it.
    let annotation = Patch::Merge(json!({"metadata": {"annotations": {"example.com/note": "x"}}}));
    let revisions: Api<ImageCacheRevision> = Api::namespaced(tenant.clone(), &namespace.name);
    revisions
        .patch(&revision, &PatchParams::default(), &annotation)
        .await
        .unwrap();
    let content = Patch::Merge(json!({"spec": {"images": []}}));
    let refused = revisions
        .patch(&revision, &PatchParams::default(), &content)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("immutable") || refused.contains("only the operator"),
        "{refused}"
    );
    cache.ready(5).await;
    bindings.delete(&name, &DeleteParams::default()).await.unwrap();
    cluster_roles
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    namespace.delete().await;
}

/// RBAC does not hold `system:masters` back, so this shows admission alone. They may clean up, and no more.
#[tokio::test]
async fn cluster_administrators_may_delete_what_belongs_to_the_operator_but_not_write_it() {
    let env = Env::shared().await;
    let namespace = env.namespace("masters").await;
    let cache = namespace.cache("web", spec(&env, &namespace).await).await;
    let name = cache.ready(60).await.revision.unwrap();
    let revisions = namespace.api::<ImageCacheRevision>();
    let mut copy = revisions.get(&name).await.unwrap();
    copy.metadata = meta("copy");
    let refusal = denied(
        "creating a revision",
        revisions.create(&PostParams::default(), &copy).await,
    );
    assert!(
        refusal.contains("only the operator of Larder creates"),
        "{refusal}"
    );
    let raise = Patch::Merge(json!({"number": 1000}));
    let refusal = denied(
        "raising a revision",
        revisions.patch(&name, &PatchParams::default(), &raise).await,
    );
    assert!(
        refusal.contains("only the operator of Larder changes"),
        "{refusal}"
    );
    let objects: Api<NodeImageCache> = Api::all(env.client.clone());
    let empty = Patch::Merge(json!({"spec": {"caches": []}}));
    let node = env.nodes().remove(0);
    let refusal = denied(
        "emptying a node object",
        objects.patch(&node, &PatchParams::default(), &empty).await,
    );
    assert!(
        refusal.contains("only the operator of Larder changes"),
        "{refusal}"
    );

    // A node object that goes is made anew.
    let uid = objects.get(&node).await.unwrap().uid();
    objects.delete(&node, &DeleteParams::default()).await.unwrap();
    eventually("the node object is made anew", 30, || async {
        let object = objects.get_opt(&node).await.unwrap();
        let anew = object.as_ref().is_some_and(|o| o.uid() != uid);
        anew.then_some(()).ok_or_else(|| format!("{object:?}"))
    })
    .await;
    cache.ready(60).await;
    namespace.delete().await;
}

#[tokio::test]
async fn all_three_kinds_of_deletion_end_and_only_orphan_leaves_revisions() {
    let env = Env::shared().await;
    let namespace = env.namespace("collect").await;
    let revisions = namespace.api::<ImageCacheRevision>();
    let objects: Api<NodeImageCache> = Api::all(env.client.clone());
    for (kind, delete) in [
        ("background", DeleteParams::background()),
        ("foreground", DeleteParams::foreground()),
        ("orphan", DeleteParams::orphan()),
    ] {
        let cache = namespace.cache(kind, spec(&env, &namespace).await).await;
        let revision = cache.ready(60).await.revision.unwrap();
        let uid = cache.get().await.uid().unwrap();
        cache.api().delete(kind, &delete).await.unwrap();
        cache.gone(30).await;
        eventually(&format!("{kind}: no node claims the cache"), 30, || async {
            let all = objects.list(&ListParams::default()).await.unwrap().items;
            let left = all
                .iter()
                .flat_map(|o| &o.spec.caches)
                .filter(|c| c.uid == uid)
                .count();
            if left == 0 {
                Ok(())
            } else {
                Err(format!("{left} claims"))
            }
        })
        .await;
        if kind == "orphan" {
            let left = revisions.get(&revision).await.unwrap();
            assert!(left.owner_references().is_empty(), "{:?}", left.metadata);
            // Whoever orphaned it may delete it; nothing holds it back.
            revisions
                .delete(&revision, &DeleteParams::default())
                .await
                .unwrap();
        }
        eventually(&format!("{kind}: the revision goes"), 30, || async {
            let left = revisions.get_opt(&revision).await.unwrap();
            left.map_or(Ok(()), |left| Err(format!("{:?}", left.metadata)))
        })
        .await;
    }
    // What is left after the last of a node's caches is nothing.
    namespace.delete().await;
}
