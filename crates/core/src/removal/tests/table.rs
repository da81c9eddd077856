//! Cases, each named after what it shows.

use super::*;

#[test]
fn what_larder_pulled_goes_with_every_record() {
    let mut node = Node::default()
        .pull(WEB, Some("1"), 1, HOUR + 5)
        .pull(APP, Some("1"), 8, HOUR + 5);
    let plan = decide(&[entry("web:1", Some(1))], &[], &node.contents());
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
        &[],
        &contents,
    );
    assert_eq!(outcomes(&plan), [Outcome::InUse, Outcome::InUse]);
}

#[test]
fn another_name_keeps_the_content() {
    let mut node = Node::default()
        .pull(WEB, Some("1"), 1, HOUR)
        .pull(APP, Some("1"), 1, HOUR);
    let plan = decide(&[entry("web:1", Some(1))], &[], &node.contents());
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
    let again = decide(&[entry("web:1", Some(1))], &[], &node.contents());
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
    let plan = decide(&[entry(&by_digest, None)], &[], &node.contents());
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
fn what_something_else_wants_stays_under_its_name() {
    let mut node = Node::default().pull(WEB, Some("1"), 1, HOUR);
    let by_digest = format!("{WEB}@{}", digest(1));
    let keep = [ImageRef::parse(&format!("web@{}", digest(1))).unwrap()];
    let entries = [all(entry("web:1", Some(1)))];
    assert_eq!(
        outcomes(&decide(&entries, &keep, &node.cri_only())),
        [Outcome::Shared]
    );
    let plan = decide(&entries, &keep, &node.contents());
    node.carry_out(&plan);
    assert_eq!(outcomes(&plan), [Outcome::Shared]);
    assert_eq!(node.names(), [by_digest.clone(), digest(config_of(1))]);
    assert_eq!(
        purge(&mut node, &[entry(&by_digest, Some(1))]),
        [Outcome::Removed]
    );

    let node = Node::default().pull(WEB, Some("1"), 1, HOUR);
    let plan = decide(&entries, &[ImageRef::parse("web:1").unwrap()], &node.contents());
    assert_eq!((outcomes(&plan), plan.steps.len()), (vec![Outcome::Shared], 0));
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
    let plan = decide(&[entry("web:1", Some(1))], &[], &moved.contents());
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
    assert_eq!(
        outcomes(&decide(&entries, &[], &node.cri_only())),
        [Outcome::Foreign]
    );
    let entries = [
        all(entry("web:1", Some(1))),
        all(entry(&format!("{APP}:1"), Some(8))),
    ];
    let plan = decide(&entries, &[], &node.cri_only());
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
        outcomes(&decide(&[all(entry(&format!("{WEB}:1"), None))], &[], &contents)),
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
        outcomes(&decide(&[all(entry("web:1", None))], &[], &used)),
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
    let plan = decide(&[entry("web:1", Some(1))], &[], &contents);
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
        outcomes(&decide(&[all(entry("web:1", Some(1)))], &[], &orphan)),
        [Outcome::Foreign]
    );
}

#[test]
fn what_is_no_reference_is_inert() {
    let node = Node::default().pull(WEB, Some("1"), 1, HOUR);
    let plan = decide(&[all(entry("web:1; rm -rf /", None))], &[], &node.contents());
    assert_eq!((outcomes(&plan), plan.steps.len()), (vec![Outcome::Absent], 0));
}
