use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use larder_api::names::Reason;
use larder_api::node_image_cache::{Desired, ImageState, NodeState};
use proptest::prelude::*;

use super::requests::purge;
use super::{Place, World, at, world};
use crate::report::{next_wake, report};
use crate::select::Eligibility;
use crate::trim::{BUDGET, trim};

const NGINX: &str = "docker.io/library/nginx:latest";

fn any_place() -> impl Strategy<Value = Place> {
    let eligibility = prop::sample::select(vec![
        Eligibility::NotMatching,
        Eligibility::NotTolerated,
        Eligibility::Unreachable,
        Eligibility::Cordoned,
        Eligibility::DiskPressure,
        Eligibility::Workable,
        Eligibility::Workable,
        Eligibility::Workable,
    ]);
    let state = prop::sample::select(vec![
        NodeState::Waiting,
        NodeState::Pulling,
        NodeState::Ready,
        NodeState::Failed,
        NodeState::Purging,
        NodeState::Purged,
    ]);
    let revision = || prop::sample::select(vec!["web-1", "web-2"]);
    let claim = prop::option::weighted(
        0.9,
        (
            revision(),
            0_i64..200,
            any::<bool>(),
            prop::option::of(0_i64..200),
        ),
    );
    let reports = prop::option::weighted(0.8, (revision(), state, prop::option::of(0_i64..200)));
    (eligibility, claim, reports, any::<bool>()).prop_map(|(eligibility, claim, reports, fails)| {
        let mut place = Place::new("n").is(eligibility);
        let Some((claimed, minutes, present, verify)) = claim else {
            return place;
        };
        if let Some((revision, state, checked)) = reports {
            place = place.claims(revision, minutes).reports(state);
            place.on_node.as_mut().unwrap().checked_at = checked.map(|m| Time(at(m)));
        }
        place = place.claims(claimed, minutes);
        let claim = place.claim.as_mut().unwrap();
        claim.verify_after = verify.map(|m| Time(at(m)));
        if !present {
            claim.desired = Desired::Absent;
        }
        if fails {
            place.image(NGINX, ImageState::Failed, Some(Reason::NotFound), "words")
        } else {
            place
        }
    })
}

prop_compose! {
    fn any_world()(
        mut places in prop::collection::vec(any_place(), 0..12),
        now in 0_i64..400,
        (suspend, resolving, revised, purged, refreshing) in any::<(bool, bool, bool, bool, bool)>(),
    ) -> World {
        for (i, place) in places.iter_mut().enumerate() {
            place.facts.name = format!("n{i}");
        }
        let mut w = World::with(places);
        w.now = at(now);
        w.cache.spec.suspend = suspend;
        w.resolving = resolving;
        if !revised {
            w.revision = None;
        }
        w.previous.last_purge = purged.then(purge);
        w.previous.last_refresh = refreshing.then(|| larder_api::image_cache_status::RefreshStatus {
            token: "T1".into(),
            requested_at: Some(MicroTime(at(100))),
            ..Default::default()
        });
        w
    }
}

proptest! {
    #[test]
    fn a_report_on_its_own_result_changes_nothing(w in any_world(), later in 0_i64..60) {
        let first = w.report();
        let mut again = w.clone();
        again.previous = first.clone();
        // Written and read back.
        let json = serde_json::to_string(&first).unwrap();
        again.previous = serde_json::from_str(&json).unwrap();
        let second = again.report();
        // A refresh that was just finished shows in Ready from the same report on.
        prop_assert_eq!(&second, &first);
        // Nor does time, before the moment at which it says that it will.
        let until = next_wake(&w.input()).unwrap_or(at(1000));
        again.now = at((w.now.as_second() / 60) + later).min(until - jiff::SignedDuration::from_secs(1)).max(w.now);
        prop_assert_eq!(again.report(), first);
    }

    #[test]
    fn the_order_of_nodes_is_of_no_account(w in any_world()) {
        let mut turned = w.input();
        turned.nodes.reverse();
        prop_assert_eq!(report(&turned), w.report());
    }

    #[test]
    fn counts_add_up(w in any_world()) {
        let s = w.report();
        let by_state = |state: NodeState| s.node_statuses.iter().filter(|n| n.state == state).count() as i32;
        prop_assert_eq!(s.nodes.selected, s.node_statuses.len() as i32);
        let rest = by_state(NodeState::Ready) + by_state(NodeState::Purged);
        prop_assert_eq!(
            s.nodes.progressing + s.nodes.failed + s.nodes.waiting + s.nodes.unreachable + rest,
            s.nodes.selected
        );
        prop_assert!(s.nodes.updated <= s.nodes.ready && s.nodes.ready <= s.nodes.selected);
        prop_assert_eq!(s.conditions.len(), 5);
    }

    #[test]
    fn ready_is_never_claimed_for_what_a_workable_node_does_not_hold(w in any_world()) {
        let ready = w.verdict("Ready");
        if ready == "True/AllNodesReady" {
            for place in w.places.iter().filter(|p| p.eligibility == Eligibility::Workable) {
                let claim = place.claim.as_ref().unwrap();
                prop_assert!(claim.desired == Desired::Present && claim.revision == "web-2");
                let on_node = place.on_node.as_ref().unwrap();
                prop_assert!(on_node.state == NodeState::Ready && on_node.revision == "web-2");
            }
        }
    }
}

#[test]
fn five_thousand_failing_nodes() {
    let words =
        "unexpected status from HEAD request to https://registry.example.com/v2/team/x/manifests/1: 503";
    let mut w = world();
    w.places = (0..5000)
        .map(|i| {
            Place::new(&format!(
                "node-{i:04}.a-rather-long-domain-of-a-cluster.example.com"
            ))
            .claims("web-2", 0)
            .fails(NGINX, Reason::RegistryUnreachable, words)
            .image(
                "docker.io/library/redis:7",
                ImageState::Failed,
                Some(Reason::NotFound),
                words,
            )
            .edit(|o| o.message = words.repeat(3))
        })
        .collect();
    let full = w.report();
    assert_eq!(
        (full.nodes.selected, full.nodes.failed, full.node_statuses.len()),
        (5000, 5000, 5000)
    );
    assert_eq!(
        full.failures.iter().map(|f| f.nodes).collect::<Vec<_>>(),
        [5000, 5000]
    );
    let trimmed = trim(full);
    assert!(serde_json::to_vec(&trimmed).unwrap().len() <= BUDGET);
    assert_eq!(
        trimmed.node_statuses.len() + trimmed.node_statuses_omitted as usize,
        5000
    );
    // The next report on what was written is the same: nothing is written again.
    w.previous = trimmed.clone();
    assert_eq!(trim(w.report()), trimmed);
}
