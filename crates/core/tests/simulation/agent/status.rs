//! What the agent says, and what it can say of what kind of runtime and image.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::{OnMissingPlatform, Puller};
use larder_api::names::Reason;
use larder_api::node_image_cache::{Desired, ImageState, NodeLimits, NodeState, ReportedDigest};
use larder_core::agent::{Failed, PullFailure};
use larder_core::node::Write;

use super::filled;
use super::world::{Fate, World, image};
use crate::parts::objects::{MIB, digest, stored};

#[test]
fn a_runtime_that_does_not_answer_changes_nothing_but_its_condition() {
    let mut world = filled(&["a:1"]);
    world.runtime_error = Some("connection refused".into());
    let decision = world.step();
    assert!(decision.actions.is_empty());
    assert_eq!(
        (decision.write, world.state("web")),
        (Write::Now, NodeState::Ready)
    );
    assert_eq!(
        world.condition("RuntimeReady"),
        "False Unreachable connection refused"
    );
    world.revision("r2", vec![image("b:1", "b", MIB)]);
    world.claim("new", "r2");
    world.run(20);
    assert_eq!(
        (world.state("web"), world.state("new")),
        (NodeState::Ready, NodeState::Waiting)
    );
    world.runtime_error = None;
    world.settle();
    assert_eq!(
        (world.condition("RuntimeReady").as_str(), world.state("new")),
        ("True Answers", NodeState::Ready)
    );
}

#[test]
fn progress_is_written_at_its_pace() {
    let mut world = World::new();
    world.revision("r1", vec![image("a:1", "a", 300 * MIB)]);
    world.claim("web", "r1");
    world.spec.limits = Some(NodeLimits {
        pulls: 5,
        report_seconds: 8,
    });
    world.step();
    let mut written = vec![];
    for second in 1..=31 {
        world.pass(SignedDuration::from_secs(1));
        if world.step().write == Write::Now {
            written.push((
                second,
                world.listed("a:1").bytes_done / MIB,
                world.entry("web").message,
            ));
        }
    }
    let said = |s: i64, done: i64, text: &str| (s, done, text.to_owned());
    assert_eq!(
        written,
        [
            said(10, 100, "0 of 1 images, 100 of 300 MiB"),
            said(18, 180, "0 of 1 images, 180 of 300 MiB"),
            said(26, 260, "0 of 1 images, 260 of 300 MiB"),
            said(30, 0, ""),
        ]
    );
    assert_eq!(world.listed("a:1").bytes_total, 0);
}

#[test]
fn what_was_never_resolved_is_pulled_by_tag_reported_and_asked_for_again() {
    let mut world = World::new();
    let mut unknown = image("a:1", "a", 0);
    (unknown.digest, unknown.private) = (None, true);
    unknown.platforms.clear();
    world.revision("r1", vec![unknown]);
    world.claim("web", "r1").puller = Puller::Agent;
    world.tags.insert("r.example/a:1".into(), digest("first"));
    world.settle();
    let reported = |content: &str| {
        vec![ReportedDigest {
            image: "r.example/a:1".into(),
            digest: digest(content),
        }]
    };
    assert_eq!(
        (world.state("web"), world.entry("web").reported),
        (NodeState::Ready, reported("first"))
    );
    world.tags.insert("r.example/a:1".into(), digest("second"));
    world.settle();
    assert_eq!(world.begun.len(), 1);
    world.pass(SignedDuration::from_hours(1));
    let asked = Time(world.now);
    world.claimed("web").verify_after = Some(asked.clone());
    world.settle();
    assert_eq!(
        (world.begun.len(), world.entry("web").reported),
        (2, reported("second"))
    );
    assert!(world.entry("web").checked_at.unwrap().0 >= asked.0);
}

#[test]
fn a_refresh_of_what_is_there_confirms_it_even_if_its_clock_is_ahead() {
    let mut world = filled(&["a:1"]);
    let asked = stored(&Time(world.now + SignedDuration::from_mins(3)));
    world.claimed("web").verify_after = Some(asked.clone());
    world.settle();
    assert_eq!(
        (world.begun.len(), world.entry("web").checked_at),
        (1, Some(asked))
    );
}

