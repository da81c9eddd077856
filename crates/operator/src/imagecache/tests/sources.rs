//! Images from sources.

use super::*;

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
