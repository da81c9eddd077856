use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use larder_api::ImageCacheStatus;
use larder_api::image_cache_status::{PurgeStatus, RefreshResult, RefreshStatus};
use larder_api::names::Reason;
use larder_api::node_image_cache::NodeState;

use super::{Place, World, at, unresolved, world};
use crate::select::Eligibility;

fn refresh(minutes: i64) -> RefreshStatus {
    RefreshStatus {
        token: "T1".into(),
        requested_at: Some(MicroTime(at(minutes))),
        ..RefreshStatus::default()
    }
}

pub(super) fn purge() -> PurgeStatus {
    PurgeStatus {
        token: "P1".into(),
        requested_at: Some(Time(at(2))),
        in_force: true,
        ..PurgeStatus::default()
    }
}

fn refreshing(places: Vec<Place>) -> World {
    let previous = ImageCacheStatus {
        last_refresh: Some(refresh(2)),
        ..ImageCacheStatus::default()
    };
    World {
        previous,
        ..World::with(places)
    }
}

fn purging(places: Vec<Place>) -> World {
    let previous = ImageCacheStatus {
        last_purge: Some(purge()),
        ..ImageCacheStatus::default()
    };
    World {
        previous,
        ..World::with(places)
    }
}

fn result(world: &World) -> Option<RefreshResult> {
    let refresh = world.report().last_refresh.unwrap();
    assert_eq!(refresh.finished_at.is_some(), refresh.result.is_some());
    assert_eq!(
        refresh.finished_token,
        refresh.finished_at.as_ref().map(|_| "T1".to_owned())
    );
    refresh.result
}

fn new(name: &str) -> Place {
    Place::new(name).claims("web-2", 3)
}

#[test]
fn a_refresh_is_finished_when_every_workable_node_is() {
    use NodeState::{Failed, Pulling, Ready};
    use RefreshResult::{Failed as Bad, Succeeded};
    for (places, expected) in [
        (vec![], Some(Succeeded)),
        (vec![new("n1").reports(Ready)], Some(Succeeded)),
        (
            vec![new("n1").reports(Ready), new("n2").reports(Failed)],
            Some(Bad),
        ),
        (vec![new("n1").reports(Ready), new("n2").reports(Pulling)], None),
        (vec![new("n1").reports(Ready), new("n2")], None),
        (vec![new("n1").reports(Ready), Place::new("n2")], None),
        (
            vec![
                new("n1").reports(Ready),
                Place::new("n2").claims("web-1", 0).reports(Ready),
            ],
            None,
        ),
        // Nodes that cannot be worked on hold nothing up.
        (
            vec![new("n1").reports(Ready), new("n2").is(Eligibility::Unreachable)],
            Some(Succeeded),
        ),
        (
            vec![new("n1").reports(Ready), new("n2").is(Eligibility::Cordoned)],
            Some(Succeeded),
        ),
        // What was checked before the refresh is to be confirmed first.
        (vec![new("n1").reports(Ready).verify_after(2)], None),
        (
            vec![
                new("n1")
                    .reports(Ready)
                    .edit(|o| o.checked_at = Some(Time(at(2))))
                    .verify_after(2),
            ],
            Some(Succeeded),
        ),
    ] {
        assert_eq!(result(&refreshing(places.clone())), expected, "{places:?}");
    }
}

#[test]
fn a_node_out_of_time_ends_a_refresh_as_failed() {
    let mut w = refreshing(vec![new("n1").reports(NodeState::Pulling)]);
    w.now = at(123);
    assert_eq!(result(&w), Some(RefreshResult::Failed));
    assert_eq!(
        w.report().last_refresh.unwrap().finished_at,
        Some(MicroTime(at(123)))
    );
}

#[test]
fn a_refresh_waits_for_what_is_tried_again_and_not_for_what_cannot_be_tried() {
    // In minute 1, before the refresh.
    let tried = new("n1").fails("nginx", Reason::NotFound, "there is none");
    assert_eq!(result(&refreshing(vec![tried])), None);
    for (reason, words) in [
        (Reason::InsufficientDisk, "the disk has no room"),
        (Reason::NoMatchingPlatform, "no manifest for linux/amd64"),
    ] {
        let mut refused = new("n1").fails("nginx", reason, words);
        refused.images[0].attempts = 0;
        assert_eq!(
            result(&refreshing(vec![refused])),
            Some(RefreshResult::Failed),
            "{words}"
        );
    }
}

