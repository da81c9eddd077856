#![allow(clippy::unwrap_used)]

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

fn with_source(removal: Removal) -> ImageCache {
    let mut cache = cache();
    cache.spec.removal = removal;
    cache.spec.sources = vec![larder_api::image_source::Source {
        name: "page".into(),
        http: Some(larder_api::image_source::HttpSource::default()),
        ..Default::default()
    }];
    cache
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

fn named(revision: &Value) -> Vec<String> {
    let images = revision["spec"]["images"].as_array().unwrap();
    let one = |i: &Value| {
        format!(
            "{}<{}",
            i["image"].as_str().unwrap(),
            i["sources"][0].as_str().unwrap_or("-")
        )
    };
    images.iter().map(one).collect()
}

#[tokio::test]
async fn images_of_a_source_make_a_revision_that_says_so_and_outlive_its_failure_and_a_restart() {
    let (ctx, log, lists) = asking(with_source(Removal::Retain));
    lists.say("page", Ok(&["redis:7"]));
    run(&ctx).await.unwrap();
    let revision = log.body(REVISIONS);
    let both = ["docker.io/library/nginx:1.27<-", "docker.io/library/redis:7<page"];
    assert_eq!(named(&revision), both);
    let status = now(&ctx).status.unwrap();
    assert_eq!((status.sources[0].ready, status.sources[0].images), (true, 1));
    assert_eq!(log.writes(), [REVISIONS, STATUS]);
    run(&ctx).await.unwrap();
    assert_eq!(log.writes(), Vec::<String>::new(), "nothing new, nothing written");

    let (again, log, lists) = restarted(&ctx);
    lists.say("page", Err(larder_registry::sources::SourceReason::Unreachable));
    let wake = run(&again).await.unwrap().unwrap();
    assert!(wake <= Duration::from_secs(5), "{wake:?}");
    let writes = log.writes();
    assert!(!writes.iter().any(|w| w == REVISIONS), "{writes:?}");
    let status = now(&again).status.unwrap();
    assert_eq!((status.sources[0].ready, status.sources[0].images), (false, 1));
    assert!(status.sources[0].last_success_time.is_some(), "its age");
    let resolved = condition_of(&now(&again), condition::RESOLVED);
    assert_eq!(
        (resolved.status.as_str(), resolved.reason.as_str()),
        ("False", "Unreachable")
    );
}

#[tokio::test]
async fn what_a_source_loses_at_once_waits_for_a_second_look_where_it_would_be_purged() {
    for (removal, left) in [(Removal::Retain, 2), (Removal::Purge, 5)] {
        let (ctx, log, lists) = asking(with_source(removal));
        lists.say("page", Ok(&["a:1", "b:1", "c:1", "d:1"]));
        run(&ctx).await.unwrap();
        assert_eq!(named(&log.body(REVISIONS)).len(), 5);
        let (ctx, _, lists) = restarted(&ctx);
        lists.say("page", Ok(&["a:1"]));
        let wake = run(&ctx).await.unwrap();
        assert_eq!(now(&ctx).status.unwrap().images.total, left);
        if removal == Removal::Purge {
            assert!(wake.unwrap() <= Duration::from_secs(10));
            assert_eq!(now(&ctx).status.unwrap().sources[0].reason, "Shrunk");
        }
    }
}

#[tokio::test]
async fn a_cache_of_a_source_that_says_nothing_has_no_revision_and_one_that_says_none_has_an_empty_one() {
    let mut cache = with_source(Removal::Retain);
    cache.spec.images.clear();
    let (ctx, log, lists) = asking(cache);
    lists.say("page", Err(larder_registry::sources::SourceReason::NotFound));
    run(&ctx).await.unwrap();
    assert_eq!(log.writes(), [STATUS]);
    let (ctx, log, lists) = restarted(&ctx);
    lists.say("page", Ok(&[]));
    run(&ctx).await.unwrap();
    assert_eq!(named(&log.body(REVISIONS)), Vec::<String>::new());
}

/// On no node, so that none holds up a refresh.
fn nowhere() -> ImageCache {
    let mut nowhere = cache();
    let labels = [("pool".to_owned(), "none".to_owned())];
    nowhere.spec.nodes.selector.get_or_insert_default().match_labels = Some(labels.into());
    nowhere
}

/// The same after a refresh that began `ago` seconds ago and failed.
fn failed(mut cache: ImageCache, ago: i64) -> ImageCache {
    let begun = Timestamp::from_second(Timestamp::now().as_second() - ago).unwrap();
    cache.status.get_or_insert_default().last_refresh = Some(RefreshStatus {
        token: "T".into(),
        requested_at: Some(Time(begun)),
        finished_at: Some(Time(begun)),
        finished_token: Some("T".into()),
        result: Some(RefreshResult::Failed),
        ..RefreshStatus::default()
    });
    cache
}

/// How often the registry said what a reference means.
fn answers(ctx: &Context) -> u64 {
    ctx.metrics.resolves.with_label_values(&["Resolved"]).get()
}

fn unreachable() -> larder_registry::RegistryError {
    larder_registry::RegistryError::Unreachable {
        message: "registry.example.com: no answer in time".into(),
        retry_after: None,
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_refresh_could_not_learn_is_said_and_asked_for_until_it_is_known() {
    let (ctx, _, _) = asking(nowhere());
    run(&ctx).await.unwrap();
    let first = now(&ctx).status.unwrap().revision;
    let (ctx, log, lists) = restarted(&ctx);
    lists.registry.refuse(Some(unreachable()));
    let said = |when: &str| {
        let resolved = condition_of(&now(&ctx), condition::RESOLVED);
        let verdict = (resolved.status.as_str(), resolved.reason.as_str());
        assert_eq!(verdict, ("False", "RegistryUnreachable"), "{when}: {resolved:?}");
        let status = now(&ctx).status.unwrap();
        assert_eq!(status.revision, first, "{when}");
        assert_eq!(status.last_refresh.unwrap().result, Some(RefreshResult::Failed));
    };
    run(&ctx).await.unwrap();
    said("at the refresh, which no node holds up");
    log.writes();
    let wake = run(&ctx).await.unwrap().unwrap();
    assert!(wake <= Duration::from_secs(1), "{wake:?}");
    said("after it");
    // Nor does a repetition change it that takes its time.
    lists.registry.hang(Duration::from_secs(10));
    std::thread::sleep(Duration::from_millis(1100));
    run(&ctx).await.unwrap();
    said("while it is asked for again");
    let mut writes = log.writes();
    writes.retain(|w| w != EVENTS);
    assert_eq!(writes, Vec::<String>::new(), "nothing new, nothing written");

    lists.registry.hang(Duration::ZERO);
    lists.registry.refuse(None);
    lists.registry.move_tags();
    // The one under way fails yet, and is repeated after two seconds.
    tokio::time::sleep(Duration::from_secs(11)).await;
    std::thread::sleep(Duration::from_millis(2100));
    run(&ctx).await.unwrap();
    let healed = now(&ctx);
    assert_ne!(healed.status.as_ref().unwrap().revision, first);
    assert_eq!(condition_of(&healed, condition::RESOLVED).reason, "AllResolved");
    let metrics = ctx.metrics.render().unwrap();
    assert!(metrics.contains("larder_tags_moved_total 1"), "{metrics}");
    run(&ctx).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(log.body(EVENTS)["reason"], "TagMoved");
}

/// The secret of another cache opens the private image.
async fn another_learns(ctx: &Context) {
    let mut keyring = larder_registry::Keyring::default();
    let (username, password) = ("other".into(), "p".into());
    keyring.add("example.com", Credential::Basic { username, password });
    let request = Request {
        cache: ("team".into(), "other".into()),
        images: vec![ImageRef::parse("example.com/private:1").unwrap()],
        keyring: &keyring,
        not_before: Some(Timestamp::now()),
        platforms: &[],
    };
    let outcomes = ctx
        .resolver
        .resolve_within(&request, Duration::from_secs(10))
        .await;
    let outcome = &outcomes["example.com/private:1"];
    assert!(matches!(outcome, Outcome::Known(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_refused_secret_is_told_though_that_of_another_cache_opens_the_same_image() {
    let (ctx, _) = world(private(nowhere()), regcred);
    run(&ctx).await.unwrap();
    assert_eq!(condition_of(&now(&ctx), condition::RESOLVED).status, "True");
    // The secret is gone, and a refresh is asked for.
    let (ctx, _, _) = restarted(&ctx);
    run(&ctx).await.unwrap();
    for when in ["at the refresh", "after the other's answer", "after the next"] {
        let resolved = condition_of(&now(&ctx), condition::RESOLVED);
        let verdict = (resolved.status.as_str(), resolved.reason.as_str());
        assert_eq!(verdict, ("False", "CredentialsMissing"), "{when}: {resolved:?}");
        another_learns(&ctx).await;
        run(&ctx).await.unwrap();
    }
}

#[tokio::test]
async fn a_restart_asks_for_no_tag_again_after_a_refresh_that_failed_at_nodes_only() {
    let (ctx, _, _) = asking(nowhere());
    run(&ctx).await.unwrap();
    let before = now(&ctx);
    assert_eq!(condition_of(&before, condition::RESOLVED).status, "True");
    let revision = before.status.as_ref().unwrap().revision.clone();
    let (ctx, _, lists) = over(&ctx, failed(before, 3600));
    lists.registry.move_tags();
    run(&ctx).await.unwrap();
    assert_eq!(answers(&ctx), 0);
    assert_eq!(now(&ctx).status.unwrap().revision, revision);
}

#[tokio::test]
async fn after_a_failed_refresh_a_new_image_is_asked_for_though_another_cache_knew_it_long_ago() {
    let (ctx, log, _) = asking(failed(nowhere(), 5 * 86_400));
    let old = format!("sha256:{}", "9".repeat(64));
    let then = Timestamp::from_second(Timestamp::now().as_second() - 3 * 86_400).unwrap();
    ctx.resolver.learned("docker.io/library/nginx:1.27", &old, then);
    run(&ctx).await.unwrap();
    assert_eq!(answers(&ctx), 1);
    let digest = log.body(REVISIONS)["spec"]["images"][0]["digest"].clone();
    assert!(digest.is_string() && digest != old, "{digest}");
}

#[tokio::test]
async fn a_clock_that_was_ahead_makes_the_registry_be_asked_once() {
    let (ctx, _, _) = asking(nowhere());
    run(&ctx).await.unwrap();
    // It is over and failed, or runs yet. Nothing is said of Resolved.
    for (finished, asked) in [(true, 0), (false, 1)] {
        let mut ahead = failed(now(&ctx), -3600);
        let status = ahead.status.as_mut().unwrap();
        status.conditions.clear();
        if !finished {
            let refresh = status.last_refresh.as_mut().unwrap();
            (refresh.finished_at, refresh.result) = (None, None);
        }
        let (ctx, _, _) = over(&ctx, ahead);
        run(&ctx).await.unwrap();
        assert_eq!(answers(&ctx), asked, "finished: {finished}");
        let refresh = now(&ctx).status.unwrap().last_refresh.unwrap();
        assert!(refresh.finished_at.is_some(), "{refresh:?}");
    }
}
