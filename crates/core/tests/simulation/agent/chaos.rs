//! Whatever befalls a node, it ends as its claims say, and then nothing moves.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::{PrivateImages, Puller, Removal};
use larder_api::names::Reason;
use larder_api::node_image_cache::{Capability, Desired, NodeState};
use larder_api::revision::RevisionImage;
use larder_core::choose::is_for_agent;
use proptest::prelude::*;

use super::world::{Fate, World, image, is_offered};
use crate::parts::objects::{MIB, digest};

/// Something that befalls the node, with numbers to choose by.
type Event = (u8, usize, usize);

fn pick(seed: usize, repositories: usize) -> RevisionImage {
    let name = format!("app{}:1", seed % repositories);
    // Two digests for each tag, and some content under several names.
    let mut picked = image(
        &name,
        &format!("content{}", seed / 7 % 5),
        (seed % 4) as i64 * 30 * MIB,
    );
    picked.priority = (seed % 3) as i32;
    picked.private = seed.is_multiple_of(11);
    if seed % 13 == 5 {
        picked.platforms[0].architecture = "arm64".into();
    }
    if seed % 17 == 3 {
        picked.platforms.clear();
        picked.digest = None;
    }
    picked
}

fn befall(world: &mut World, (what, a, b): Event) {
    let claims = world.spec.caches.len();
    let ids: Vec<String> = world.runtime.images.keys().cloned().collect();
    let now = Time(world.now);
    let some = (!ids.is_empty()).then(|| ids[a % ids.len()].clone());
    match (what % 14, some) {
        (0, Some(id)) => {
            let stored = world.runtime.images.get(&id).unwrap();
            if !stored.used {
                world.runtime.images.remove(&id);
            }
        }
        (1, Some(id)) => world.runtime.images.get_mut(&id).unwrap().complete = false,
        (2, Some(id)) => world.runtime.images.get_mut(&id).unwrap().used ^= true,
        (3, _) => world.restart(),
        (4, _) => world.bring(&format!("app{}:1", a % 6), &format!("content{}", b % 5)),
        (5, _) => {
            let fate = match b % 3 {
                0 => Fate::Always(Reason::NotFound),
                1 => Fate::Fails(2, Reason::Timeout),
                _ => Fate::Always(Reason::NoMatchingPlatform),
            };
            world.fates.insert(format!("r.example/app{}:1", a % 6), fate);
        }
        (6, _) => world.claimed(&format!("c{}", a % claims)).desired = Desired::Absent,
        (7, _) => {
            let claim = world.claimed(&format!("c{}", a % claims));
            (claim.desired, claim.assigned_at) = (Desired::Present, now);
        }
        (8, _) => {
            let claim = world.claimed(&format!("c{}", a % claims));
            let next = format!("r{}", b % 6);
            if claim.revision != next && claim.desired == Desired::Present {
                claim.remove_revisions.retain(|r| *r != next);
                let old = std::mem::replace(&mut claim.revision, next);
                claim.remove_revisions.push(old);
                claim.assigned_at = now;
            }
        }
        (9, _) => world.runtime_error = a.is_multiple_of(2).then(|| "connection refused".to_owned()),
        (10, _) => {
            world.unreadable.clear();
            if b.is_multiple_of(2) {
                world.unreadable.insert(format!("r{}", a % 6));
            }
        }
        (11, _) => world.claimed(&format!("c{}", a % claims)).verify_after = Some(now),
        (12, _) => world.overrides(&format!("c{}", a % claims)).suspend = b.is_multiple_of(2),
        (13, _) => world.runtime.disk_total = [1 << 40, 300 * MIB as u64][a % 2],
        _ => {}
    }
}

/// Everything heals, the kubelet brings what is its own, and containers end.
fn heal(world: &mut World) {
    world.fates.clear();
    world.unreadable.clear();
    world.runtime_error = None;
    world.runtime.disk_total = 1 << 40;
    for cache in 0..world.spec.caches.len() {
        world.overrides(&format!("c{cache}")).suspend = false;
    }
    for stored in world.runtime.images.values_mut() {
        stored.used = false;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn ends_as_the_claims_say_and_then_rests(
        revisions in proptest::collection::vec(proptest::collection::btree_set(0usize..500, 1..7), 6),
        claims in proptest::collection::vec((0usize..6, 0usize..4, 0u8..6), 1..4),
        events in proptest::collection::vec((any::<u8>(), 0usize..100, 0usize..100, 0i64..90), 0..40),
        plain in any::<bool>(),
    ) {
        let mut world = World::new();
        if plain {
            world.runtime.capabilities = vec![];
        } else {
            world.runtime.capabilities = vec![Capability::Content, Capability::Pin];
        }
        for (i, seeds) in revisions.iter().enumerate() {
            let mut images: Vec<RevisionImage> = seeds.iter().map(|s| pick(*s, 6)).collect();
            images.sort_by(|a, b| a.image.cmp(&b.image));
            images.dedup_by(|a, b| a.image == b.image);
            world.revision(&format!("r{i}"), images);
        }
        for i in 0..6 {
            world.tags.insert(format!("r.example/app{i}:1"), digest("content0"));
        }
        for (i, (revision, removal, puller)) in claims.iter().enumerate() {
            let claim = world.claim(&format!("c{i}"), &format!("r{revision}"));
            claim.removal = [Removal::Retain, Removal::Purge, Removal::PurgeAll, Removal::Purge][*removal];
            claim.puller = [Puller::Auto, Puller::Agent, Puller::Job][usize::from(*puller % 3)];
            claim.private_images = [PrivateImages::Kubelet, PrivateImages::Agent][usize::from(*puller / 3)];
        }
        for (what, a, b, seconds) in events {
            world.step();
            world.pass(SignedDuration::from_secs(seconds));
            befall(&mut world, (what, a, b));
        }
        heal(&mut world);
        world.settle();
        let revisions = world.revisions.clone();
        for claim in world.spec.caches.clone() {
            let entry = world.entry(&claim.uid);
            if claim.puller == Puller::Job {
                // Jobs pull and remove.
                prop_assert!(entry.total == 0 && entry.removed_revisions.is_empty(), "{:?}", entry);
                continue;
            }
            if claim.desired == Desired::Absent {
                prop_assert_eq!(entry.state, NodeState::Purged, "{:?}", entry);
                continue;
            }
            let revision = revisions.iter().find(|r| r.metadata.name.as_deref() == Some(&claim.revision)).unwrap();
            let spec = &revision.spec.spec;
            let ours = spec.images.iter().filter(|i| is_for_agent((&claim).into(), spec, i));
            let total = ours.filter(|i| is_offered(i)).count() as i32;
            if total > 0 {
                // An image may still be left out that failed so once and was not asked for since.
                prop_assert_eq!(entry.state, NodeState::Ready, "{:?} {:?}", entry, world.status);
                prop_assert!(entry.ready + entry.skipped >= total);
            }
            let undone = claim.remove_revisions.iter().any(|r| !entry.removed_revisions.contains(r));
            prop_assert!(!undone, "{:?}", entry);
        }
        let pins = world.runtime.capabilities.contains(&Capability::Pin);
        prop_assert!(pins || world.runtime.images.values().all(|s| !s.pinned_by_us));
        let (writes, begun) = (world.writes, world.begun.len());
        world.run(60);
        prop_assert_eq!((world.writes, world.begun.len()), (writes, begun));
    }
}
