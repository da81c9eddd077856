//! Who may do what: tenants, the garbage collector, the operator.

use std::collections::BTreeSet;

use futures::StreamExt;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use larder_api::{ImageCache, ImageCacheRevision, NodeImageCache};
use larder_e2e::cluster::registry::RegistryKind;
use larder_e2e::images::ImageSpec;
use serde_json::{Value, json};

use crate::support::{Env, Namespace, eventually};

const OPERATOR: &str = "system:serviceaccount:larder-system:larder-operator";

async fn spec(env: &Env, seed: u64) -> Value {
    let repository = format!("h8/rights-{seed}");
    env.push(
        RegistryKind::Open,
        &ImageSpec::new(seed).layers(1, 10_000),
        &repository,
        "1",
    )
    .await;
    json!({"images": [{"image": format!("{}/{repository}:1", env.registry(RegistryKind::Open).host)}]})
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
fn denied<T>(what: &str, result: Result<T, kube::Error>) -> String {
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
        "spec": spec(&env, 8_141).await,
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
    let roles: Api<ClusterRole> = Api::all(env.client.clone());
    let bindings: Api<ClusterRoleBinding> = Api::all(env.client.clone());
    let role: ClusterRole =
        serde_json::from_value(json!({"metadata": {"name": name}, "rules": rules})).unwrap();
    roles.create(&PostParams::default(), &role).await.unwrap();
    let binding = serde_json::from_value(json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "wide", "namespace": namespace.name}],
    }))
    .unwrap();
    bindings.create(&PostParams::default(), &binding).await.unwrap();

    let cache = namespace.cache("web", spec(&env, 8_142).await).await;
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
    let note = Patch::Merge(json!({"metadata": {"annotations": {"example.com/note": "x"}}}));
    let revisions: Api<ImageCacheRevision> = Api::namespaced(tenant.clone(), &namespace.name);
    revisions
        .patch(&revision, &PatchParams::default(), &note)
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
    roles.delete(&name, &DeleteParams::default()).await.unwrap();
    namespace.delete().await;
}

