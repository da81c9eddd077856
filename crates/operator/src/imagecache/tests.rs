#![allow(clippy::unwrap_used)]

mod refreshes;
mod sources;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use larder_api::image_cache::{ImageEntry, PullSecret, Removal};
use larder_api::image_cache_status::{RefreshResult, RefreshStatus};
use larder_api::names::{Reason, condition};
use larder_core::image_ref::ImageRef;
use larder_registry::Credential;
use serde_json::{Value, json};

use super::*;
use crate::resolver::{Outcome, Request};
use crate::testing::{Asked, Lists, Log, cache, context_asking, context_with, node, object, refuse};

const STATUS: &str = "PATCH /apis/larder.dev/v1alpha1/namespaces/team/imagecaches/web/status";
const CACHE: &str = "PATCH /apis/larder.dev/v1alpha1/namespaces/team/imagecaches/web";
const EVENTS: &str = "POST /apis/events.k8s.io/v1/namespaces/team/events";
const REVISIONS: &str = "POST /apis/larder.dev/v1alpha1/namespaces/team/imagecacherevisions";

fn world(
    cache: ImageCache,
    answer: impl Fn(&Asked) -> Option<(u16, Value)> + Send + Sync + 'static,
) -> (Arc<Context>, Log) {
    let (ctx, log) = context_with(cache.clone(), answer);
    ctx.world.nodes.apply(&node());
    ctx.world.caches.apply(cache);
    (ctx, log)
}

async fn run(ctx: &Arc<Context>) -> Result<Option<Duration>, Error> {
    reconcile(Arc::clone(ctx), ("team".into(), "web".into())).await
}

/// As the API server has it by now.
fn now(ctx: &Context) -> ImageCache {
    (*ctx.world.caches.get("team", "web").unwrap()).clone()
}

fn condition_of(cache: &ImageCache, kind: &str) -> Condition {
    cache
        .status
        .as_ref()
        .unwrap()
        .conditions
        .iter()
        .find(|c| c.type_ == kind)
        .cloned()
        .unwrap()
}

#[tokio::test]
async fn a_new_cache_gets_a_revision_and_a_status_and_is_silent_then() {
    let (ctx, log) = world(cache(), |_| None);
    run(&ctx).await.unwrap();
    let body = log.body(REVISIONS);
    assert_eq!(body["spec"]["images"][0]["image"], "docker.io/library/nginx:1.27");
    assert_eq!(body["metadata"]["finalizers"], json!(["larder.dev/in-use"]));
    assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "cache-uid");
    assert_eq!(log.writes(), [REVISIONS, STATUS]);
    assert!(now(&ctx).status.unwrap().revision.is_some());
    run(&ctx).await.unwrap();
    assert_eq!(log.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_refresh_is_recorded_before_its_annotation_goes() {
    let mut asked = cache();
    asked.metadata.annotations = Some([("larder.dev/refresh".to_owned(), "T1".to_owned())].into());
    let (ctx, log) = world(asked, |_| None);
    run(&ctx).await.unwrap();
    let first = log.body(STATUS);
    assert_eq!(first["status"]["lastRefresh"]["token"], "T1");
    assert_eq!(first["status"]["conditions"][0]["reason"], "Refreshing");
    assert_eq!(log.writes()[..2], [STATUS, CACHE]);
    assert!(now(&ctx).metadata.annotations.unwrap_or_default().is_empty());
}

#[tokio::test]
async fn a_newer_annotation_is_not_lost() {
    let mut asked = cache();
    asked.metadata.annotations = Some([("larder.dev/refresh".to_owned(), "T1".to_owned())].into());
    let (ctx, log) = world(asked, |asked| {
        (asked.what == CACHE).then(|| refuse(422, "Invalid", "test failed"))
    });
    run(&ctx).await.unwrap();
    assert_eq!(log.writes().iter().filter(|w| *w == CACHE).count(), 1);
    assert_eq!(
        now(&ctx).metadata.annotations.unwrap()["larder.dev/refresh"],
        "T1"
    );
}

#[tokio::test]
async fn a_namespace_that_goes_away_is_no_error() {
    for (cause, silent) in [("NamespaceTerminating", true), ("Other", false)] {
        let (ctx, log) = world(cache(), move |asked| {
            let (code, mut status) = refuse(403, "Forbidden", "unable to create new content");
            status["details"] = json!({"causes": [{"reason": cause, "message": "", "field": ""}]});
            (asked.what == REVISIONS).then_some((code, status))
        });
        assert_eq!(run(&ctx).await.is_ok(), silent, "{cause}");
        assert_eq!(log.writes(), [REVISIONS]);
    }
}

#[tokio::test]
async fn one_bad_reference_is_named_and_the_rest_goes_on() {
    let mut two = cache();
    two.spec.images.push(ImageEntry {
        image: "example.com/missing:1".into(),
        priority: 0,
    });
    let (ctx, log) = world(two, |_| None);
    let wake = run(&ctx).await.unwrap().unwrap();
    assert!(wake <= Duration::from_millis(1500), "asked again in {wake:?}");
    let images = log.body(REVISIONS)["spec"]["images"].clone();
    assert!(images[0]["digest"].is_string(), "{images}");
    assert!(images[1]["digest"].is_null(), "{images}");
    // Anybody is told that it is not there: no secret has to do with it, so agents may try it.
    assert_eq!(images[1]["private"], false, "{images}");
    let resolved = condition_of(&now(&ctx), condition::RESOLVED);
    assert_eq!(
        (resolved.status.as_str(), resolved.reason.as_str()),
        ("False", "NotFound")
    );
    assert!(
        resolved.message.contains("example.com/missing:1"),
        "{}",
        resolved.message
    );
}

/// The same with a private image and a pull secret.
fn private(mut cache: ImageCache) -> ImageCache {
    cache.spec.images = vec![ImageEntry {
        image: "example.com/private:1".into(),
        priority: 0,
    }];
    cache.spec.pull_secrets = vec![PullSecret {
        name: "regcred".into(),
    }];
    cache
}

#[tokio::test]
async fn a_missing_secret_is_named_and_looked_for_again() {
    let (ctx, _) = world(private(cache()), |_| None);
    let wake = run(&ctx).await.unwrap().unwrap();
    assert!(wake <= Duration::from_secs(30));
    let failure = now(&ctx).status.unwrap().failures.remove(0);
    assert_eq!(
        (failure.image.as_str(), failure.reason),
        ("example.com/private:1", Reason::CredentialsMissing)
    );
    assert!(
        failure.message.contains("secret regcred does not exist"),
        "{}",
        failure.message
    );
}

/// The pull secret, where it is asked for.
fn regcred(asked: &Asked) -> Option<(u16, Value)> {
    // {"auths":{"example.com":{"username":"u","password":"p"}}}
    let data = "eyJhdXRocyI6eyJleGFtcGxlLmNvbSI6eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifX19";
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "regcred"},
        "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data},
    });
    (asked.what == "GET /api/v1/namespaces/team/secrets/regcred").then_some((200, secret))
}

