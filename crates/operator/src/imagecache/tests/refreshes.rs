//! Refreshes that fail, and what is asked for after them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::*;

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
        requested_at: Some(MicroTime(begun)),
        finished_at: Some(MicroTime(begun)),
        finished_token: Some("T".into()),
        result: Some(RefreshResult::Failed),
        ..RefreshStatus::default()
    });
    cache
}

/// By annotation, of the operator that knows the cache already.
async fn ask_for_a_refresh(ctx: &Context) {
    let api: kube::Api<ImageCache> = kube::Api::namespaced(ctx.client.clone(), "team");
    let change = json!({"metadata": {"annotations": {"larder.dev/refresh": "T"}}});
    let patch = kube::api::Patch::Merge(change);
    let asked = api.patch("web", &kube::api::PatchParams::default(), &patch).await;
    ctx.world.caches.apply(asked.unwrap());
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

/// What a registry said just before a refresh, in the same second, is no answer to it.
#[tokio::test(start_paused = true)]
async fn what_was_known_in_the_second_of_a_refresh_is_older_than_the_refresh() {
    let (ctx, _, lists) = asking(nowhere());
    let into_the_second = u64::from(Timestamp::now().subsec_nanosecond().unsigned_abs());
    std::thread::sleep(Duration::from_secs(1).saturating_sub(Duration::from_nanos(into_the_second)));
    run(&ctx).await.unwrap();
    ask_for_a_refresh(&ctx).await;
    lists.registry.refuse(Some(unreachable()));
    for look in 0..3 {
        run(&ctx).await.unwrap();
        let refresh = now(&ctx).status.unwrap().last_refresh.unwrap();
        assert_eq!(refresh.result, Some(RefreshResult::Failed), "look {look}");
        let resolved = condition_of(&now(&ctx), condition::RESOLVED);
        assert_eq!(
            resolved.reason, "RegistryUnreachable",
            "look {look}: {resolved:?}"
        );
    }
}
