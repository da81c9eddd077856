use larder_api::image_cache::Resolve;
use larder_api::image_cache_status::RefreshStatus;
use larder_api::node_image_cache::{NodeState, ReportedDigest};

use super::{Place, World, digest, world};

/// A node that found this behind `nginx`.
fn found(name: &str, n: usize) -> Place {
    let reported = ReportedDigest {
        image: "docker.io/library/nginx:latest".into(),
        digest: digest(n),
    };
    Place::new(name)
        .claims("web-2", 0)
        .reports(NodeState::Ready)
        .edit(|o| o.reported = vec![reported])
}

fn on_node(places: Vec<Place>) -> World {
    let mut w = World::with(places);
    w.cache.spec.resolve = Resolve::OnNode;
    w
}

#[test]
fn nodes_that_found_the_same_are_no_news() {
    let w = on_node(vec![found("n1", 1), found("n2", 1), Place::new("n3")]);
    assert_eq!(w.verdict("Resolved"), "True/OnNode");
    assert_eq!(world().verdict("Resolved"), "True/AllResolved");
}

#[test]
fn nodes_that_found_different_digests_are_told_by_digest() {
    let w = on_node(vec![found("n1", 1), found("n2", 2), found("n3", 2)]);
    assert_eq!(w.verdict("Resolved"), "False/DigestsDiffer");
    assert_eq!(
        w.condition("Resolved").message,
        "docker.io/library/nginx:latest: sha256:000000000000 on 2 nodes, sha256:000000000000 on n1"
    );
    assert_eq!(w.verdict("Degraded"), "True/DigestsDiffer");
    assert_eq!(
        w.verdict("Ready"),
        "True/AllNodesReady",
        "each node holds what it found"
    );
    let many = (0..6).map(|i| found(&format!("n{i}"), i)).collect();
    let message = on_node(many).condition("Resolved").message;
    assert!(message.ends_with(" on n2, and 3 more"), "{message}");
}

#[test]
fn nodes_at_work_and_refreshes_under_way_may_yet_agree() {
    let at_work = found("n2", 2).edit(|o| o.state = NodeState::Pulling);
    let w = on_node(vec![found("n1", 1), at_work]);
    assert_eq!(w.verdict("Resolved"), "True/OnNode");
    let to_confirm = found("n2", 2).verify_after(5);
    let w = on_node(vec![found("n1", 1), to_confirm]);
    assert_eq!(w.verdict("Resolved"), "True/OnNode");
    let mut w = on_node(vec![found("n1", 1), found("n2", 2)]);
    w.resolving = true;
    w.previous.last_refresh = Some(RefreshStatus::default());
    assert_eq!(w.verdict("Resolved"), "True/OnNode");
}
