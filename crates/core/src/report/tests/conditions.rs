use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::ImageCacheStatus;
use larder_api::image_cache::{ImageEntry, PullSecret, Resolve};
use larder_api::image_cache_status::{PurgeStatus, RefreshStatus};
use larder_api::names::Reason;
use larder_api::node_image_cache::{ImageState, NodeState};

use super::{Place, World, at, unresolved, world};
use crate::select::Eligibility;

fn entry(image: &str) -> ImageEntry {
    ImageEntry {
        image: image.into(),
        priority: 0,
    }
}

fn new(name: &str) -> Place {
    Place::new(name).claims("web-2", 0)
}

#[test]
fn when_all_is_well() {
    let w = world();
    for (kind, verdict) in [
        ("Accepted", "True/Valid"),
        ("Resolved", "True/AllResolved"),
        ("Ready", "True/AllNodesReady"),
        ("Progressing", "False/Idle"),
        ("Degraded", "False/AsExpected"),
    ] {
        assert_eq!(w.verdict(kind), verdict);
    }
    assert_eq!(
        w.condition("Ready").message,
        "3 of 3 workable nodes hold revision web-2 whole"
    );
    assert!(
        w.report()
            .conditions
            .iter()
            .all(|c| c.observed_generation == Some(7))
    );
    let order: Vec<_> = w.report().conditions.into_iter().map(|c| c.type_).collect();
    assert_eq!(
        order,
        ["Accepted", "Resolved", "Ready", "Progressing", "Degraded"]
    );
}

#[test]
fn accepted() {
    let mut w = world();
    w.respec(|s| s.images.push(entry("docker.io/library/nginx:latest")));
    assert_eq!(w.verdict("Accepted"), "True/DuplicateReferences");
    assert_eq!(
        w.condition("Accepted").message,
        "docker.io/library/nginx:latest is the same image as nginx"
    );
    w.respec(|s| s.images.push(entry("x; rm -rf /")));
    assert_eq!(w.verdict("Accepted"), "False/InvalidReference");
    assert!(
        w.condition("Accepted").message.starts_with("x; rm -rf /: "),
        "{}",
        w.condition("Accepted").message
    );
    // The others are there; but not all that was asked for.
    assert_eq!(w.verdict("Ready"), "False/InvalidReference");
    assert_eq!(w.verdict("Degraded"), "True/InvalidReference");
}

#[test]
fn resolved() {
    let mut w = world();
    w.unresolved = vec![
        unresolved("nginx", Reason::NotFound),
        unresolved("redis:7", Reason::Unauthorized),
    ];
    assert_eq!(w.verdict("Resolved"), "False/NotFound");
    let message = "nginx: NotFound: the registry's words; redis:7: Unauthorized: the registry's words";
    assert_eq!(w.condition("Resolved").message, message);
    assert_eq!(w.verdict("Degraded"), "True/NotFound");
    // The last known digests are held: that is what Ready means.
    assert_eq!(w.verdict("Ready"), "True/AllNodesReady");
    w.unresolved = (0..9)
        .map(|i| unresolved(&format!("app-{i}"), Reason::NotFound))
        .collect();
    assert!(
        w.condition("Resolved")
            .message
            .ends_with("app-4: NotFound: the registry's words; and 4 more")
    );
    w.unresolved.clear();
    w.cache.spec.resolve = Resolve::OnNode;
    assert_eq!(w.verdict("Resolved"), "True/OnNode");
    w.cache.spec.resolve = Resolve::Central;
    w.resolving = true;
    assert_eq!(w.verdict("Resolved"), "Unknown/Resolving");
}

#[test]
fn ready() {
    use NodeState::{Failed, Pulling, Ready};
    let ok = || new("n1").reports(Ready);
    for (places, expected) in [
        (vec![], "True/NoNodesSelected"),
        (vec![ok().is(Eligibility::NotMatching)], "True/NoNodesSelected"),
        (vec![ok()], "True/AllNodesReady"),
        (vec![ok(), new("n2").reports(Pulling)], "False/Progressing"),
        (vec![ok(), Place::new("n2")], "False/Progressing"),
        (
            vec![ok(), Place::new("n2").claims("web-1", 0).reports(Ready)],
            "False/Progressing",
        ),
        (vec![ok(), new("n2").reports(Failed)], "False/NodesFailed"),
        (
            vec![ok(), new("n2").reports(Failed), new("n3").reports(Pulling)],
            "False/Progressing",
        ),
        // Nodes that cannot be worked on do not make it False,
        (
            vec![ok(), new("n2").is(Eligibility::Unreachable)],
            "True/AllNodesReady",
        ),
        (
            vec![ok(), Place::new("n2").is(Eligibility::Cordoned)],
            "True/AllNodesReady",
        ),
        // but nobody claims what no node can show.
        (
            vec![new("n2").is(Eligibility::Unreachable)],
            "False/NoWorkableNodes",
        ),
        (vec![ok().is(Eligibility::Unreachable)], "True/AllNodesReady"),
    ] {
        assert_eq!(
            World::with(places.clone()).verdict("Ready"),
            expected,
            "{places:?}"
        );
    }
    let w = World::with(vec![
        ok(),
        new("n2").is(Eligibility::Unreachable),
        Place::new("n3").is(Eligibility::Cordoned),
    ]);
    let words = "1 of 1 workable nodes hold revision web-2 whole; 1 unreachable; 1 cordoned or short of disk";
    assert_eq!(w.condition("Ready").message, words);
}

