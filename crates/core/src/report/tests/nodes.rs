use jiff::SignedDuration;
use larder_api::image_cache_status::{ImageCounts, NodeCounts};
use larder_api::names::Reason;
use larder_api::node_image_cache::NodeState::{
    self, Failed, Pulling, Purged, Purging, Ready, Unreachable, Waiting,
};

use super::{Place, World, at, world};
use crate::report::{next_wake, settled};
use crate::select::Eligibility;
use crate::select::Eligibility::{Cordoned, DiskPressure, NotMatching, NotTolerated, Workable};

fn new() -> Place {
    Place::new("n1")
}

#[test]
fn states() {
    let held = |p: Place| p.edit(|o| o.held = vec!["web-1".into()]);
    for (place, state, message) in vec![
        (new(), Waiting, "waits for its assignment"),
        (new().is(Cordoned), Waiting, "cordoned"),
        (new().is(DiskPressure), Waiting, "disk pressure"),
        (
            new().is(Eligibility::Unreachable),
            Unreachable,
            "the node is not Ready",
        ),
        (
            new()
                .claims("web-2", 0)
                .reports(Ready)
                .is(Eligibility::Unreachable),
            Unreachable,
            "the node is not Ready",
        ),
        (new().claims("web-2", 0), Pulling, ""),
        (new().claims("web-2", 0).reports(Pulling), Pulling, ""),
        (new().claims("web-2", 0).reports(Ready), Ready, ""),
        (
            new()
                .claims("web-2", 0)
                .reports(Failed)
                .edit(|o| o.message = "1 image failed".into()),
            Failed,
            "1 image failed",
        ),
        (
            new()
                .claims("web-2", 0)
                .reports(Waiting)
                .edit(|o| o.message = "suspended".into()),
            Waiting,
            "suspended",
        ),
        // What is reported is about the revision before.
        (
            held(new().claims("web-1", 0).reports(Ready)).claims("web-2", 5),
            Pulling,
            "",
        ),
        (
            held(new().claims("web-1", 0).reports(Failed)).claims("web-2", 5),
            Pulling,
            "",
        ),
        // Left over from a purge of the very same revision.
        (new().claims("web-2", 0).reports(Purged), Pulling, ""),
        // Not assigned to the newest yet.
        (
            new().claims("web-1", 0).reports(Ready),
            Waiting,
            "waits for a rollout slot",
        ),
        (
            new().claims("web-1", 0).reports(Ready).is(Cordoned),
            Waiting,
            "cordoned",
        ),
        (new().claims("web-1", 0).reports(Pulling), Pulling, ""),
        (new().claims("web-1", 0).reports(Failed), Failed, ""),
        (
            new().claims("web-2", 0).reports(Pulling).is(Cordoned),
            Waiting,
            "cordoned",
        ),
        (new().claims("web-2", 0).reports(Ready).is(Cordoned), Ready, ""),
        (
            new().claims("web-2", 0).reports(Failed).is(DiskPressure),
            Failed,
            "",
        ),
        // A revision that cannot be read is reported under the name of the one before.
        (
            new()
                .claims("web-1", 0)
                .reports(Failed)
                .edit(|o| o.reason = Some(Reason::RevisionMissing))
                .claims("web-2", 5),
            Failed,
            "",
        ),
    ] {
        check(&place, state, message);
    }
}

#[test]
fn states_of_removals() {
    for (place, state, message) in [
        (new().claims("web-2", 0).absent(), Purging, ""),
        (new().claims("web-2", 0).reports(Ready).absent(), Purging, ""),
        (
            new()
                .claims("web-2", 0)
                .reports(Purging)
                .edit(|o| o.removal_error = "refused".into())
                .absent(),
            Purging,
            "refused",
        ),
        (
            new()
                .claims("web-2", 0)
                .reports(Purged)
                .edit(|o| o.message = "2 removed".into())
                .absent(),
            Purged,
            "2 removed",
        ),
    ] {
        check(&place, state, message);
    }
}

fn check(place: &Place, state: NodeState, message: &str) {
    let report = World::with(vec![place.clone()]).report();
    let node = &report.node_statuses[0];
    assert_eq!((node.state, node.message.as_str()), (state, message), "{place:?}");
}

#[test]
fn a_node_that_joins_a_purged_cache_is_not_filled() {
    let mut w = World::with(vec![new()]);
    w.previous.last_purge = Some(super::requests::purge());
    assert_eq!(w.report().node_statuses[0].state, Purged);
}