#[tokio::test]
async fn a_secret_of_the_namespace_opens_a_private_registry() {
    let (ctx, log) = world(private(cache()), regcred);
    run(&ctx).await.unwrap();
    let revision = log.body(REVISIONS);
    assert!(revision["spec"]["images"][0]["digest"].is_string());
    let written = revision.to_string() + &log.body(STATUS).to_string();
    assert!(!written.contains("\"p\""), "nothing secret is written: {written}");
}

#[tokio::test]
async fn the_finalizer_is_there_only_where_removal_asks_for_it() {
    let mut purging = cache();
    purging.spec.removal = Removal::Purge;
    let (ctx, log) = world(purging, |_| None);
    run(&ctx).await.unwrap();
    assert_eq!(
        log.body(CACHE)["metadata"]["finalizers"],
        json!(["larder.dev/cleanup"])
    );
    assert_eq!(log.writes()[0], CACHE, "before anything is pulled");
}

#[tokio::test]
async fn a_deleted_cache_goes_once_no_node_claims_it() {
    let mut gone = cache();
    gone.spec.removal = Removal::Purge;
    gone.metadata.finalizers = Some(vec!["larder.dev/cleanup".into(), "someone.else/keeps".into()]);
    gone.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
    let (ctx, log) = world(gone, |_| None);
    ctx.world.objects.apply(object());
    let wake = run(&ctx).await.unwrap().unwrap();
    assert!(wake > Duration::from_mins(9), "{wake:?}");
    assert!(
        !log.writes().iter().any(|w| w == CACHE),
        "a node still has to remove images"
    );
    ctx.world.objects.gone("", "node-1", "object-uid");
    run(&ctx).await.unwrap();
    assert_eq!(
        log.body(CACHE)["metadata"]["finalizers"],
        json!(["someone.else/keeps"])
    );
}

#[tokio::test]
async fn a_suspended_cache_resolves_nothing() {
    let mut suspended = cache();
    suspended.spec.suspend = true;
    let (ctx, log) = world(suspended, |_| None);
    run(&ctx).await.unwrap();
    assert_eq!(log.writes(), [STATUS]);
    assert_eq!(
        condition_of(&now(&ctx), condition::PROGRESSING).reason,
        "Suspended"
    );
}

fn asking(cache: ImageCache) -> (Arc<Context>, Log, Arc<Lists>) {
    let lists = Arc::new(Lists::default());
    let (ctx, log) = context_asking(cache.clone(), Arc::clone(&lists), |_| None);
    ctx.world.nodes.apply(&node());
    ctx.world.caches.apply(cache);
    (ctx, log, lists)
}

/// Another operator over the same objects; somebody asks for a refresh.
fn restarted(ctx: &Context) -> (Arc<Context>, Log, Arc<Lists>) {
    let mut cache = now(ctx);
    cache.metadata.annotations = Some([("larder.dev/refresh".to_owned(), "T".to_owned())].into());
    over(ctx, cache)
}

/// Another operator over the same revisions and this cache.
fn over(ctx: &Context, mut cache: ImageCache) -> (Arc<Context>, Log, Arc<Lists>) {
    cache.metadata.resource_version = Some("10".into());
    let (again, log, lists) = asking(cache);
    for revision in ctx.world.revisions.all() {
        let mut revision = (*revision).clone();
        revision.metadata.resource_version = Some("11".into());
        again.world.revisions.apply(revision);
    }
    (again, log, lists)
}