#[tokio::test]
async fn all_three_kinds_of_deletion_end_and_only_orphan_leaves_revisions() {
    let env = Env::shared().await;
    let namespace = env.namespace("collect").await;
    let revisions = namespace.api::<ImageCacheRevision>();
    let objects: Api<NodeImageCache> = Api::all(env.client.clone());
    for (number, (kind, delete)) in [
        ("background", DeleteParams::background()),
        ("foreground", DeleteParams::foreground()),
        ("orphan", DeleteParams::orphan()),
    ]
    .into_iter()
    .enumerate()
    {
        let cache = namespace
            .cache(kind, spec(&env, 8_143 + number as u64).await)
            .await;
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

/// Everything that the operator may do, over the whole cluster: `verb group/resource`.
const EVERYWHERE: &[&str] = &[
    "get larder.dev/imagecaches",
    "list larder.dev/imagecaches",
    "watch larder.dev/imagecaches",
    "patch larder.dev/imagecaches",
    "update larder.dev/imagecaches",
    "patch larder.dev/imagecaches/status",
    "get larder.dev/imagecacherevisions",
    "list larder.dev/imagecacherevisions",
    "watch larder.dev/imagecacherevisions",
    "create larder.dev/imagecacherevisions",
    "patch larder.dev/imagecacherevisions",
    "update larder.dev/imagecacherevisions",
    "delete larder.dev/imagecacherevisions",
    "get larder.dev/nodeimagecaches",
    "list larder.dev/nodeimagecaches",
    "watch larder.dev/nodeimagecaches",
    "create larder.dev/nodeimagecaches",
    "patch larder.dev/nodeimagecaches",
    "update larder.dev/nodeimagecaches",
    "delete larder.dev/nodeimagecaches",
    "patch larder.dev/nodeimagecaches/status",
    "get /nodes",
    "list /nodes",
    "watch /nodes",
    "get /pods",
    "list /pods",
    "watch /pods",
    "create /pods",
    "delete /pods",
    "get batch/jobs",
    "list batch/jobs",
    "watch batch/jobs",
    "create batch/jobs",
    "patch batch/jobs",
    "delete batch/jobs",
    "get /secrets",
    "create events.k8s.io/events",
    "patch events.k8s.io/events",
    // Whatever is authenticated may ask about itself.
    "create authorization.k8s.io/selfsubjectaccessreviews",
    "create authorization.k8s.io/selfsubjectrulesreviews",
    "create authentication.k8s.io/selfsubjectreviews",
];

/// What it may do in its own namespace beside.
const AT_HOME: &[&str] = &[
    "get coordination.k8s.io/leases",
    "create coordination.k8s.io/leases",
    "update coordination.k8s.io/leases",
];

const VERBS: &[&str] = &[
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "bind",
    "escalate",
    "impersonate",
    "approve",
    "sign",
    "attest",
    "use",
    "*",
];

/// Group and resource of everything that the API server serves, subresources too; and what no discovery lists.
async fn resources(client: &Client) -> BTreeSet<(String, String)> {
    let mut lists = vec![client.list_core_api_resources("v1").await.unwrap()];
    for group in client.list_api_groups().await.unwrap().groups {
        for version in group.versions {
            lists.push(
                client
                    .list_api_group_resources(&version.group_version)
                    .await
                    .unwrap(),
            );
        }
    }
    let mut all = BTreeSet::new();
    for list in lists {
        let group = list
            .group_version
            .rsplit_once('/')
            .map_or("", |(group, _)| group)
            .to_owned();
        for resource in list.resources {
            // A CRD has finalizers as a subresource that discovery does not list.
            if group == "larder.dev" && !resource.name.contains('/') {
                all.insert((group.clone(), format!("{}/finalizers", resource.name)));
            }
            all.insert((group.clone(), resource.name));
        }
    }
    for group in ["", "larder.dev", "example.com", "*"] {
        all.insert((group.to_owned(), "*".to_owned()));
    }
    all.extend(["users", "groups", "userextras"].map(|r| (String::new(), r.to_owned())));
    all
}

/// Asks the API server about every verb on every resource; returns what it allows.
async fn allowed(
    client: &Client,
    user: &str,
    namespace: &str,
    resources: &BTreeSet<(String, String)>,
) -> BTreeSet<String> {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let groups: Vec<String> = match user
        .strip_prefix("system:serviceaccount:")
        .and_then(|u| u.split_once(':'))
    {
        Some((home, _)) => vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{home}"),
            "system:authenticated".into(),
        ],
        None => vec!["system:authenticated".into()],
    };
    let ask = |verb: &str, group: &str, resource: &str| {
        let (name, subresource) = resource
            .split_once('/')
            .map_or((resource, None), |(r, s)| (r, Some(s.to_owned())));
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.to_owned()),
                groups: Some(groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    group: Some(group.to_owned()),
                    resource: Some(name.to_owned()),
                    subresource,
                    // Empty: in all namespaces, and of the cluster.
                    namespace: Some(namespace.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews = reviews.clone();
        let question = format!("{verb} {group}/{resource}");
        async move {
            let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
            answer.status.unwrap().allowed.then_some(question)
        }
    };
    let questions: Vec<_> = resources
        .iter()
        .flat_map(|(g, r)| VERBS.iter().map(move |v| ask(v, g, r)))
        .collect();
    assert!(
        questions.len() > 1000,
        "the API server serves more than {} resources",
        resources.len()
    );
    futures::stream::iter(questions)
        .buffer_unordered(32)
        .filter_map(|a| async { a })
        .collect()
        .await
}

fn written(lists: &[&[&str]]) -> BTreeSet<String> {
    lists
        .iter()
        .flat_map(|list| list.iter().map(|line| (*line).to_owned()))
        .collect()
}

#[tokio::test]
async fn the_operator_may_do_what_is_written_here_and_nothing_else() {
    let env = Env::shared().await;
    let all = resources(&env.client).await;
    let everywhere = allowed(&env.client, OPERATOR, "", &all).await;
    let finalizers = ["imagecaches", "imagecacherevisions", "nodeimagecaches"]
        .map(|kind| format!("update larder.dev/{kind}/finalizers"));
    let mut expected = written(&[EVERYWHERE]);
    expected.extend(finalizers);
    assert_eq!(differences(&everywhere, &expected), Vec::<String>::new());
    for question in &everywhere {
        assert!(!question.contains('*'), "a wildcard: {question}");
    }
    for secret in [
        "list /secrets",
        "watch /secrets",
        "create /secrets",
        "update /secrets",
        "delete /secrets",
    ] {
        assert!(!everywhere.contains(secret), "{secret}");
    }
    let mut at_home = expected.clone();
    at_home.extend(written(&[AT_HOME]));
    assert_eq!(
        differences(
            &allowed(&env.client, OPERATOR, "larder-system", &all).await,
            &at_home
        ),
        Vec::<String>::new()
    );
    for namespace in ["larder-agents", "kube-system", "default"] {
        let there = allowed(&env.client, OPERATOR, namespace, &all).await;
        assert_eq!(
            differences(&there, &expected),
            Vec::<String>::new(),
            "in {namespace}"
        );
    }
}

#[tokio::test]
async fn purge_jobs_and_their_account_have_no_rights() {
    let env = Env::shared().await;
    let all = resources(&env.client).await;
    let expected: BTreeSet<String> = written(&[EVERYWHERE])
        .into_iter()
        .filter(|line| line.contains("/selfsubject"))
        .collect();
    let account = "system:serviceaccount:larder-agents:larder-purge";
    for namespace in ["", "larder-agents"] {
        let may = allowed(&env.client, account, namespace, &all).await;
        assert_eq!(differences(&may, &expected), Vec::<String>::new());
    }
}

/// Lines on one side only, with the side.
fn differences(is: &BTreeSet<String>, should: &BTreeSet<String>) -> Vec<String> {
    let more = is
        .difference(should)
        .map(|line| format!("may, but should not: {line}"));
    let less = should
        .difference(is)
        .map(|line| format!("should, but may not: {line}"));
    more.chain(less).collect()
}
