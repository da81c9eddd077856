#![allow(clippy::unwrap_used)]

use larder_api::image_source::{ConfigMapSource, WorkloadsSource};
use larder_api::revision::RevisionImage;
use proptest::prelude::*;

use super::*;

fn source(name: &str) -> Source {
    Source {
        name: name.into(),
        config_map: Some(ConfigMapSource::default()),
        ..Source::default()
    }
}

fn spec(removal: Removal) -> ImageCacheSpec {
    ImageCacheSpec {
        sources: vec![source("a"), source("b")],
        removal,
        ..ImageCacheSpec::default()
    }
}

fn read(name: &str, images: &[&str]) -> SourceView {
    SourceView {
        name: name.into(),
        images: Some(images.iter().map(|i| (*i).to_owned()).collect()),
        read_at: Some(Timestamp::from_second(100).unwrap()),
        ..SourceView::default()
    }
}

fn failing(name: &str) -> SourceView {
    SourceView {
        name: name.into(),
        problem: Some(Problem {
            reason: reason::UNREACHABLE.into(),
            message: "503 Service Unavailable".into(),
        }),
        incomplete: true,
        ..SourceView::default()
    }
}

/// A revision whose images have these sources.
fn revision(images: &[(&str, &[&str])]) -> ImageCacheRevisionSpec {
    let images = images.iter().map(|(image, sources)| RevisionImage {
        image: (*image).to_owned(),
        sources: sources.iter().map(|s| (*s).to_owned()).collect(),
        ..RevisionImage::default()
    });
    ImageCacheRevisionSpec {
        images: images.collect(),
        pull_secrets: Vec::new(),
    }
}

/// Images with their sources, as `image<a,b`.
fn listed(combined: &Combined) -> Vec<String> {
    let images = combined.wanted.images.iter().map(|i| {
        let sources: Vec<&str> = i.sources.iter().map(String::as_str).collect();
        format!("{}<{}", i.written, sources.join(","))
    });
    images.collect()
}

const A: &str = "r.example/a:1";
const B: &str = "r.example/b:1";
const C: &str = "r.example/c:1";
const D: &str = "r.example/d:1";

#[test]
fn a_failing_source_keeps_what_the_newest_revision_has_from_it() {
    let newest = revision(&[(A, &["a"]), (B, &["a", "b"]), (C, &["b"]), (D, &[])]);
    let views = [failing("a"), read("b", &[B])];
    let combined = combine(&spec(Removal::Purge), &views, Some(&newest), &[]);
    assert_eq!(listed(&combined), [format!("{A}<a"), format!("{B}<a,b")]);
    let [a, b] = &combined.statuses[..] else {
        panic!("one status a source")
    };
    assert_eq!((a.ready, a.reason.as_str(), a.images), (false, "Unreachable", 2));
    assert_eq!((b.ready, b.reason.as_str(), b.images), (true, "", 1));
    assert!(b.last_success_time.is_some());
}

#[test]
fn of_a_source_that_was_read_in_part_only_the_rest_is_kept() {
    let newest = revision(&[(A, &["a"]), (B, &["a"]), (C, &["a"]), (D, &["a"])]);
    let these = |images: &[&str]| images.iter().map(|i| (*i).to_owned()).collect();
    for (hides, expected, shrunk) in [
        (Hides::Any, &[A, B, C, D][..], false),
        (Hides::Only(these(&[B, C])), &[A, B, C], false),
        (Hides::AnyBut(these(&[B])), &[A, C, D], false),
        (Hides::Only(these(&[])), &[A, B, C, D], true),
    ] {
        let part = SourceView {
            images: Some(vec![A.to_owned()]),
            hides: hides.clone(),
            ..failing("a")
        };
        let views = [part, read("b", &[])];
        let combined = combine(&spec(Removal::Purge), &views, Some(&newest), &[]);
        let expected: Vec<String> = expected.iter().map(|i| format!("{i}<a")).collect();
        assert_eq!(listed(&combined), expected, "{hides:?}");
        assert_eq!(combined.shrunk.contains("a"), shrunk, "{hides:?}");
        assert!(!combined.statuses[0].ready);
    }
}

#[test]
fn after_a_restart_nothing_leaves_until_a_source_was_read() {
    let newest = revision(&[(A, &["a"]), (B, &["b"])]);
    let before = SourceStatus {
        name: "a".into(),
        ready: true,
        images: 1,
        last_success_time: Some(Time(Timestamp::UNIX_EPOCH)),
        ..SourceStatus::default()
    };
    let combined = combine(
        &spec(Removal::Retain),
        &[],
        Some(&newest),
        std::slice::from_ref(&before),
    );
    assert_eq!(listed(&combined), [format!("{A}<a"), format!("{B}<b")]);
    assert_eq!(combined.statuses[0], before);
    assert_eq!(combined.statuses[1].reason, reason::PENDING);
    assert!(!combined.is_empty_for_good());
}

