use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::{ImageEntry, PullSecret};
use larder_api::revision::{PlatformManifest, RevisionBody};
use larder_api::{ImageCacheRevision, ImageCacheRevisionSpec, ImageCacheSpec};
use proptest::prelude::*;

use super::{Resolved, build, changed, hash, matches_spec, moved, name, newest, prunable, same_identity};
use crate::images::{WantedImages, wanted};

fn images(list: &[&str]) -> WantedImages {
    let images = list
        .iter()
        .map(|i| ImageEntry {
            image: (*i).to_owned(),
            priority: 0,
        })
        .collect();
    wanted(&ImageCacheSpec {
        images,
        ..ImageCacheSpec::default()
    })
}

fn digest(n: u8) -> String {
    format!("sha256:{n:064x}")
}

fn secret(name: &str) -> PullSecret {
    PullSecret {
        name: name.to_owned(),
    }
}

fn resolved(list: &[(&str, u8)]) -> BTreeMap<String, Resolved> {
    list.iter()
        .map(|(image, n)| {
            (
                (*image).to_owned(),
                Resolved {
                    digest: Some(digest(*n)),
                    ..Resolved::default()
                },
            )
        })
        .collect()
}

fn at(minutes: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
}

fn revision(name: &str, number: i64, created: i64) -> ImageCacheRevision {
    let mut revision = ImageCacheRevision::new(
        name,
        RevisionBody {
            number,
            spec: ImageCacheRevisionSpec::default(),
        },
    );
    revision.metadata.creation_timestamp = Some(Time(at(created)));
    revision
}

#[test]
fn a_revision_is_sorted_and_knows_what_was_resolved() {
    let own = format!("r.example/by-digest@{}", digest(9));
    let platform = PlatformManifest {
        os: "linux".into(),
        size_bytes: 5,
        ..PlatformManifest::default()
    };
    let mut known = resolved(&[("docker.io/library/nginx:latest", 1)]);
    known.insert(
        "r.example/many:1".into(),
        Resolved {
            digest: Some(digest(2)),
            platforms: vec![platform; 30],
            private: true,
        },
    );
    let spec = build(
        &images(&["r.example/unknown:1", "nginx", &own, "r.example/many:1"]),
        &known,
        &[secret("b"), secret("a"), secret("b")],
    );
    let seen: Vec<_> = spec
        .images
        .iter()
        .map(|i| (i.image.as_str(), i.digest.clone(), i.private, i.platforms.len()))
        .collect();
    assert_eq!(
        seen,
        [
            ("docker.io/library/nginx:latest", Some(digest(1)), false, 0),
            (own.as_str(), Some(digest(9)), true, 0),
            ("r.example/many:1", Some(digest(2)), true, 20),
            ("r.example/unknown:1", None, true, 0),
        ]
    );
    assert_eq!(spec.pull_secrets, [secret("a"), secret("b")]);
}

#[test]
fn identity_is_references_digests_priorities_and_secrets() {
    let base = build(
        &images(&["nginx", "redis:7"]),
        &resolved(&[("docker.io/library/redis:7", 1)]),
        &[secret("a")],
    );
    let differs = |change: &dyn Fn(&mut ImageCacheRevisionSpec)| {
        let mut other = base.clone();
        change(&mut other);
        assert_eq!(same_identity(&base, &other), hash(&base) == hash(&other));
        !same_identity(&base, &other)
    };
    assert!(differs(
        &|s| s.images[0].image = "docker.io/library/nginx:1".into()
    ));
    assert!(differs(&|s| s.images[0].digest = Some(digest(1))));
    assert!(differs(&|s| s.images[1].digest = None));
    assert!(differs(&|s| s.images[1].priority = 1));
    assert!(differs(&|s| {
        s.images.pop();
    }));
    assert!(differs(&|s| s.pull_secrets[0].name = "b".into()));
    assert!(differs(&|s| s.pull_secrets.clear()));
    assert!(!differs(&|s| s.images[0].private = !s.images[0].private));
    assert!(!differs(&|s| s.images[0]
        .platforms
        .push(PlatformManifest::default())));
    assert!(!differs(&|s| s.images.reverse()));
}

#[test]
fn a_secret_is_no_image() {
    let a = ImageCacheRevisionSpec {
        pull_secrets: vec![secret("x"), secret("y"), secret("z")],
        ..ImageCacheRevisionSpec::default()
    };
    let mut b = build(&images(&["nginx"]), &BTreeMap::new(), &[]);
    b.images[0].image = "x".into();
    assert_ne!(hash(&a), hash(&b));
}

#[test]
fn names_fit_into_63_characters() {
    assert_eq!(name("web", "2456789bcdfgh", 0), "web-2456789bcdfgh");
    assert_eq!(name("web", "2456789bcdfgh", 2), "web-2456789bcdfgh-2");
    let long = "a".repeat(49);
    assert_eq!(name(&long, "2456789bcdfgh", 0).len(), 63);
    assert_eq!(name(&long, "2456789bcdfgh", 3).len(), 63);
    let dotted = format!("{}.bc", "a".repeat(46));
    assert_eq!(
        name(&dotted, "2456789bcdfgh", 12),
        format!("{}-2456789bcdfgh-12", "a".repeat(46))
    );
}

