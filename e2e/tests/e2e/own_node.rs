//! What one node's agent may write, with a token as its pod has it: admission on the real API server, verb by verb.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use larder_api::NodeImageCache;
use larder_e2e::cluster::registry::RegistryKind;
use serde_json::{Value, json};

use crate::rights::denied;
use crate::support::{Env, eventually};

const AGENTS: &str = "larder-agents";

/// The agents' pods, by node.
async fn agents(env: &Env) -> Vec<(String, Pod)> {
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), AGENTS);
    let ours = ListParams::default().labels("larder.dev/purpose=agent");
    let on_node = |pod: Pod| Some((pod.spec.as_ref()?.node_name.clone()?, pod));
    let listed = pods.list(&ours).await.unwrap();
    listed.items.into_iter().filter_map(on_node).collect()
}

/// Every write there is on node objects, aimed at this node's; the refusals with what they are about.
async fn try_everything(client: &Client, node: &str, others: &NodeImageCache) -> Vec<(String, String)> {
    let objects: Api<NodeImageCache> = Api::all(client.clone());
    let (post, patching, delete) = (
        PostParams::default(),
        PatchParams::default(),
        DeleteParams::default(),
    );
    let applying = PatchParams::apply("larder-agent").force();
    let apply = |body: Value| {
        let mut whole = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "NodeImageCache", "metadata": {"name": node},
        });
        whole
            .as_object_mut()
            .unwrap()
            .extend(body.as_object().unwrap().clone());
        Patch::Apply(whole)
    };
    let status = json!({"status": {"agent": {"podUid": "evil", "nodeUid": others.spec.node_uid}}});
    let spec = json!({"spec": {"nodeUid": "another"}});
    let mut copy = others.clone();
    copy.metadata.managed_fields = None;
    copy.spec.caches.clear();
    let mut anew = NodeImageCache::new("evil", copy.spec.clone());
    anew.metadata.name = Some("evil".into());
    vec![
        ("create", denied("create", objects.create(&post, &anew).await)),
        (
            "update",
            denied("update", objects.replace(node, &post, &copy).await),
        ),
        (
            "update of the status",
            denied(
                "update of the status",
                objects.replace_status(node, &post, &copy).await,
            ),
        ),
        (
            "merge patch",
            denied(
                "merge patch",
                objects.patch(node, &patching, &Patch::Merge(&spec)).await,
            ),
        ),
        (
            "apply",
            denied(
                "apply",
                objects.patch(node, &applying, &apply(spec.clone())).await,
            ),
        ),
        (
            "merge patch of the status",
            denied(
                "merge patch of the status",
                objects
                    .patch_status(node, &patching, &Patch::Merge(&status))
                    .await,
            ),
        ),
        (
            "apply to the status",
            denied(
                "apply to the status",
                objects
                    .patch_status(node, &applying, &apply(status.clone()))
                    .await,
            ),
        ),
        ("delete", denied("delete", objects.delete(node, &delete).await)),
        (
            "delete of all",
            denied(
                "delete of all",
                objects.delete_collection(&delete, &ListParams::default()).await,
            ),
        ),
    ]
    .into_iter()
    .map(|(what, words)| (what.to_owned(), words))
    .collect()
}

