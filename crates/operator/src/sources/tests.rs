#![allow(clippy::unwrap_used)]

use larder_api::image_source::HttpSource;
use larder_registry::sources::SourceReason;

use super::*;
use crate::context::Context;
use crate::testing::{Lists, cache, context_asking};

fn asking(names: &[&str]) -> (Arc<Context>, Arc<Lists>, ImageCache) {
    let mut cache = cache();
    cache.spec.sources = names
        .iter()
        .map(|name| Source {
            name: (*name).to_owned(),
            http: Some(HttpSource::default()),
            ..Source::default()
        })
        .collect();
    let lists = Arc::new(Lists::default());
    let (ctx, _) = context_asking(cache.clone(), Arc::clone(&lists), |_| None);
    (ctx, lists, cache)
}

fn images(view: &SourceView) -> Vec<&str> {
    view.images.iter().flatten().map(String::as_str).collect()
}

#[tokio::test]
async fn each_source_is_asked_once_and_again_when_a_refresh_or_its_spec_asks() {
    let (ctx, lists, mut cache) = asking(&["a", "b"]);
    lists.say("a", Ok(&["nginx"]));
    lists.say("b", Err(SourceReason::Unreachable));
    for _ in 0..3 {
        let read = ctx.sources.read(&cache, None).await;
        assert!(!read.pending);
        assert_eq!(images(&read.views[0]), ["nginx"]);
        assert!(read.views[1].incomplete);
        assert_eq!(read.views[1].problem.as_ref().unwrap().reason, "Unreachable");
        assert!(read.wake_at.is_some(), "the failure is repeated");
    }
    assert_eq!(lists.asked(), 2);
    let refresh = Some(Timestamp::now());
    for _ in 0..3 {
        ctx.sources.read(&cache, refresh).await;
    }
    assert_eq!(lists.asked(), 4);
    cache.spec.sources[0].http.get_or_insert_default().url = "http://elsewhere".into();
    assert_eq!(
        ctx.sources.look(&cache)[0].images,
        None,
        "what another address said is not this one's"
    );
    ctx.sources.read(&cache, None).await;
    assert_eq!(lists.asked(), 5);
}