#[test]
fn digests_are_not_part_of_the_spec() {
    let asked = images(&["nginx", "redis:7"]);
    let made = build(
        &asked,
        &resolved(&[("docker.io/library/redis:7", 1)]),
        &[secret("a")],
    );
    assert!(matches_spec(&made, &asked, &[secret("a"), secret("a")]));
    assert!(!matches_spec(&made, &asked, &[]));
    assert!(!matches_spec(&made, &images(&["nginx"]), &[secret("a")]));
    let mut raised = asked.clone();
    raised.images[0].priority = 3;
    assert!(!matches_spec(&made, &raised, &[secret("a")]));
}

#[test]
fn changed_counts_digests_that_moved() {
    let all = images(&["a:1", "b:1", "c:1"]);
    let key = |n: &str| format!("docker.io/library/{n}:1");
    let old = build(&all, &resolved(&[(&key("a"), 1), (&key("b"), 1)]), &[]);
    let new = build(
        &all,
        &resolved(&[(&key("a"), 2), (&key("b"), 1), (&key("c"), 1)]),
        &[],
    );
    assert_eq!(changed(&old, &new), 1);
    assert_eq!(changed(&new, &old), 1);
    assert_eq!(changed(&old, &old), 0);
    let digest = |spec: &ImageCacheRevisionSpec| spec.images[0].digest.clone().unwrap();
    let found = moved(&old, &new).remove(0);
    assert_eq!(
        (found.image, found.from, found.to),
        (key("a"), digest(&old), digest(&new))
    );
}

#[test]
fn the_newest_has_the_highest_number_and_stays() {
    let mut all: Vec<_> = (1..=6).map(|n| revision(&format!("r{n}"), n, 0)).collect();
    all[5].metadata.deletion_timestamp = Some(Time(at(1)));
    let refs: Vec<_> = all.iter().collect();
    assert_eq!(newest(&refs).unwrap().metadata.name.as_deref(), Some("r5"));
    assert_eq!(newest(&[]), None);
    assert_eq!(prunable(&refs, &BTreeSet::new(), at(11)), ["r1", "r2"]);
    assert_eq!(
        prunable(&refs, &BTreeSet::from(["r1".to_owned()]), at(11)),
        ["r2"]
    );
    assert_eq!(prunable(&refs, &BTreeSet::new(), at(10)), Vec::<String>::new());
}

proptest! {
    #[test]
    fn pruning_keeps_what_is_needed(
        list in prop::collection::vec((1_i64..20, 0_i64..30, any::<bool>(), any::<bool>()), 0..12),
        now in 0_i64..40,
    ) {
        let all: Vec<_> = list.iter().enumerate().map(|(i, (number, created, deleting, _))| {
            let mut r = revision(&format!("r{i}"), *number, *created);
            r.metadata.deletion_timestamp = deleting.then(|| Time(at(0)));
            r
        }).collect();
        let refs: Vec<_> = all.iter().collect();
        let referenced: BTreeSet<String> =
            list.iter().enumerate().filter(|(_, l)| l.3).map(|(i, _)| format!("r{i}")).collect();
        let gone = prunable(&refs, &referenced, at(now));
        let alive = all.iter().filter(|r| r.metadata.deletion_timestamp.is_none()).count();
        prop_assert!(gone.is_empty() || alive - gone.len() >= 3);
        let first = newest(&refs).and_then(|r| r.metadata.name.clone());
        for name in &gone {
            prop_assert!(!referenced.contains(name) && first.as_ref() != Some(name));
            let i: usize = name[1..].parse().unwrap();
            prop_assert!(now - list[i].1 > 10 && !list[i].2);
        }
        let mut turned = refs.clone();
        turned.reverse();
        prop_assert_eq!(prunable(&turned, &referenced, at(now)), gone);
    }
}

#[test]
fn sources_are_a_part_of_what_a_revision_is_and_without_them_it_is_what_it_was() {
    let plain = build(
        &images(&["nginx:1", "redis:7"]),
        &BTreeMap::new(),
        &[secret("regcred")],
    );
    // A name that is in clusters already.
    assert_eq!(hash(&plain), "7h4kpknkzs2cr");
    let mut of_one = plain.clone();
    of_one.images[0].sources = vec!["apps".into()];
    let mut of_two = plain.clone();
    of_two.images[0].sources = vec!["apps".into(), "pods".into()];
    let mut of_other = plain.clone();
    of_other.images[1].sources = vec!["apps".into()];
    let all = [plain, of_one, of_two, of_other];
    let hashes: BTreeSet<String> = all.iter().map(hash).collect();
    assert_eq!(hashes.len(), all.len());
    for (i, a) in all.iter().enumerate() {
        for (j, b) in all.iter().enumerate() {
            assert_eq!(same_identity(a, b), i == j);
        }
    }
    assert!(!matches_spec(
        &all[1],
        &images(&["nginx:1", "redis:7"]),
        &[secret("regcred")]
    ));
}
