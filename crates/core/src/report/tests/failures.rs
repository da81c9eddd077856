use larder_api::image_cache::ImageEntry;
use larder_api::names::Reason;
use larder_api::node_image_cache::{ImageState, NodeState};

use super::{Place, World, digest, unresolved, world};
use crate::select::Eligibility;

const NGINX: &str = "docker.io/library/nginx:latest";
const REDIS: &str = "docker.io/library/redis:7";

fn new(name: &str) -> Place {
    Place::new(name).claims("web-2", 0)
}

/// Image, reason and number of nodes of each group.
fn groups(world: &World) -> Vec<(String, Reason, i32)> {
    world
        .report()
        .failures
        .into_iter()
        .map(|f| (f.image, f.reason, f.nodes))
        .collect()
}

#[test]
fn grouped_by_image_as_written_and_reason() {
    let mut places: Vec<_> = (1..=7)
        .rev()
        .map(|i| new(&format!("n{i}")).fails(NGINX, Reason::NotFound, &format!("words of n{i}")))
        .collect();
    places.push(new("n8").fails(NGINX, Reason::RateLimited, "slow down"));
    places.push(new("n9").fails(REDIS, Reason::NotFound, "no such thing"));
    let failures = World::with(places).report().failures;
    assert_eq!(failures.len(), 3);
    let first = &failures[0];
    assert_eq!(
        (first.image.as_str(), first.reason, first.nodes),
        ("nginx", Reason::NotFound, 7)
    );
    assert_eq!(first.message, "words of n1");
    assert_eq!(first.sample_nodes, ["n1", "n2", "n3", "n4", "n5"]);
    assert_eq!(
        (failures[1].image.as_str(), failures[1].reason),
        ("nginx", Reason::RateLimited)
    );
    assert_eq!(
        (failures[2].image.as_str(), failures[2].sample_nodes.as_slice()),
        ("redis:7", &["n9".to_owned()][..])
    );
}

#[test]
fn waiting_images_are_no_failures() {
    let place = new("n1")
        .reports(NodeState::Pulling)
        .image(NGINX, ImageState::Waiting, None, "");
    assert!(groups(&World::with(vec![place])).is_empty());
}

#[test]
fn what_is_wrong_with_a_node_as_a_whole_has_no_image() {
    let rejected = new("n1").reports(NodeState::Failed).edit(|o| {
        o.reason = Some(Reason::PodRejected);
        o.message = "exceeded quota".into();
    });
    let stuck = new("n2").reports(NodeState::Pulling);
    let removal = new("n3")
        .reports(NodeState::Ready)
        .edit(|o| o.removal_error = "1 could not be removed".into());
    let mut w = World::with(vec![rejected, stuck, removal]);
    w.now = super::at(500);
    let failures = w.report().failures;
    let seen: Vec<_> = failures
        .iter()
        .map(|f| (f.image.as_str(), f.reason, f.message.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            ("", Reason::Timeout, "not done within timeouts.overall (2h)"),
            ("", Reason::RuntimeError, "1 could not be removed"),
            ("", Reason::PodRejected, "exceeded quota"),
        ]
    );
}

#[test]
fn unreachable_leaving_and_outdated_nodes_do_not_count() {
    let failing = |name: &str| new(name).fails(NGINX, Reason::NotFound, "words");
    // About the revision before, which wanted something else under the same name.
    let mut outdated = failing("n3").claims("web-3", 5);
    outdated.on_node.as_mut().unwrap().revision = "web-2".into();
    outdated.images[0].digest = Some(digest(9));
    let w = World::with(vec![
        failing("n1").is(Eligibility::Unreachable),
        failing("n2").absent(),
        outdated.clone(),
    ]);
    assert!(groups(&w).is_empty());
    // The very same image is still wanted: no moment without the failure while the node changes over.
    outdated.images[0].digest = Some(digest(1));
    assert_eq!(
        groups(&World::with(vec![outdated])),
        [("nginx".to_owned(), Reason::NotFound, 1)]
    );
}

#[test]
fn unresolved_references_are_named_unless_a_node_knows_better() {
    let mut w = world();
    w.unresolved = vec![
        unresolved("nginx", Reason::NotFound),
        unresolved("redis:7", Reason::Unauthorized),
    ];
    // Every node holds both.
    assert!(groups(&w).is_empty());
    // Nobody holds nginx.
    w.places = vec![
        new("n1")
            .reports(NodeState::Pulling)
            .image(NGINX, ImageState::Waiting, None, ""),
        new("n2"),
        Place::new("n3").claims("web-1", 0).reports(NodeState::Ready),
    ];
    assert_eq!(groups(&w), [("nginx".to_owned(), Reason::NotFound, 0)]);
    // A node fails at it: its words are nearer to the truth.
    w.places[0] = new("n1").fails(NGINX, Reason::RegistryUnreachable, "refused");
    assert_eq!(groups(&w), [("nginx".to_owned(), Reason::RegistryUnreachable, 1)]);
    // A list that was cut proves nothing.
    w.places = vec![new("n1").reports(NodeState::Pulling).edit(|o| o.ready = 0)];
    assert_eq!(
        groups(&w),
        [
            ("nginx".to_owned(), Reason::NotFound, 0),
            ("redis:7".to_owned(), Reason::Unauthorized, 0)
        ]
    );
}

#[test]
fn images_left_out_come_last() {
    let skip = |name: &str| {
        new(name).reports(NodeState::Ready).image(
            REDIS,
            ImageState::Skipped,
            Some(Reason::NoMatchingPlatform),
            "no match",
        )
    };
    let w = World::with(vec![
        skip("n1"),
        skip("n2"),
        new("n3").fails(NGINX, Reason::NotFound, "words"),
    ]);
    assert_eq!(
        groups(&w),
        [
            ("nginx".to_owned(), Reason::NotFound, 1),
            ("redis:7".to_owned(), Reason::NoMatchingPlatform, 2)
        ]
    );
}

#[test]
fn twenty_groups_and_a_count() {
    let mut w = world();
    w.respec(|s| {
        s.images = (0..30)
            .map(|i| ImageEntry {
                image: format!("app-{i:02}"),
                priority: 0,
            })
            .collect();
    });
    let place = (0..30).fold(new("n1").reports(NodeState::Failed), |place, i| {
        place.image(
            &format!("docker.io/library/app-{i:02}:latest"),
            ImageState::Failed,
            Some(Reason::NotFound),
            "",
        )
    });
    w.places = vec![place];
    let report = w.report();
    assert_eq!((report.failures.len(), report.failures_omitted), (20, 10));
    assert_eq!(report.failures[0].image, "app-00");
}