#[tokio::test]
async fn a_cache_of_the_same_name_begins_anew() {
    let (ctx, lists, mut cache) = asking(&["a"]);
    lists.say("a", Ok(&["nginx"]));
    ctx.sources.read(&cache, None).await;
    cache.metadata.uid = Some("another".into());
    assert_eq!(ctx.sources.look(&cache)[0].images, None);
    ctx.sources.read(&cache, None).await;
    assert_eq!(lists.asked(), 2);
    ctx.sources.forget(&("team".into(), "web".into()));
    assert_eq!(ctx.sources.look(&cache)[0].images, None);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_holds_nobody_up_and_is_heard_late() {
    let (ctx, lists, cache) = asking(&["a", "slow"]);
    lists.say("a", Ok(&["nginx"]));
    lists.say("slow", Ok(&["redis"]));
    lists.hang("slow", Duration::from_secs(20));
    let begun = Instant::now();
    let read = ctx.sources.read(&cache, None).await;
    assert_eq!(begun.elapsed(), PATIENCE);
    assert!(read.pending);
    assert_eq!(images(&read.views[0]), ["nginx"]);
    assert_eq!(read.views[1].images, None);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(
        ctx.queues.caches.take_marked(),
        [("team".to_owned(), "web".to_owned())]
    );
    let read = ctx.sources.read(&cache, None).await;
    assert!(!read.pending);
    assert_eq!(images(&read.views[1]), ["redis"]);

    lists.hang("slow", Duration::from_hours(1));
    let read = ctx.sources.read(&cache, Some(Timestamp::now())).await;
    assert!(read.pending);
    assert_eq!(images(&read.views[1]), ["redis"], "what it said before");
    tokio::time::sleep(AT_MOST).await;
    let view = ctx.sources.look(&cache).pop().unwrap();
    assert_eq!(view.problem.unwrap().reason, "Timeout");
    assert_eq!(view.images.unwrap(), ["redis"]);
}

#[tokio::test(start_paused = true)]
async fn a_repetition_that_hangs_is_waited_for_without_looking_all_the_time() {
    let (ctx, lists, cache) = asking(&["a"]);
    lists.say("a", Err(SourceReason::Unreachable));
    ctx.sources.read(&cache, None).await;
    let past = Timestamp::UNIX_EPOCH;
    let problem = Problem {
        reason: "Unreachable".into(),
        message: "503".into(),
    };
    let again = Answer::Failed {
        problem,
        retry_after: None,
    };
    let due = |m: &mut Memory| m.asked.get_mut("a").unwrap().entry.learn(again, past, past);
    due(Memory::of(&mut ctx.sources.inner.memory(), &cache));
    lists.hang("a", Duration::from_secs(50));
    let now = Timestamp::now();
    let read = ctx.sources.read(&cache, None).await;
    assert_eq!(lists.asked(), 2, "its failure is repeated");
    assert!(read.wake_at.unwrap() > now);
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(ctx.queues.caches.take_marked().len(), 1, "it is heard late");
}

#[tokio::test]
async fn what_was_to_be_believed_long_ago_is_not_looked_at_all_the_time() {
    let (ctx, lists, cache) = asking(&["a"]);
    lists.say("a", Ok(&["nginx"]));
    ctx.sources.read(&cache, None).await;
    let shrunk = Combined {
        shrunk: ["a".to_owned()].into(),
        ..Combined::default()
    };
    let now = Timestamp::now();
    let first = ctx.sources.note(&cache, &shrunk).unwrap();
    assert!(first >= now + LOOK_AGAIN);
    let since = |m: &mut Memory| m.shrunk.insert("a".into(), Timestamp::UNIX_EPOCH);
    since(Memory::of(&mut ctx.sources.inner.memory(), &cache));
    let now = Timestamp::now();
    assert!(ctx.sources.note(&cache, &shrunk).unwrap() > now);
}

#[tokio::test]
async fn a_refresh_of_a_moment_to_come_asks_once() {
    let (ctx, lists, cache) = asking(&["a"]);
    lists.say("a", Ok(&["nginx"]));
    ctx.sources.read(&cache, None).await;
    let ahead = Timestamp::now() + jiff::SignedDuration::from_hours(1);
    for _ in 0..3 {
        assert!(!ctx.sources.read(&cache, Some(ahead)).await.pending);
    }
    assert_eq!(lists.asked(), 2);
    let later = ahead + jiff::SignedDuration::from_hours(1);
    ctx.sources.read(&cache, Some(later)).await;
    assert_eq!(lists.asked(), 3, "another refresh");
}

#[tokio::test(start_paused = true)]
async fn sources_that_hang_hold_up_their_own_namespace_alone() {
    let names: Vec<String> = (0..20).map(|n| format!("slow{n}")).collect();
    let (ctx, lists, slow) = asking(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for name in &names {
        lists.say(name, Ok(&["nginx"]));
        lists.hang(name, Duration::from_secs(50));
    }
    assert!(ctx.sources.read(&slow, None).await.pending);
    assert_eq!(lists.asked(), 2, "its share");
    let mut other = slow.clone();
    other.metadata.namespace = Some("other".into());
    other.spec.sources.truncate(1);
    other.spec.sources[0].name = "quick".into();
    lists.say("quick", Ok(&["redis"]));
    let read = ctx.sources.read(&other, None).await;
    assert!(!read.pending);
    assert_eq!(images(&read.views[0]), ["redis"]);
    tokio::time::sleep(Duration::from_secs(20 * 50)).await;
    assert_eq!(lists.asked(), 21, "each has its turn");
}

#[tokio::test]
async fn what_has_landed_is_not_waited_for() {
    let (ctx, lists, cache) = asking(&["a"]);
    lists.say("a", Ok(&["nginx"]));
    ctx.sources.read(&cache, None).await;
    assert!(!ctx.sources.leave(&key(&cache)));
}

struct Panics;

#[async_trait::async_trait]
impl Fetch for Panics {
    async fn fetch(&self, _: &Ask) -> Result<fetch::Fetched, fetch::Failure> {
        std::panic::resume_unwind(Box::new("not to be"))
    }
}

#[tokio::test]
async fn a_request_without_an_end_is_one_that_failed() {
    let (ctx, _, cache) = asking(&["a"]);
    let sources = Sources::new(ctx.client.clone(), Arc::new(Panics), ctx.queues.caches.clone());
    let read = sources.read(&cache, None).await;
    assert!(!read.pending && read.wake_at.is_some());
    assert_eq!(read.views[0].problem.as_ref().unwrap().reason, "Unreachable");
}

#[tokio::test]
async fn other_namespaces_are_not_looked_at() {
    let (ctx, _, mut cache) = asking(&[]);
    cache.spec.sources = serde_json::from_value(serde_json::json!([
        {"name": "pods", "workloads": {"namespaces": ["kube-system"]}},
    ]))
    .unwrap();
    let read = ctx.sources.read(&cache, None).await;
    assert!(!read.pending);
    assert_eq!(read.views[0].problem.as_ref().unwrap().reason, "PolicyDenied");
}