#[test]
fn a_suspended_cache_says_why_nodes_wait() {
    let mut w = World::with(vec![new(), Place::new("n2").claims("web-1", 0).reports(Ready)]);
    w.cache.spec.suspend = true;
    assert!(
        w.report()
            .node_statuses
            .iter()
            .all(|n| (n.state, n.message.as_str()) == (Waiting, "suspended"))
    );
}

#[test]
fn only_selected_nodes_are_listed_and_in_order() {
    let w = World::with(vec![
        Place::new("n3").claims("web-2", 0).reports(Ready),
        Place::new("n1").is(NotMatching).claims("web-2", 0).reports(Ready),
        Place::new("n2")
            .is(NotTolerated)
            .claims("web-2", 0)
            .reports(Ready),
        Place::new("n0").claims("web-2", 0).reports(Ready),
    ]);
    let report = w.report();
    let names: Vec<_> = report.node_statuses.iter().map(|n| n.node.as_str()).collect();
    assert_eq!(names, ["n0", "n3"]);
    assert_eq!(report.nodes.selected, 2);
}

#[test]
fn counts() {
    let w = World::with(vec![
        Place::new("ready").claims("web-2", 0).reports(Ready),
        Place::new("slot").claims("web-1", 0).reports(Ready),
        Place::new("pulling")
            .claims("web-2", 5)
            .reports(Pulling)
            .edit(|o| o.held = vec!["web-1".into()]),
        Place::new("failed").claims("web-2", 5).reports(Failed),
        Place::new("gone")
            .claims("web-2", 0)
            .reports(Ready)
            .is(Eligibility::Unreachable),
        Place::new("cordoned").is(Cordoned),
        Place::new("purging").claims("web-2", 0).reports(Ready).absent(),
    ]);
    let report = w.report();
    let expected = NodeCounts {
        selected: 7,
        ready: 4,
        updated: 2,
        progressing: 2,
        failed: 1,
        waiting: 2,
        unreachable: 1,
    };
    assert_eq!(report.nodes, expected);
    assert_eq!(report.summary.ready, "4/7");
    assert_eq!(
        report.images,
        ImageCounts {
            total: 2,
            unresolved: 0,
            bytes: 3 << 30
        }
    );
    assert_eq!(report.summary.size, "3.0 GiB");
    assert_eq!(report.revision.as_deref(), Some("web-2"));
    assert_eq!(report.observed_generation, 7);
}

#[test]
fn images_without_a_digest_are_unresolved() {
    let mut w = world();
    w.revision.as_mut().unwrap().spec.spec.images[0].digest = None;
    assert_eq!(w.report().images.unresolved, 1);
    w.revision = None;
    let report = w.report();
    assert_eq!(
        (report.images.total, report.images.unresolved, report.images.bytes),
        (2, 2, 0)
    );
    assert_eq!(report.summary.size, "");
    assert_eq!(report.revision, None);
}

#[test]
fn counts_of_a_node_are_about_the_revision_assigned() {
    let w = World::with(vec![
        Place::new("n1")
            .claims("web-2", 0)
            .reports(Pulling)
            .edit(|o| o.skipped = 1),
        Place::new("n2")
            .claims("web-1", 0)
            .reports(Ready)
            .claims("web-2", 1),
        Place::new("n3"),
        Place::new("n4").claims("web-2", 0).reports(Purged).absent(),
    ]);
    let report = w.report();
    let counts: Vec<_> = report
        .node_statuses
        .iter()
        .map(|n| (n.ready, n.total, n.skipped))
        .collect();
    assert_eq!(counts, [(1, 2, 1), (0, 2, 0), (0, 2, 0), (0, 0, 0)]);
    let revisions: Vec<_> = report.node_statuses.iter().map(|n| n.revision.as_str()).collect();
    assert_eq!(revisions, ["web-2", "web-2", "", "web-2"]);
    let pullers: Vec<_> = report.node_statuses.iter().map(|n| n.puller.as_str()).collect();
    assert_eq!(pullers, ["Job", "Job", "", ""]);
}

