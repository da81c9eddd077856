#![allow(clippy::unwrap_used)]

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use super::*;

fn object(name: &str, uid: &str, version: u64, group: &str) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.namespace = Some("ns".into());
    object.metadata.name = Some(name.into());
    object.metadata.uid = Some(uid.into());
    object.metadata.resource_version = Some(version.to_string());
    object.labels_mut().insert("group".into(), group.into());
    object
}

fn store() -> Store<ConfigMap> {
    Store::new(|o| o.labels().get("group").cloned().into_iter().collect())
}

fn version(store: &Store<ConfigMap>, name: &str) -> Option<String> {
    store.get("ns", name)?.resource_version()
}

#[test]
fn older_news_is_no_news() {
    let s = store();
    assert!(s.apply(object("a", "u", 5, "x")).is_some());
    assert!(s.apply(object("a", "u", 5, "x")).is_none());
    assert!(s.apply(object("a", "u", 4, "x")).is_none());
    assert!(
        s.apply(object("a", "u", 10, "x")).is_some(),
        "versions are numbers, not texts"
    );
    assert_eq!(version(&s, "a").as_deref(), Some("10"));
}

#[test]
fn an_object_made_anew_is_not_confused_with_the_one_before() {
    let s = store();
    s.apply(object("a", "old", 5, "x"));
    assert!(s.apply(object("a", "new", 8, "x")).is_some());
    assert!(
        s.remove(&object("a", "old", 7, "x")).is_none(),
        "late news of the old one's end"
    );
    assert!(s.apply(object("a", "old", 6, "x")).is_none());
    assert_eq!(version(&s, "a").as_deref(), Some("8"));
}

#[test]
fn a_late_answer_does_not_bring_back_what_is_gone() {
    let s = store();
    s.apply(object("a", "u", 5, "x"));
    assert!(s.remove(&object("a", "u", 6, "x")).is_some());
    assert!(s.apply(object("a", "u", 7, "x")).is_none());
    assert!(s.apply(object("b", "other", 7, "x")).is_some());
}

#[test]
fn what_we_asked_to_be_deleted_stays_so_until_it_is_gone() {
    let s = store();
    s.apply(object("a", "u", 5, "x"));
    assert!(
        s.mark_deleting("ns", "a", "wrong", Time(jiff::Timestamp::UNIX_EPOCH))
            .is_none()
    );
    assert!(
        s.mark_deleting("ns", "a", "u", Time(jiff::Timestamp::UNIX_EPOCH))
            .is_some()
    );
    assert!(
        s.mark_deleting("ns", "a", "u", Time(jiff::Timestamp::UNIX_EPOCH))
            .is_none()
    );
    s.apply(object("a", "u", 6, "x"));
    assert!(
        s.get("ns", "a").unwrap().metadata.deletion_timestamp.is_some(),
        "a late watch does not undo it"
    );
    assert!(s.gone("ns", "a", "u").is_some());
    s.apply(object("a", "next", 9, "x"));
    assert!(s.get("ns", "a").unwrap().metadata.deletion_timestamp.is_none());
}

#[test]
fn lists_take_away_what_is_missing_but_not_what_was_made_meanwhile() {
    let s = store();
    s.apply(object("gone", "1", 1, "x"));
    s.apply(object("same", "2", 2, "x"));
    s.apply(object("newer", "3", 3, "x"));
    assert!(!s.listed());
    s.list_begins();
    s.apply(object("ours", "4", 9, "x"));
    s.apply(object("newer", "3", 8, "x"));
    assert!(s.list_item(object("same", "2", 2, "x")).is_none());
    assert!(
        s.list_item(object("newer", "3", 3, "x")).is_none(),
        "we wrote it since"
    );
    let gone = s.list_ends();
    assert_eq!(gone.len(), 1);
    assert!(gone[0].new.is_none() && gone[0].old.as_ref().unwrap().name_any() == "gone");
    assert!(s.listed());
    assert_eq!(version(&s, "ours").as_deref(), Some("9"));
    assert_eq!(version(&s, "newer").as_deref(), Some("8"));
    s.list_begins();
    assert!(
        s.list_item(object("newer", "3", 1, "x")).is_some(),
        "after a restore versions may be lower"
    );
    assert_eq!(s.list_ends().len(), 2);
}

#[test]
fn the_index_follows() {
    let s = store();
    s.apply(object("a", "1", 1, "x"));
    s.apply(object("b", "2", 2, "x"));
    s.apply(object("a", "1", 3, "y"));
    assert_eq!(s.indexed("x").len(), 1);
    assert_eq!(s.indexed("y")[0].name_any(), "a");
    s.remove(&object("b", "2", 4, "x"));
    assert!(s.indexed("x").is_empty());
}
