#![allow(clippy::unwrap_used)]

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3600;

fn digest(n: u8) -> String {
    format!("sha256:{}", format!("{n:02x}").repeat(32))
}

/// The image ids are 0xc0…; two targets, 1 and 2, are an index and its own manifest: one image.
fn config_of(target: u8) -> u8 {
    0xc0 + target.div_ceil(2)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

/// A node with containerd, as pulls leave it.
#[derive(Clone, Debug, Default)]
struct Node {
    records: Vec<HeldRecord>,
    pinned: Vec<u8>,
    containers: Vec<HeldContainer>,
    configs: Vec<(String, u8)>,
}

impl Node {
    fn put(&mut self, name: &str, target: u8, when: i64) {
        self.configs.push((digest(target), config_of(target)));
        if let Some(record) = self.records.iter_mut().find(|r| r.name == name) {
            record.target = digest(target);
        } else {
            self.records.push(HeldRecord {
                name: name.to_owned(),
                target: digest(target),
                created_at: Some(at(when)),
            });
        }
    }

    fn pull(mut self, repository: &str, tag: Option<&str>, target: u8, when: i64) -> Self {
        if let Some(tag) = tag {
            self.put(&format!("{repository}:{tag}"), target, when);
        }
        self.put(&format!("{repository}@{}", digest(target)), target, when);
        self.put(&digest(config_of(target)), target, when);
        self
    }

    fn run(mut self, target: u8) -> Self {
        let id = digest(config_of(target));
        self.containers.push(HeldContainer {
            id: "0123456789abcdef".into(),
            image: vec![id.clone(), id],
        });
        self
    }

    fn id(&self, record: &HeldRecord) -> String {
        digest(
            self.configs
                .iter()
                .find(|(target, _)| *target == record.target)
                .unwrap()
                .1,
        )
    }

    fn contents(&self) -> NodeContents {
        let mut images: Vec<HeldImage> = Vec::new();
        for record in &self.records {
            let id = self.id(record);
            if !images.iter().any(|i| i.id == id) {
                let pinned = self.pinned.iter().any(|p| digest(config_of(*p)) == id);
                images.push(HeldImage {
                    id: id.clone(),
                    names: Vec::new(),
                    pinned,
                });
            }
            let image = images.iter_mut().find(|i| i.id == id).unwrap();
            if record.name != id {
                image.names.push(record.name.clone());
            }
        }
        NodeContents {
            images,
            records: Some(self.records.clone()),
            containers: self.containers.clone(),
        }
    }

    fn cri_only(&self) -> NodeContents {
        NodeContents {
            records: None,
            ..self.contents()
        }
    }

    fn carry_out(&mut self, plan: &RemovalPlan) {
        for step in &plan.steps {
            match &step.act {
                RemovalAct::RemoveImage => {
                    let node = self.clone();
                    self.records.retain(|r| node.id(r) != step.image);
                }
                RemovalAct::DeleteRecords { records, .. } => {
                    for (name, target) in records {
                        self.records.retain(|r| r.name != *name || r.target != *target);
                    }
                }
            }
        }
    }

    fn names(&self) -> Vec<&str> {
        self.records.iter().map(|r| r.name.as_str()).collect()
    }
}

fn entry(reference: &str, target: Option<u8>) -> PurgeEntry {
    PurgeEntry {
        reference: reference.to_owned(),
        digest: target.map(digest),
        claimed_at: at(HOUR),
        all: false,
    }
}

fn all(entry: PurgeEntry) -> PurgeEntry {
    PurgeEntry { all: true, ..entry }
}

fn outcomes(plan: &RemovalPlan) -> Vec<Outcome> {
    plan.outcomes.iter().map(|o| o.outcome).collect()
}

fn purge(node: &mut Node, entries: &[PurgeEntry]) -> Vec<Outcome> {
    let plan = decide(entries, &node.contents());
    node.carry_out(&plan);
    outcomes(&plan)
}

const WEB: &str = "docker.io/library/web";
const APP: &str = "registry.example:5000/team/app";

#[test]
fn what_larder_pulled_goes_with_every_record() {
    let mut node = Node::default()
        .pull(WEB, Some("1"), 1, HOUR + 5)
        .pull(APP, Some("1"), 8, HOUR + 5);
    let plan = decide(&[entry("web:1", Some(1))], &node.contents());
    let RemovalAct::DeleteRecords { records, collect } = &plan.steps[0].act else {
        unreachable!()
    };
    assert_eq!(
        records.last().unwrap().0,
        digest(config_of(1)),
        "the id goes last"
    );
    assert!(collect);
    node.carry_out(&plan);
    assert_eq!(outcomes(&plan), [Outcome::Removed]);
    assert!(
        node.names()
            .iter()
            .all(|n| n.starts_with(APP) || *n == digest(config_of(8)))
    );
    assert_eq!(purge(&mut node, &[entry("web:1", Some(1))]), [Outcome::Absent]);
}

#[test]
fn what_was_there_before_is_foreign_unless_all_are_meant() {
    let mut node = Node::default().pull(WEB, Some("1"), 1, HOUR - 61);
    assert_eq!(purge(&mut node, &[entry("web:1", Some(1))]), [Outcome::Foreign]);
    assert_eq!(node.records.len(), 3);
    assert_eq!(
        purge(&mut node, &[all(entry("web:1", Some(1)))]),
        [Outcome::Removed]
    );
    assert!(node.records.is_empty());
    let mut node = Node::default().pull(WEB, Some("1"), 1, HOUR - 60);
    assert_eq!(
        purge(&mut node, &[entry("web:1", Some(1))]),
        [Outcome::Removed],
        "clocks may differ by a minute"
    );
}

#[test]
fn the_time_of_a_tag_record_does_not_count() {
    // The tag was there long before; a refresh of ours moved it to an image that we pulled.
    let mut node = Node::default()
        .pull(WEB, Some("1"), 1, 0)
        .pull(WEB, Some("1"), 8, HOUR + 5);
    assert_eq!(purge(&mut node, &[entry("web:1", Some(8))]), [Outcome::Removed]);
    assert_eq!(
        node.names(),
        [format!("{WEB}@{}", digest(1)), digest(config_of(1))],
        "the old image is foreign"
    );
}

#[test]
fn used_images_stay() {
    let mut node = Node::default().pull(WEB, Some("1"), 1, HOUR).run(2);
    assert_eq!(
        purge(&mut node, &[entry("web:1", Some(1))]),
        [Outcome::InUse],
        "by id, through another name"
    );
    assert_eq!(node.records.len(), 3);
    let mut pinned = Node {
        pinned: vec![1],
        ..Node::default()
    }
    .pull(WEB, Some("1"), 1, HOUR);
    assert_eq!(
        purge(&mut pinned, &[all(entry("web:1", Some(1)))]),
        [Outcome::InUse]
    );
}

#[test]
fn a_container_without_an_image_id_uses_what_its_name_means() {
    let node = Node::default()
        .pull(WEB, Some("1"), 1, HOUR)
        .pull(APP, Some("1"), 8, HOUR);
    let mut contents = node.cri_only();
    let named = |name: &str| HeldContainer {
        id: "c".into(),
        image: vec![String::new(), name.into()],
    };
    contents.containers = vec![named("web:1"), named(&format!("{APP}@{}", digest(8)))];
    let plan = decide(
        &[
            all(entry("web:1", Some(1))),
            all(entry(&format!("{APP}:1"), Some(8))),
        ],
        &contents,
    );
    assert_eq!(outcomes(&plan), [Outcome::InUse, Outcome::InUse]);
}

#[test]
fn another_name_keeps_the_content() {
    let mut node = Node::default()
        .pull(WEB, Some("1"), 1, HOUR)
        .pull(APP, Some("1"), 1, HOUR);
    let plan = decide(&[entry("web:1", Some(1))], &node.contents());
    assert_eq!(outcomes(&plan), [Outcome::Shared]);
    assert_eq!(plan.outcomes[0].message, format!("its content stays as {APP}:1"));
    node.carry_out(&plan);
    assert_eq!(
        node.names(),
        [
            digest(config_of(1)),
            format!("{APP}:1"),
            format!("{APP}@{}", digest(1)),
        ]
    );
    let again = decide(&[entry("web:1", Some(1))], &node.contents());
    assert_eq!((outcomes(&again), again.steps.len()), (vec![Outcome::Absent], 0));
    assert_eq!(
        purge(&mut node, &[entry(&format!("{APP}:1"), Some(1))]),
        [Outcome::Removed]
    );
    assert!(node.records.is_empty());
}

#[test]
fn names_asked_for_together_go_together() {
    let mut node = Node::default()
        .pull(WEB, Some("1"), 1, HOUR)
        .pull(APP, Some("1"), 2, HOUR);
    let both = [entry("web:1", Some(1)), entry(&format!("{APP}:1"), Some(2))];
    assert_eq!(purge(&mut node, &both), [Outcome::Removed, Outcome::Removed]);
    assert!(node.records.is_empty());
}

#[test]
fn a_digest_record_stays_with_another_tag_of_its_repository() {
    let mut node = Node::default()
        .pull(WEB, Some("1"), 1, HOUR)
        .pull(WEB, Some("2"), 1, HOUR);
    assert_eq!(purge(&mut node, &[entry("web:1", Some(1))]), [Outcome::Shared]);
    assert_eq!(node.names().len(), 3);
    assert!(node.names().contains(&format!("{WEB}@{}", digest(1)).as_str()));
    let by_digest = format!("web@{}", digest(1));
    let plan = decide(&[entry(&by_digest, None)], &node.contents());
    assert_eq!((outcomes(&plan), plan.steps.len()), (vec![Outcome::Shared], 0));
}

#[test]
fn pulled_by_digest_alone_it_goes_by_digest_or_by_tag_and_digest() {
    for reference in [format!("web@{}", digest(1)), format!("web:9@{}", digest(1))] {
        let mut node = Node::default().pull(WEB, None, 1, HOUR);
        assert_eq!(
            purge(&mut node, &[entry(&reference, Some(1))]),
            [Outcome::Removed]
        );
        assert!(node.records.is_empty());
    }
}

#[test]
fn a_moved_tag_is_left_and_the_old_content_goes() {
    let node = Node::default()
        .pull(WEB, Some("1"), 1, HOUR)
        .pull(WEB, Some("1"), 8, HOUR + 9);
    let mut moved = node.clone();
    assert_eq!(purge(&mut moved, &[entry("web:1", Some(1))]), [Outcome::Removed]);
    assert_eq!(
        moved.names(),
        [
            format!("{WEB}:1"),
            format!("{WEB}@{}", digest(8)),
            digest(config_of(8)),
        ]
    );
    let plan = decide(&[entry("web:1", Some(1))], &moved.contents());
    assert_eq!((outcomes(&plan), plan.steps.len()), (vec![Outcome::Absent], 0));
    assert!(plan.outcomes[0].message.contains("another image"));
    let mut unresolved = node;
    assert_eq!(
        purge(&mut unresolved, &[entry("web:1", None)]),
        [Outcome::Removed],
        "no digest: the tag decides"
    );
    assert!(!unresolved.names().contains(&format!("{WEB}:1").as_str()));
}

#[test]
fn without_record_times_only_all_removes_and_only_whole_images() {
    let node = Node::default()
        .pull(WEB, Some("1"), 1, HOUR)
        .pull(APP, Some("1"), 8, HOUR)
        .pull(APP, Some("2"), 8, HOUR);
    let entries = [entry("web:1", Some(1))];
    assert_eq!(outcomes(&decide(&entries, &node.cri_only())), [Outcome::Foreign]);
    let entries = [
        all(entry("web:1", Some(1))),
        all(entry(&format!("{APP}:1"), Some(8))),
    ];
    let plan = decide(&entries, &node.cri_only());
    assert_eq!(outcomes(&plan), [Outcome::Removed, Outcome::Shared]);
    assert_eq!(
        plan.steps,
        [RemovalStep {
            image: digest(config_of(1)),
            entries: vec![0],
            act: RemovalAct::RemoveImage,
        }]
    );
}

#[test]
fn cri_may_list_familiar_names_and_bare_ids() {
    let contents = NodeContents {
        images: vec![HeldImage {
            id: "c0ffee".into(),
            names: vec!["web:1".into()],
            pinned: false,
        }],
        records: None,
        containers: Vec::new(),
    };
    assert_eq!(
        outcomes(&decide(&[all(entry(&format!("{WEB}:1"), None))], &contents)),
        [Outcome::Removed]
    );
    let used = NodeContents {
        containers: vec![HeldContainer {
            id: "c".into(),
            image: vec!["sha256:c0ffee".into()],
        }],
        ..contents
    };
    assert_eq!(
        outcomes(&decide(&[all(entry("web:1", None))], &used)),
        [Outcome::InUse]
    );
}

#[test]
fn a_record_that_cri_does_not_list_goes_with_the_image_of_its_target() {
    // After a restart with broken content CRI lists nothing, but the records remain.
    let node = Node::default().pull(WEB, Some("1"), 1, HOUR);
    let contents = NodeContents {
        images: Vec::new(),
        ..node.contents()
    };
    let plan = decide(&[entry("web:1", Some(1))], &contents);
    assert_eq!(
        (outcomes(&plan), plan.steps[0].image.as_str()),
        (vec![Outcome::Removed], digest(config_of(1)).as_str())
    );
    let mut orphan = contents;
    orphan
        .records
        .as_mut()
        .unwrap()
        .retain(|r| r.name.starts_with(WEB));
    assert_eq!(
        outcomes(&decide(&[all(entry("web:1", Some(1)))], &orphan)),
        [Outcome::Foreign]
    );
}

#[test]
fn what_is_no_reference_is_inert() {
    let node = Node::default().pull(WEB, Some("1"), 1, HOUR);
    let plan = decide(&[all(entry("web:1; rm -rf /", None))], &node.contents());
    assert_eq!((outcomes(&plan), plan.steps.len()), (vec![Outcome::Failed], 0));
}

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
    fn nothing_used_foreign_or_unasked_goes(before in any_node(), entries in any_entries()) {
        let mut after = before.clone();
        after.carry_out(&decide(&entries, &before.contents()));
        let earliest = entries.iter().map(|e| e.claimed_at - SignedDuration::from_secs(60)).min();
        for gone in before.records.iter().filter(|r| !after.records.contains(r)) {
            let id = before.id(gone);
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
        let first = decide(&entries, &before.contents());
        after.carry_out(&first);
        let second = decide(&entries, &after.contents());
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
        let plan = decide(&entries, &node.contents());
        let shuffled = Node { records, ..node };
        let order: Vec<usize> = mixed.iter().map(|(i, _)| *i).collect();
        let mixed: Vec<PurgeEntry> = mixed.into_iter().map(|(_, e)| e).collect();
        let mut again = decide(&mixed, &shuffled.contents());
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
        let plan = decide(&entries, &node.cri_only());
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
