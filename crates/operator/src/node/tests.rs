#![allow(clippy::unwrap_used)]

use larder_api::node_image_cache::Desired;
use serde_json::{Value, json};

use super::*;
use crate::testing::{Asked, Log, cache, context, node, object, refuse, revision};

const CREATE: &str = "POST /apis/larder.dev/v1alpha1/nodeimagecaches";
const ONE: &str = "/apis/larder.dev/v1alpha1/nodeimagecaches/node-1";

fn world(answer: impl Fn(&Asked) -> Option<(u16, Value)> + Send + Sync + 'static) -> (Arc<Context>, Log) {
    let (ctx, log) = context(answer);
    ctx.world.nodes.apply(&node());
    ctx.world.caches.apply(cache());
    ctx.world.revisions.apply(revision());
    (ctx, log)
}

#[tokio::test]
async fn a_node_gets_its_object_once_and_the_plan_is_silent_then() {
    let (ctx, log) = world(|_| None);
    reconcile(Arc::clone(&ctx)).await.unwrap();
    let body = log.body(CREATE);
    let owner = &body["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"]),
        (&json!("Node"), &json!("node-uid"))
    );
    assert_eq!(owner.get("blockOwnerDeletion"), None);
    assert_eq!(body["spec"]["caches"][0]["revision"], "web-1");
    assert_eq!(log.writes(), [CREATE]);
    reconcile(Arc::clone(&ctx)).await.unwrap();
    assert_eq!(log.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn an_object_that_is_there_is_taken_as_it_is() {
    let (ctx, log) = world(|asked| match asked.what.as_str() {
        CREATE => Some(refuse(409, "AlreadyExists", "it exists")),
        what if what == format!("GET {ONE}") => Some((200, json!(object()))),
        _ => None,
    });
    reconcile(Arc::clone(&ctx)).await.unwrap();
    assert_eq!(log.writes(), [CREATE]);
    assert_eq!(
        *ctx.world.objects.get("", "node-1").unwrap().spec.caches[0].revision,
        *"web-1"
    );
}

#[tokio::test]
async fn a_change_names_the_very_object_it_was_planned_for() {
    let (ctx, log) = world(|_| None);
    let mut old = object();
    old.spec.caches[0].desired = Desired::Absent;
    ctx.world.objects.apply(old);
    reconcile(Arc::clone(&ctx)).await.unwrap();
    let patch = format!("PATCH {ONE}");
    let body = log.body(&patch);
    assert_eq!(body["metadata"]["uid"], "object-uid");
    assert_eq!(body["metadata"]["resourceVersion"], "12");
    assert_eq!(body["spec"]["caches"][0]["desired"], "Present");
    assert_eq!(log.writes(), [patch]);
}

#[tokio::test]
async fn a_conflict_is_looked_into_and_planned_again() {
    let patch = format!("PATCH {ONE}");
    let wanted = patch.clone();
    let (ctx, log) = world(move |asked| match asked.what.as_str() {
        what if what == wanted => Some(refuse(409, "Conflict", "changed since")),
        what if what == format!("GET {ONE}") => {
            let mut newer = object();
            newer.metadata.resource_version = Some("99".into());
            Some((200, json!(newer)))
        }
        _ => None,
    });
    let mut old = object();
    old.spec.caches[0].desired = Desired::Absent;
    ctx.world.objects.apply(old);
    assert_eq!(reconcile(Arc::clone(&ctx)).await.unwrap(), Some(RETRY));
    assert_eq!(log.writes(), [patch]);
    reconcile(Arc::clone(&ctx)).await.unwrap();
    assert_eq!(
        log.writes(),
        Vec::<String>::new(),
        "the newer object is as planned"
    );
}

#[tokio::test]
async fn the_object_of_a_node_that_is_gone_is_deleted_with_preconditions() {
    let (ctx, log) = context(|_| None);
    ctx.world.objects.apply(object());
    reconcile(Arc::clone(&ctx)).await.unwrap();
    let delete = format!("DELETE {ONE}");
    assert_eq!(
        log.body(&delete)["preconditions"],
        json!({"uid": "object-uid", "resourceVersion": "12"})
    );
    assert!(ctx.world.objects.is_empty());
}