#[test]
fn a_node_that_takes_longer_than_overall_is_failed() {
    let overall = 120;
    let pulling = |minutes| Place::new("n1").claims("web-2", minutes).reports(Pulling);
    let state = |place: Place, now: i64| {
        let mut w = World::with(vec![place]);
        w.now = at(now);
        let node = w.report().node_statuses.remove(0);
        (node.state, node.message)
    };
    let words = "not done within timeouts.overall (2h)".to_owned();
    assert_eq!(state(pulling(3), 2 + overall), (Pulling, String::new()));
    assert_eq!(state(pulling(3), 3 + overall), (Failed, words.clone()));
    assert_eq!(
        state(pulling(3).edit(|o| o.message = "no room".into()), 500),
        (Failed, format!("{words}: no room"))
    );
    assert_eq!(state(Place::new("n1").claims("web-2", 3), 500), (Failed, words));
    // The time runs anew when what is there is to be confirmed.
    assert_eq!(state(pulling(3).verify_after(400), 500), (Pulling, String::new()));
    // Only for nodes that could be worked on, and only while there is work.
    assert_eq!(
        state(pulling(3).is(Cordoned), 500),
        (Waiting, "cordoned".to_owned())
    );
    assert_eq!(
        state(Place::new("n1").claims("web-2", 3).reports(Ready), 500).0,
        Ready
    );
}

#[test]
fn the_report_wakes_when_the_next_node_runs_out_of_time() {
    let mut w = World::with(vec![
        Place::new("n1").claims("web-2", 5).reports(Pulling),
        Place::new("n2").claims("web-2", 3),
        Place::new("n3").claims("web-2", 1).reports(Ready),
        Place::new("n4").claims("web-2", 2).reports(Pulling).is(Cordoned),
        Place::new("n5"),
    ]);
    w.now = at(10);
    assert_eq!(next_wake(&w.input()), Some(at(123)));
    w.now = at(123);
    assert_eq!(next_wake(&w.input()), Some(at(125)));
    w.now = at(125);
    assert_eq!(next_wake(&w.input()), None);
}

#[test]
fn settled_is_what_can_get_no_further() {
    let overall = SignedDuration::from_hours(2);
    let is = |place: Place, now| {
        settled(
            "web-2",
            place.claim.as_ref(),
            place.on_node.as_ref(),
            overall,
            at(now),
        )
    };
    assert!(!is(new(), 10));
    assert!(!is(new().claims("web-2", 0), 10));
    assert!(is(new().claims("web-2", 0), 120));
    assert!(!is(new().claims("web-1", 0), 500));
    assert!(is(new().claims("web-2", 0).reports(Ready), 10));
    assert!(is(new().claims("web-2", 0).reports(Failed), 10));
    assert!(!is(new().claims("web-2", 0).reports(Pulling), 10));
    assert!(!is(
        new().claims("web-1", 0).reports(Ready).claims("web-2", 0),
        10
    ));
    assert!(!is(new().claims("web-2", 0).reports(Ready).absent(), 10));
    assert!(!is(new().claims("web-2", 0).reports(Ready).verify_after(5), 10));
    assert!(is(new().claims("web-2", 0).reports(Ready).verify_after(1), 10));
    assert!(is(new().claims("web-2", 0).reports(Ready).verify_after(5), 125));
}

#[test]
fn a_state_keeps_the_moment_it_began() {
    let since = |w: &World| w.report().node_statuses[0].since.clone().unwrap().0;
    // The node says so itself, or the report before, or it is new.
    let mut w = World::with(vec![new().claims("web-2", 0).reports(Ready)]);
    assert_eq!(since(&w), at(1));
    w.places = vec![new().is(Cordoned)];
    assert_eq!(since(&w), at(10));
    w.previous = w.report();
    w.now = at(20);
    assert_eq!(since(&w), at(10));
    w.places = vec![new().is(Eligibility::Unreachable)];
    assert_eq!(since(&w), at(20));
}

#[test]
fn every_state_of_a_node_has_its_place_in_the_counts() {
    let disjoint = |state: NodeState, eligibility| {
        let place = match state {
            Purging | Purged => new().claims("web-2", 0).reports(state).absent(),
            _ => new().claims("web-2", 0).reports(state),
        };
        let n = World::with(vec![place.is(eligibility)]).report().nodes;
        n.progressing + n.failed + n.waiting + n.unreachable
    };
    for state in [Waiting, Pulling, Failed, Purging] {
        assert_eq!(disjoint(state, Workable), 1, "{state:?}");
    }
    assert_eq!(disjoint(Ready, Workable), 0);
    assert_eq!(disjoint(Purged, Workable), 0);
    assert_eq!(disjoint(Ready, Eligibility::Unreachable), 1);
}