#[tokio::test]
async fn an_agent_writes_the_status_of_its_own_node_alone() {
    let env = Env::shared().await;
    let namespace = env.namespace("own-node").await;
    let image = namespace.image(&env, RegistryKind::Open, "app").await;
    let cache = namespace
        .cache("web", json!({"images": [{"image": image}]}))
        .await;
    cache.ready(60).await;
    let all = agents(&env).await;
    assert!(all.len() >= 2, "agents on {} nodes", all.len());
    let (mine, pod) = &all[0];
    let (others, _) = &all[1];
    let objects: Api<NodeImageCache> = Api::all(env.client.clone());
    let before = objects.get(others).await.unwrap();
    let own = env.act_as_pod(pod).await;
    for (what, words) in try_everything(&own, others, &before).await {
        let rbac = words.contains("cannot");
        assert!(rbac || words.contains("its own node"), "{what}: {words}");
    }

    // Its own node's object: the status, and in it nothing of the operator's.
    let as_agent: Api<NodeImageCache> = Api::all(own.clone());
    let patching = PatchParams::default();
    let nothing = Patch::Merge(json!({"status": {}}));
    as_agent.patch_status(mine, &patching, &nothing).await.unwrap();
    let kubelets = Patch::Merge(json!({"status": {"kubelet": {"nodeUid": "another"}}}));
    let words = denied(
        "writing status.kubelet",
        as_agent.patch_status(mine, &patching, &kubelets).await,
    );
    assert!(words.contains("status.kubelet"), "{words}");
    let spec = Patch::Merge(json!({"spec": {"caches": []}}));
    denied("changing its spec", as_agent.patch(mine, &patching, &spec).await);
    let after = objects.get(others).await.unwrap();
    assert_eq!((after.uid(), &after.spec), (before.uid(), &before.spec));
    cache.ready(30).await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_token_that_is_bound_to_no_pod_writes_nothing() {
    let env = Env::shared().await;
    let namespace = env.namespace("unbound").await;
    let image = namespace.image(&env, RegistryKind::Open, "app").await;
    let cache = namespace
        .cache("web", json!({"images": [{"image": image}]}))
        .await;
    cache.ready(60).await;
    let (node, _) = agents(&env).await.remove(0);
    let unbound = env.act_with_token_of(AGENTS, "larder-agent").await;
    let objects: Api<NodeImageCache> = Api::all(unbound);
    let nothing = Patch::Merge(json!({"status": {"agent": {"podUid": "evil"}}}));
    let words = denied(
        "a status by an unbound token",
        objects
            .patch_status(&node, &PatchParams::default(), &nothing)
            .await,
    );
    assert!(words.contains("larder-agent-own-node"), "{words}");
    namespace.delete().await;
}

/// RBAC may come to be wider than what is installed: admission alone still holds.
#[tokio::test]
async fn wide_rights_do_not_widen_what_an_agent_writes() {
    let env = Env::exclusive().await;
    let namespace = env.namespace("wide-agent").await;
    let image = namespace.image(&env, RegistryKind::Open, "app").await;
    let cache = namespace
        .cache("web", json!({"images": [{"image": image}]}))
        .await;
    cache.ready(60).await;
    let name = format!("{}-agent", namespace.name);
    let roles: Api<ClusterRole> = Api::all(env.client.clone());
    let bindings: Api<ClusterRoleBinding> = Api::all(env.client.clone());
    let role = serde_json::from_value(json!({
        "metadata": {"name": name},
        "rules": [{"apiGroups": ["larder.dev"], "resources": ["*"], "verbs": ["*"]}],
    }))
    .unwrap();
    roles.create(&PostParams::default(), &role).await.unwrap();
    let binding = serde_json::from_value(json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "larder-agent", "namespace": AGENTS}],
    }))
    .unwrap();
    bindings.create(&PostParams::default(), &binding).await.unwrap();

    let all = agents(&env).await;
    let (mine, pod) = &all[0];
    let (others, _) = &all[1];
    let own = env.act_as_pod(pod).await;
    let as_agent: Api<NodeImageCache> = Api::all(own.clone());
    // The right reaches the authorizer's cache a moment later: until then it is RBAC that refuses.
    eventually("admission is asked", 20, || async {
        let words = denied(
            "a deletion",
            as_agent.delete(others, &DeleteParams::default()).await,
        );
        if words.contains("larder-agent-own-node") || words.contains("larder-operator-owned") {
            Ok(())
        } else {
            Err(words)
        }
    })
    .await;
    let objects: Api<NodeImageCache> = Api::all(env.client.clone());
    for node in [others, mine] {
        let before = objects.get(node).await.unwrap();
        if node == others {
            for (what, words) in try_everything(&own, node, &before).await {
                assert!(!words.contains("cannot"), "{what} is refused by RBAC: {words}");
            }
        } else {
            let spec = Patch::Merge(json!({"spec": {"caches": []}}));
            denied(
                "changing its own spec",
                as_agent.patch(node, &PatchParams::default(), &spec).await,
            );
            denied(
                "deleting its own object",
                as_agent.delete(node, &DeleteParams::default()).await,
            );
        }
        let after = objects.get(node).await.unwrap();
        assert_eq!((after.uid(), &after.spec), (before.uid(), &before.spec));
    }
    bindings.delete(&name, &DeleteParams::default()).await.unwrap();
    roles.delete(&name, &DeleteParams::default()).await.unwrap();
    cache.ready(30).await;
    namespace.delete().await;
}