#[test]
fn references_that_fail_end_a_refresh_as_failed() {
    let mut w = refreshing(vec![new("n1").reports(NodeState::Ready)]);
    w.unresolved = vec![unresolved("nginx", Reason::NotFound)];
    assert_eq!(result(&w), Some(RefreshResult::Failed));
}

#[test]
fn a_refresh_waits_for_answers_and_for_the_revision() {
    let mut w = refreshing(vec![new("n1").reports(NodeState::Ready)]);
    w.resolving = true;
    assert_eq!(result(&w), None);
    w.resolving = false;
    w.respec(|s| s.images[0].priority = 5);
    assert_eq!(result(&w), None);
    w.revision = None;
    assert_eq!(result(&w), None);
}

#[test]
fn what_has_no_digest_is_confirmed_by_every_refresh_and_all_after_a_day() {
    // Checked in minute 1, before the plan has come to ask for more.
    let mut w = refreshing(vec![new("n1").reports(NodeState::Ready)]);
    assert_eq!(result(&w), Some(RefreshResult::Succeeded));
    w.revision.as_mut().unwrap().spec.spec.images[0].digest = None;
    assert_eq!(result(&w), None);
    let day = 24 * 60;
    let mut w = refreshing(vec![new("n1").reports(NodeState::Ready)]);
    w.previous.last_refresh = Some(refresh(day + 1));
    w.now = at(day + 5);
    assert_eq!(result(&w), Some(RefreshResult::Succeeded));
    w.previous.last_refresh = Some(refresh(day + 2));
    assert_eq!(result(&w), None);
}

#[test]
fn a_finished_refresh_is_left_alone() {
    let mut w = refreshing(vec![new("n1").reports(NodeState::Pulling)]);
    let finished = RefreshStatus {
        finished_at: Some(MicroTime(at(3))),
        finished_token: Some("T1".into()),
        result: Some(RefreshResult::Superseded),
        ..refresh(2)
    };
    w.previous.last_refresh = Some(finished.clone());
    assert_eq!(w.report().last_refresh, Some(finished));
    assert_eq!(world().report().last_refresh, None);
}

#[test]
fn a_purge_is_finished_when_every_reachable_node_is() {
    use NodeState::{Purged, Purging, Ready};
    for (places, finished) in [
        (vec![], true),
        (vec![Place::new("n1")], true),
        (vec![new("n1").reports(Purged).absent()], true),
        (
            vec![
                new("n1").reports(Purged).absent(),
                new("n2").reports(Purging).absent(),
            ],
            false,
        ),
        (
            vec![new("n1").reports(Purged).absent(), new("n2").absent()],
            false,
        ),
        // Not turned yet.
        (vec![new("n1").reports(Ready)], false),
        (vec![new("n1").reports(Purged)], false),
        (
            vec![
                new("n1").reports(Purged).absent(),
                new("n2").reports(Ready).is(Eligibility::Unreachable),
            ],
            true,
        ),
        (
            vec![new("n1").reports(Purging).absent().is(Eligibility::Cordoned)],
            false,
        ),
        (
            vec![new("n1").reports(Purging).absent().is(Eligibility::NotMatching)],
            false,
        ),
    ] {
        let purge = purging(places.clone()).report().last_purge.unwrap();
        assert_eq!(purge.finished_at.is_some(), finished, "{places:?}");
        assert_eq!(purge.finished_token, finished.then(|| "P1".to_owned()));
        assert!(purge.in_force);
    }
}

#[test]
fn a_purge_sums_up_what_the_nodes_did() {
    let done = |name: &str, n: i32| {
        new(name).reports(NodeState::Purged).absent().edit(|o| {
            (o.removed, o.in_use, o.foreign, o.shared) = (n, n + 1, n + 2, n + 3);
        })
    };
    let w = purging(vec![
        done("n1", 10),
        done("n2", 20),
        done("n3", 30).is(Eligibility::NotTolerated),
    ]);
    let purge = w.report().last_purge.unwrap();
    assert_eq!(
        (purge.removed, purge.in_use, purge.foreign, purge.shared),
        (60, 63, 66, 69)
    );
    // Finished once: what comes later does not change it.
    let later = World {
        previous: w.report(),
        ..World::with(vec![
            done("n1", 10),
            done("n4", 5),
            new("n5").reports(NodeState::Ready),
        ])
    };
    assert_eq!(later.report().last_purge, Some(purge));
}

#[test]
fn a_purge_that_ended_is_left_alone() {
    let mut w = world();
    let ended = PurgeStatus {
        in_force: false,
        ..purge()
    };
    w.previous.last_purge = Some(ended.clone());
    assert_eq!(w.report().last_purge, Some(ended));
}