#[test]
fn what_loses_more_than_half_is_believed_the_second_time_where_something_would_be_removed() {
    let newest = revision(&[(A, &["a"]), (B, &["a"]), (C, &["a"]), (D, &["a"])]);
    for (left, removal, seen_twice, expected) in [
        (&[A, B][..], Removal::Purge, false, 2),
        (&[A], Removal::Purge, false, 4),
        (&[A], Removal::PurgeAll, false, 4),
        (&[A], Removal::Purge, true, 1),
        (&[A], Removal::Retain, false, 1),
        (&[], Removal::Purge, false, 4),
        (&[], Removal::Purge, true, 0),
        // Others in the place of what is gone: nobody says that it is a mistake, nor that it is none.
        (&["r.example/e:1", "r.example/f:1"], Removal::Purge, false, 6),
    ] {
        let view = SourceView {
            seen_twice,
            ..read("a", left)
        };
        let combined = combine(&spec(removal), &[view, read("b", &[])], Some(&newest), &[]);
        assert_eq!(
            combined.wanted.images.len(),
            expected,
            "{left:?} {removal:?} {seen_twice}"
        );
        let held = expected > left.len();
        assert_eq!(combined.shrunk.contains("a"), held, "{left:?}");
        let status = &combined.statuses[0];
        assert!(status.ready);
        assert_eq!(status.reason == reason::SHRUNK, held);
        assert_eq!(combined.is_empty_for_good(), expected == 0);
    }
}

#[test]
fn what_is_excluded_is_no_loss() {
    let newest = revision(&[(A, &["a"]), (B, &["a"]), (C, &["a"])]);
    let mut spec = spec(Removal::Purge);
    spec.exclude = vec!["*/b:*".into(), "*/c:*".into()];
    let combined = combine(&spec, &[read("a", &[A, B, C]), failing("b")], Some(&newest), &[]);
    assert_eq!(listed(&combined), [format!("{A}<a")]);
    assert!(combined.shrunk.is_empty());
}

#[test]
fn broken_and_too_many_images_are_said_of_their_source() {
    let many: Vec<String> = (0..501).map(|i| format!("r.example/{i}:1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let combined = combine(
        &spec(Removal::Retain),
        &[read("a", &["A B", A]), read("b", &many)],
        None,
        &[],
    );
    let said: Vec<_> = combined
        .statuses
        .iter()
        .map(|s| (s.ready, s.reason.as_str(), s.images))
        .collect();
    assert_eq!(
        said,
        [(false, "InvalidReference", 1), (false, "TooManyImages", 499)]
    );
    assert!(combined.statuses[0].message.contains("A B"));
    assert!(combined.statuses[1].message.contains("2 of this source"));
}

#[test]
fn workloads_of_other_namespaces_are_denied() {
    let mut cache = ImageCache::new("web", spec(Removal::Retain));
    cache.metadata.namespace = Some("team".into());
    let pods = |name: &str, namespaces: &[&str]| Source {
        name: name.into(),
        workloads: Some(WorkloadsSource {
            namespaces: namespaces.iter().map(|n| (*n).to_owned()).collect(),
            ..WorkloadsSource::default()
        }),
        ..Source::default()
    };
    cache.spec.sources = vec![
        pods("all", &[]),
        pods("own", &["team"]),
        pods("more", &["team", "kube-system"]),
    ];
    let denied = denied(&cache);
    assert_eq!(denied.len(), 1);
    assert!(denied["more"].contains("kube-system"));
}

fn images() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("r\\.example/[a-h]:1", 0..8)
}

proptest! {
    /// However a source looks: what is in the newest revision from it leaves only if it was read whole without it.
    #[test]
    fn nothing_leaves_unseen(
        // A revision names each image once.
        before in prop::collection::btree_set("r\\.example/[a-h]:1", 0..8),
        said in prop::option::of(images()),
        incomplete: bool,
        only in prop::option::of(prop::collection::btree_set("r\\.example/[a-h]:1", 0..4)),
        seen_twice: bool,
        purge: bool,
    ) {
        // A revision has each image once.
        let before: BTreeSet<String> = before.into_iter().collect();
        let from_a: Vec<(&str, &[&str])> = before.iter().map(|i| (i.as_str(), &["a"][..])).collect();
        let newest = revision(&from_a);
        let view = SourceView {
            name: "a".into(),
            images: said.clone(),
            incomplete,
            hides: only.clone().map_or(Hides::Any, Hides::Only),
            seen_twice,
            ..SourceView::default()
        };
        let removal = if purge { Removal::Purge } else { Removal::Retain };
        let combined = combine(&spec(removal), std::slice::from_ref(&view), Some(&newest), &[]);
        let now: BTreeSet<&str> = combined.wanted.images.iter().map(|i| i.written.as_str()).collect();
        let before: BTreeSet<&str> = before.iter().map(String::as_str).collect();
        let said_now: BTreeSet<&str> = said.iter().flatten().map(String::as_str).collect();
        prop_assert!(said_now.is_subset(&now), "what it says is there");
        prop_assert!(now.iter().all(|i| said_now.contains(i) || before.contains(i)), "nothing is made up");
        let left = before.difference(&now).count();
        let kept = match &only {
            _ if said.is_none() => before.clone(),
            _ if !incomplete => BTreeSet::new(),
            None => before.clone(),
            Some(only) => before.iter().copied().filter(|i| only.contains(*i)).collect(),
        };
        prop_assert!(kept.is_subset(&now), "what may be hidden stays");
        if purge && !seen_twice {
            prop_assert!(left * 2 <= before.len());
        }
        // What came of it is what it stays at.
        let again = combine(&spec(removal), &[view], Some(&newest), &combined.statuses);
        prop_assert_eq!(again, combined);
    }
}