#[test]
fn a_revision_of_another_spec_makes_nothing_ready() {
    let mut w = world();
    w.respec(|s| s.images.push(entry("app")));
    assert_eq!(w.verdict("Ready"), "False/Progressing");
    assert_eq!(w.verdict("Progressing"), "True/Resolving");
    let mut w = world();
    w.respec(|s| s.pull_secrets = vec![PullSecret { name: "new".into() }]);
    assert_eq!(w.verdict("Ready"), "False/Progressing");
    let mut w = world();
    w.revision = None;
    w.places.clear();
    assert_eq!(w.verdict("Ready"), "True/NoNodesSelected");
    w.places.push(Place::new("n1"));
    assert_eq!(w.verdict("Ready"), "False/Progressing");
}

#[test]
fn refresh_and_purge_show_in_ready() {
    let mut w = World::with(vec![new("n1").reports(NodeState::Pulling)]);
    w.previous.last_refresh = Some(RefreshStatus::default());
    assert_eq!(w.verdict("Ready"), "False/Refreshing");
    w.places = vec![new("n1").reports(NodeState::Ready)];
    w.resolving = true;
    assert_eq!(
        (w.verdict("Ready"), w.verdict("Progressing")),
        ("False/Refreshing".into(), "True/Resolving".into())
    );
    w.resolving = false;
    assert_eq!(w.verdict("Ready"), "True/AllNodesReady");
    w.previous.last_purge = Some(PurgeStatus {
        in_force: true,
        ..PurgeStatus::default()
    });
    assert_eq!(
        (w.verdict("Ready"), w.verdict("Progressing")),
        ("False/Purging".into(), "True/Purging".into())
    );
    assert_eq!(w.condition("Progressing").message, "0/1 nodes purged");
    w.places = vec![new("n1").reports(NodeState::Purged).absent()];
    assert_eq!(
        (w.verdict("Ready"), w.verdict("Progressing")),
        ("False/Purged".into(), "False/Idle".into())
    );
    w.previous.last_purge = None;
    w.cache.metadata.deletion_timestamp = Some(Time(at(5)));
    assert_eq!(
        (w.verdict("Ready"), w.verdict("Progressing")),
        ("False/Deleting".into(), "True/Deleting".into())
    );
}

#[test]
fn progressing() {
    let w = World::with(vec![
        new("n1").reports(NodeState::Ready),
        new("n2").reports(NodeState::Pulling),
        Place::new("n3"),
        Place::new("n4").is(Eligibility::Cordoned),
    ]);
    assert_eq!(w.verdict("Progressing"), "True/Pulling");
    assert_eq!(w.condition("Progressing").message, "1/3 nodes, 4.0 of 9.0 GiB");
    // A node that failed is repeated by itself: nothing is awaited.
    let w = World::with(vec![new("n1").reports(NodeState::Failed)]);
    assert_eq!(w.verdict("Progressing"), "False/Idle");
    let mut w = World::with(vec![new("n1").reports(NodeState::Pulling)]);
    for image in &mut w.revision.as_mut().unwrap().spec.spec.images {
        image.platforms.clear();
    }
    assert_eq!(w.condition("Progressing").message, "0/1 nodes");
    w.cache.spec.suspend = true;
    assert_eq!(w.verdict("Progressing"), "False/Suspended");
    assert_eq!(w.verdict("Ready"), "False/Suspended");
}

#[test]
fn units_differ_where_little_is_done() {
    let w = World::with(vec![
        new("n1")
            .reports(NodeState::Pulling)
            .edit(|o| o.bytes = 512 << 20),
    ]);
    assert_eq!(
        w.condition("Progressing").message,
        "0/1 nodes, 512 MiB of 3.0 GiB"
    );
}

