//! Whatever befalls a node and whoever acts on what is no longer so: it ends as its caches say, and then nothing moves.

use std::collections::BTreeSet;

use larder_api::image_cache::{PrivateImages, Puller, Removal};
use larder_api::node_image_cache::{Desired, NodeState};
use larder_api::revision::RevisionImage;
use proptest::prelude::*;

use super::turns::Delays;
use super::world::World;
use crate::parts::objects::{MIB, image};

/// Something that befalls the node, with a number to choose by; then so many steps with what goes late in each.
type Event = (u8, usize, Vec<u16>);

const CACHES: [&str; 2] = ["one", "two"];
const PULLERS: [Puller; 3] = [Puller::Auto, Puller::Agent, Puller::Job];
const REVISIONS: usize = 4;

fn pick(seed: usize) -> RevisionImage {
    let private = seed.is_multiple_of(2);
    let host = if private {
        "private.example"
    } else {
        "open.example"
    };
    let reference = format!("{host}/app{seed}:1");
    let mut picked = image(&reference, &reference, (seed % 3) as i64 * 15 * MIB);
    picked.private = private;
    picked
}

fn befall(world: &mut World, what: u8, a: usize) {
    let name = CACHES[a % 2];
    match what % 12 {
        0 | 1 => world.purge(name, true),
        2 | 3 => world.purge(name, false),
        4 => {
            let revision = format!("r{}", a / 2 % REVISIONS);
            world.newest.insert(name.into(), revision);
        }
        5 => world.delete_cache(name),
        6 if world.cache_mut(name).is_none() => {
            let revision = format!("r{}", a / 2 % REVISIONS);
            let removal = [Removal::Purge, Removal::Retain][a / 8 % 2];
            world.cache(name, &revision, removal);
        }
        7 => {
            if let Some(cache) = world.cache_mut(name) {
                cache.spec.puller = PULLERS[a / 2 % 3];
            }
        }
        8 => {
            if let Some(cache) = world.cache_mut(name) {
                cache.spec.private_images = [PrivateImages::Kubelet, PrivateImages::Agent][a / 2 % 2];
            }
        }
        9 => world.stop_agent(),
        10 => world.start_agent(),
        11 => world.restart_agent(),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn operator_and_agent_together_end_as_the_caches_say(
        revisions in proptest::collection::vec(proptest::collection::btree_set(0usize..8, 1..6), REVISIONS),
        grace in 0u32..4,
        agent in any::<bool>(),
        events in proptest::collection::vec(
            (any::<u8>(), 0usize..48, proptest::collection::vec(any::<u16>(), 0..12)),
            0..14,
        ),
        last in any::<bool>(),
    ) {
        simulate(&revisions, grace, agent, events, last);
    }
}

fn simulate(revisions: &[BTreeSet<usize>], grace: u32, agent: bool, events: Vec<Event>, last: bool) {
    let mut world = World::new();
    world.grace = grace;
    for (i, seeds) in revisions.iter().enumerate() {
        world.revision(&format!("r{i}"), seeds.iter().map(|s| pick(*s)).collect());
    }
    world.cache("one", "r0", Removal::Purge);
    world.cache("two", "r1", Removal::Purge);
    if agent {
        world.start_agent();
    }
    play(&mut world, events);
    if last {
        world.start_agent();
    } else {
        world.stop_agent();
        for cache in &mut world.caches {
            if cache.spec.puller == Puller::Agent {
                cache.spec.puller = Puller::Auto;
            }
        }
    }
    world.settle();
    ends_as_asked(&world);
    let (versions, pods) = (world.versions.len(), world.pods_made);
    world.run(60);
    assert_eq!((world.versions.len(), world.pods_made), (versions, pods));
}

fn play(world: &mut World, events: Vec<Event>) {
    for (what, a, delays) in events {
        befall(world, what, a);
        for delays in delays {
            world.step(Delays(delays));
        }
    }
}

fn ends_as_asked(world: &World) {
    assert!(world.jobs.is_empty() && world.purges.is_empty());
    let claims = world.spec().caches;
    for cache in &world.caches {
        let name = cache.metadata.name.as_deref().unwrap();
        assert!(
            cache.metadata.deletion_timestamp.is_none(),
            "{name} is still there"
        );
        let purge = cache.status.as_ref().and_then(|s| s.last_purge.as_ref());
        let purge = purge.is_some_and(|p| p.in_force);
        let claim = claims
            .iter()
            .find(|c| Some(&c.uid) == cache.metadata.uid.as_ref());
        let Some(claim) = claim else {
            assert!(purge, "{name} is nowhere claimed");
            continue;
        };
        let view = world.view(claim).unwrap();
        if purge {
            assert_eq!((claim.desired, view.state), (Desired::Absent, NodeState::Purged));
            let gone = claim.remove_revisions.iter().chain([&claim.revision]);
            for image in gone.flat_map(|r| world.images(r)) {
                let wanted = claims
                    .iter()
                    .filter(|c| c.desired == Desired::Present)
                    .flat_map(|c| world.images(&c.revision))
                    .any(|i| i.image == image.image);
                assert!(
                    wanted || world.retains || !world.runtime.has(image),
                    "{} is still there",
                    image.image
                );
            }
        } else {
            assert_eq!(claim.revision, world.newest[name]);
            assert_eq!(view.state, NodeState::Ready, "{view:?}");
            assert!(world.is_whole(&claim.revision), "{name} is not whole");
            assert!(claim.remove_revisions.is_empty(), "{:?}", claim.remove_revisions);
        }
    }
    assert!(claims.len() <= world.caches.len());
}