#[test]
fn an_image_for_other_platforms_is_left_out_or_failed_as_the_cache_says() {
    let mut world = World::new();
    let mut foreign = image("arm:1", "arm", MIB);
    foreign.platforms[0].architecture = "arm64".into();
    let mut told = image("late:1", "late", 0);
    told.platforms.clear();
    world.revision("r1", vec![image("a:1", "a", MIB), foreign, told]);
    world.claim("web", "r1");
    world.fates.insert(
        "r.example/late:1".into(),
        Fate::Always(Reason::NoMatchingPlatform),
    );
    world.settle();
    let entry = world.entry("web");
    assert_eq!(
        (entry.state, entry.ready, entry.total, entry.skipped),
        (NodeState::Ready, 1, 1, 2)
    );
    assert_eq!(entry.missing, "6");
    assert_eq!(world.listed("late:1").state, ImageState::Skipped);
    world.restart();
    world.run(100);
    assert_eq!(world.begun.len(), 2);
    world.overrides("web").on_missing_platform = Some(OnMissingPlatform::Fail);
    world.run(3);
    assert_eq!(
        (world.state("web"), world.entry("web").message.as_str()),
        (NodeState::Failed, "2 images failed")
    );
}

#[test]
fn without_containerds_api_names_are_believed_and_nothing_is_pinned() {
    let mut world = World::new();
    world.runtime.capabilities.clear();
    world.revision("r1", vec![image("a:1", "a", MIB), image("b:1", "a", MIB)]);
    world.claim("web", "r1");
    world.settle();
    assert_eq!((world.state("web"), world.begun.len()), (NodeState::Ready, 2));
    assert!(world.runtime.images.values().all(|s| !s.pinned));
    assert!(world.condition("Protected").starts_with("False NotSupported"));
    world.bring("a:1", "other");
    world.settle();
    assert_eq!((world.state("web"), world.begun.len()), (NodeState::Ready, 3));
    world.claimed("web").desired = Desired::Absent;
    world.settle();
    assert_eq!(
        (world.state("web"), world.entry("web").foreign),
        (NodeState::Purged, 2)
    );
}

#[test]
fn what_needs_credentials_is_left_to_the_kubelet_but_protected_and_removed() {
    let mut world = World::new();
    let mut private = image("p:1", "p", MIB);
    private.private = true;
    world.revision("r1", vec![private.clone()]);
    world.revision("r2", vec![private, image("a:1", "a", MIB)]);
    world.claim("all", "r1");
    world.settle();
    assert_eq!(world.status.as_ref().unwrap().puller.caches, []);
    world.bring("p:1", "p");
    world.settle();
    assert!(world.held("p").unwrap().pinned_by_us);
    world.claim("some", "r2");
    world.settle();
    let entry = world.entry("some");
    assert_eq!((entry.ready, entry.total, entry.missing.as_str()), (1, 1, "8"));
    for cache in ["all", "some"] {
        world.claimed(cache).desired = Desired::Absent;
    }
    world.settle();
    assert_eq!(
        (
            world.state("all"),
            world.state("some"),
            world.runtime.images.len()
        ),
        (NodeState::Purged, NodeState::Purged, 0)
    );
}

#[test]
fn two_thousand_failures_fit_into_the_status() {
    let mut world = World::new();
    for cache in 0..40 {
        let name = format!("a-cache-with-a-rather-long-name-{cache:02}");
        let images: Vec<_> = (0..50)
            .map(|i| {
                image(
                    &format!("some/rather/long/repository/name-{cache}-{i}:1"),
                    &format!("{cache}-{i}"),
                    MIB,
                )
            })
            .collect();
        for image in &images {
            let failed = Failed {
                attempts: 3,
                at: world.now,
                asked_at: world.now,
                failure: PullFailure {
                    reason: Reason::NotFound,
                    message: "not found ".repeat(100),
                },
            };
            world
                .process
                .memory
                .failures
                .insert((image.image.clone(), image.digest.clone()), failed);
        }
        world.revision(&name, images);
        world.claim(&name, &name);
    }
    let status = world.step().status;
    let bytes = serde_json::to_vec(&status).unwrap().len();
    assert!((30 * 1024..=48 * 1024).contains(&bytes), "{bytes}");
    assert_eq!(status.puller.caches.len(), 40);
    assert_eq!(
        status.puller.images.len() as i32 + status.puller.images_omitted,
        2000
    );
    assert!(status.puller.images.iter().all(|i| i.state == ImageState::Failed));
}