#[test]
fn degraded() {
    let nginx = "docker.io/library/nginx:latest";
    let w = World::with(vec![
        new("n1").fails(nginx, Reason::NotFound, "not found"),
        new("n2").reports(NodeState::Ready),
    ]);
    assert_eq!(w.verdict("Degraded"), "True/NodesFailed");
    assert_eq!(
        w.condition("Degraded").message,
        "nginx: NotFound on 1 node: not found"
    );
    let mut w = World::with(vec![new("n1").reports(NodeState::Pulling)]);
    assert_eq!(w.verdict("Degraded"), "False/AsExpected");
    w.now = at(500);
    assert_eq!(w.verdict("Degraded"), "True/NodesFailed");
    assert_eq!(
        w.condition("Degraded").message,
        "Timeout on 1 node: not done within timeouts.overall (2h)"
    );
    // Nobody waits for the end of a long pull to be told of a missing image; what may heal by itself is not told yet.
    for (reason, expected) in [
        (Reason::NotFound, "True/ImagesFailed"),
        (Reason::Timeout, "False/AsExpected"),
    ] {
        let busy = new("n1").reports(NodeState::Pulling);
        let w = World::with(vec![busy.image(nginx, ImageState::Failed, Some(reason), "words")]);
        assert_eq!(w.verdict("Degraded"), expected);
    }
    // An image left out is told, not complained about.
    let skipped = new("n1").reports(NodeState::Ready).image(
        nginx,
        ImageState::Skipped,
        Some(Reason::NoMatchingPlatform),
        "",
    );
    let w = World::with(vec![skipped]);
    assert_eq!(
        (w.report().failures.len(), w.verdict("Degraded")),
        (1, "False/AsExpected".to_owned())
    );
    // Nor is a node that went away.
    let w = World::with(vec![
        new("n1")
            .fails(nginx, Reason::NotFound, "")
            .is(Eligibility::Unreachable),
    ]);
    assert_eq!(w.verdict("Degraded"), "False/AsExpected");
    let w = World::with(vec![
        new("n1")
            .reports(NodeState::Ready)
            .edit(|o| o.removal_error = "refused".into()),
    ]);
    assert_eq!(w.verdict("Degraded"), "True/RemovalFailed");
}

#[test]
fn the_time_is_that_of_the_last_change_of_status() {
    let mut w = World::with(vec![new("n1").reports(NodeState::Pulling)]);
    let time = |w: &World, kind: &str| w.condition(kind).last_transition_time.0;
    assert_eq!(time(&w, "Ready"), at(10));
    w.previous = w.report();
    w.now = at(20);
    // Another reason of the same status.
    w.places = vec![new("n1").reports(NodeState::Failed)];
    assert_eq!(
        (w.verdict("Ready"), time(&w, "Ready")),
        ("False/NodesFailed".to_owned(), at(10))
    );
    assert_eq!(time(&w, "Degraded"), at(20));
    w.previous = w.report();
    w.now = at(30);
    w.places = vec![new("n1").reports(NodeState::Ready)];
    assert_eq!((time(&w, "Ready"), time(&w, "Accepted")), (at(30), at(10)));
}

#[test]
fn messages_are_bounded() {
    let mut w = world();
    w.unresolved = (0..500)
        .map(|i| {
            let mut failure = unresolved(
                &format!("registry.example/{}/{i}", "long".repeat(100)),
                Reason::NotFound,
            );
            failure.message = "words ".repeat(200);
            failure
        })
        .collect();
    let status: ImageCacheStatus = w.report();
    assert!(
        status
            .conditions
            .iter()
            .all(|c| c.message.chars().count() <= 1024)
    );
}

#[test]
fn sources_that_fail_are_named_and_those_not_asked_yet_are_not() {
    let source = |name: &str, ready: bool, reason: &str| larder_api::image_cache_status::SourceStatus {
        name: name.into(),
        ready,
        reason: reason.into(),
        message: "in words".into(),
        ..Default::default()
    };
    let mut world = world();
    world.sources = vec![source("a", true, "Shrunk"), source("b", false, "Pending")];
    assert_eq!(world.verdict("Resolved"), "True/AllResolved");
    assert_eq!(world.report().sources, world.sources);
    world.sources.push(source("c", false, "Unreachable"));
    world.unresolved = vec![unresolved("redis:7", Reason::NotFound)];
    assert_eq!(world.verdict("Resolved"), "False/Unreachable");
    let words = world.condition("Resolved").message;
    assert_eq!(
        words,
        "source c: Unreachable: in words; redis:7: NotFound: the registry's words"
    );
    assert_eq!(world.verdict("Degraded"), "True/Unreachable");
    assert_eq!(world.verdict("Accepted"), "True/Valid");
    assert_eq!(
        world.verdict("Ready"),
        "True/AllNodesReady",
        "what is known is there"
    );
}

#[test]
fn what_is_not_carried_out_is_not_accepted() {
    let mut world = world();
    world.respec(|spec| {
        spec.refresh =
            serde_json::from_value(serde_json::json!({"schedule": "0 3 * * *", "timeZone": "Mars"})).unwrap();
    });
    assert_eq!(world.verdict("Accepted"), "False/InvalidSchedule");
    assert!(world.condition("Accepted").message.contains("refresh.timeZone"));
    world.respec(|spec| {
        spec.sources = serde_json::from_value(serde_json::json!([
            {"name": "pods", "workloads": {"namespaces": ["kube-system"]}},
        ]))
        .unwrap();
    });
    assert_eq!(world.verdict("Accepted"), "False/PolicyDenied");
    assert_eq!(world.verdict("Degraded"), "True/PolicyDenied");
}
