//! What holds for every node and every list of entries.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;

/// Repositories, tags and targets are few, so that everything meets everything.
fn any_reference() -> impl Strategy<Value = String> {
    (0..3_usize, 0..3_u8, 0..6_u8).prop_map(|(repository, tag, target)| {
        let repository = ["web", "docker.io/library/web", APP][repository];
        match tag {
            0 => format!("{repository}@{}", digest(target)),
            tag => format!("{repository}:{tag}"),
        }
    })
}

fn any_node() -> impl Strategy<Value = Node> {
    let pull = (prop::bool::ANY, 0..3_u8, 0..6_u8, 0..4_i64);
    (
        prop::collection::vec(pull, 0..8),
        prop::collection::vec(0..6_u8, 0..2),
    )
        .prop_map(|(pulls, running)| {
            let mut node = Node::default();
            for (web, tag, target, hours) in pulls {
                let tag = (tag > 0).then(|| tag.to_string());
                node = node.pull(if web { WEB } else { APP }, tag.as_deref(), target, hours * HOUR);
            }
            running.into_iter().fold(node, Node::run)
        })
}

fn any_entries() -> impl Strategy<Value = Vec<PurgeEntry>> {
    let one = (
        any_reference(),
        prop::option::of(0..6_u8),
        0..4_i64,
        prop::bool::weighted(0.2),
    );
    let entry = one.prop_map(|(reference, target, hours, all)| PurgeEntry {
        reference,
        digest: target.map(digest),
        claimed_at: at(hours * HOUR),
        all,
    });
    prop::collection::vec(entry, 0..6)
}

fn normalized(reference: &str) -> String {
    crate::image_ref::ImageRef::parse(reference)
        .unwrap()
        .normalized()
        .to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nothing_used_foreign_kept_or_unasked_goes(
        before in any_node(),
        entries in any_entries(),
        keep in prop::collection::vec(any_reference(), 0..2),
    ) {
        let keep: Vec<ImageRef> = keep.iter().map(|k| ImageRef::parse(k).unwrap()).collect();
        let mut after = before.clone();
        after.carry_out(&decide(&entries, &keep, &before.contents()));
        let earliest = entries.iter().map(|e| e.claimed_at - SignedDuration::from_secs(60)).min();
        for gone in before.records.iter().filter(|r| !after.records.contains(r)) {
            let id = before.id(gone);
            prop_assert!(keep.iter().all(|k| k.normalized() != gone.name), "{} was to be kept", gone.name);
            prop_assert!(!before.containers.iter().any(|c| c.image.contains(&id)), "{} was used", gone.name);
            let came = before.records.iter().find(|r| r.name == id).unwrap().created_at;
            let foreign = came.unwrap() < earliest.unwrap();
            prop_assert!(!foreign || entries.iter().any(|e| e.all), "{} was foreign", gone.name);
            let left = after.records.iter().any(|r| after.id(r) == id);
            if gone.name == id {
                prop_assert!(!left, "the id of {:?} went before its names", gone.name);
            } else if gone.name.contains('@') {
                let repository = gone.name.split('@').next().unwrap();
                prop_assert!(entries.iter().any(|e| normalized(&e.reference).starts_with(repository)));
                let tags = after.records.iter().any(|r| r.name.starts_with(&format!("{repository}:")) && r.target == gone.target);
                prop_assert!(!tags, "{} went from under a tag", gone.name);
            } else {
                let asked = entries.iter().any(|e| normalized(&e.reference) == gone.name);
                prop_assert!(asked, "nobody asked to remove {}", gone.name);
            }
        }
    }

    #[test]
    fn done_once_it_is_done(before in any_node(), entries in any_entries()) {
        let mut after = before.clone();
        let first = decide(&entries, &[], &before.contents());
        after.carry_out(&first);
        let second = decide(&entries, &[], &after.contents());
        prop_assert_eq!(&second.steps, &[]);
        for (was, is) in outcomes(&first).into_iter().zip(outcomes(&second)) {
            let fits = match was {
                Outcome::Removed => is == Outcome::Absent,
                Outcome::Shared => matches!(is, Outcome::Shared | Outcome::Absent),
                // Foreign to one entry, but another one, of an earlier claim or of all, took it.
                Outcome::Foreign => matches!(is, Outcome::Foreign | Outcome::Absent),
                other => is == other,
            };
            prop_assert!(fits, "{:?} became {:?}", was, is);
        }
    }

    #[test]
    fn whatever_the_order(
        (node, entries, mixed, records) in (any_node(), any_entries()).prop_flat_map(|(node, entries)| {
            let numbered: Vec<_> = entries.iter().cloned().enumerate().collect();
            let records = Just(node.records.clone()).prop_shuffle();
            (Just(node), Just(entries), Just(numbered).prop_shuffle(), records)
        })
    ) {
        let plan = decide(&entries, &[], &node.contents());
        let shuffled = Node { records, ..node };
        let order: Vec<usize> = mixed.iter().map(|(i, _)| *i).collect();
        let mixed: Vec<PurgeEntry> = mixed.into_iter().map(|(_, e)| e).collect();
        let mut again = decide(&mixed, &[], &shuffled.contents());
        for step in &mut again.steps {
            step.entries = step.entries.iter().map(|i| order[*i]).collect();
            step.entries.sort_unstable();
        }
        prop_assert_eq!(again.steps, plan.steps);
        for (place, i) in order.into_iter().enumerate() {
            prop_assert_eq!(&again.outcomes[place], &plan.outcomes[i]);
        }
    }

    #[test]
    fn through_cri_alone_only_whole_images_that_all_was_said_of_go(node in any_node(), entries in any_entries()) {
        let plan = decide(&entries, &[], &node.cri_only());
        for step in &plan.steps {
            prop_assert_eq!(&step.act, &RemovalAct::RemoveImage);
            prop_assert!(step.entries.iter().any(|i| entries[*i].all));
            prop_assert!(!node.containers.iter().any(|c| c.image.contains(&step.image)));
            let others = node.records.iter().filter(|r| node.id(r) == step.image && r.name.contains(':') && !r.name.contains('@') && r.name != step.image);
            for tag in others {
                prop_assert!(entries.iter().any(|e| normalized(&e.reference) == tag.name), "{} goes unnoticed", tag.name);
            }
        }
    }
}
