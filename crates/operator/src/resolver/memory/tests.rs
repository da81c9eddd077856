#![allow(clippy::unwrap_used)]

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn why(reason: Reason, minutes: Option<u64>) -> Why {
    Why {
        reason,
        message: "no".into(),
        retry_after: minutes.map(Duration::from_mins),
        public: false,
    }
}

fn digest(outcome: Option<Outcome>) -> Option<String> {
    match outcome {
        Some(Outcome::Known(known)) => Some(known.digest),
        _ => None,
    }
}

#[test]
fn public_results_serve_all_and_private_ones_only_who_showed_the_same_credentials() {
    let mut m = Memory::default();
    m.learn("a", "x", "sha256:1", false, at(10));
    assert_eq!(
        digest(m.recall("a", "", Some(at(10)), &[], at(20))).as_deref(),
        Some("sha256:1")
    );
    assert_eq!(
        digest(m.recall("a", "y", Some(at(10)), &[], at(20))).as_deref(),
        Some("sha256:1")
    );
    m.learn("a", "x", "sha256:2", true, at(30));
    assert_eq!(
        digest(m.recall("a", "x", Some(at(10)), &[], at(40))).as_deref(),
        Some("sha256:2")
    );
    assert_eq!(m.recall("a", "y", Some(at(10)), &[], at(40)), None);
    assert_eq!(m.recall("a", "", Some(at(10)), &[], at(40)), None);
    assert!(m.was_private("a", "x") && !m.was_private("a", ""));
}

#[test]
fn an_answer_to_others_is_none_unless_it_is_public() {
    let mut m = Memory::default();
    m.learn("a", "x", "sha256:1", true, at(10));
    let answered = |m: &Memory, fingerprint| m.answered("a", fingerprint, at(10));
    assert!(answered(&m, "x") && !answered(&m, "y") && !answered(&m, ""));
    assert!(!m.answered("a", "x", at(11)));
    m.learn("a", "x", "sha256:1", false, at(20));
    assert!(answered(&m, "y") && answered(&m, ""));
}

#[test]
fn a_refresh_asks_for_newer_results_but_never_for_the_future() {
    let mut m = Memory::default();
    m.learn("a", "", "sha256:1", false, at(10));
    assert_eq!(m.recall("a", "", Some(at(11)), &[], at(20)), None);
    m.learn("a", "", "sha256:1", false, at(20));
    assert!(
        m.recall("a", "", Some(at(5000)), &[], at(20)).is_some(),
        "a clock that was ahead"
    );
    assert!(m.recall("a", "", None, &[], at(320)).is_some());
    assert!(
        m.recall("a", "", None, &[], at(321)).is_none(),
        "too old to be passed on"
    );
    m.moved("a", at(30));
    assert_eq!(m.recall("a", "", None, &[], at(40)), None);
    m.learn("a", "", "sha256:2", false, at(40));
    assert_eq!(
        digest(m.recall("a", "", None, &[], at(40))).as_deref(),
        Some("sha256:2")
    );
}

#[test]
fn moves_are_told_to_those_who_name_the_reference() {
    let mut m = Memory::default();
    m.learn("a", "", "sha256:1", false, at(10));
    assert_eq!(m.take_changed(), BTreeSet::from(["a".to_owned()]));
    m.learn("a", "", "sha256:1", false, at(20));
    assert!(m.take_changed().is_empty());
    m.learn("a", "", "sha256:2", false, at(30));
    assert_eq!(m.take_changed().len(), 1);
    assert!(m.differs("a", "sha256:1", at(25)));
    assert!(
        !m.differs("a", "sha256:1", at(30)),
        "what was made later knows better"
    );
    assert!(!m.differs("a", "sha256:2", at(25)));
}

#[test]
fn failures_are_remembered_with_growing_delays() {
    let mut m = Memory::default();
    let mut now = at(0);
    let mut delays = Vec::new();
    for _ in 0..11 {
        m.fail("a", "x", why(Reason::NotFound, None), now, now);
        let Some(Outcome::Failed(f)) = m.recall("a", "x", None, &[], now) else {
            panic!("remembered")
        };
        delays.push(f.retry_at.duration_since(now).as_secs());
        assert_eq!(
            m.recall("a", "x", None, &[], f.retry_at),
            None,
            "asked again then"
        );
        assert_eq!(
            m.recall("a", "y", None, &[], now),
            None,
            "other credentials may do"
        );
        now = f.retry_at;
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    m.learn("a", "x", "sha256:1", true, now);
    m.fail("a", "x", why(Reason::RateLimited, Some(10)), now, now);
    let refresh = now.checked_add(Duration::from_secs(1)).unwrap();
    let Some(Outcome::Known(_)) = m.recall("a", "x", None, &[], now) else {
        panic!("the old result still does")
    };
    assert_eq!(
        m.recall("a", "x", Some(refresh), &[], refresh),
        None,
        "a refresh asks in spite of the delay"
    );
    let Some(Outcome::Failed(f)) = m.recall("b", "", None, &[], now).or_else(|| {
        m.fail("b", "", why(Reason::RateLimited, Some(10)), now, now);
        m.recall("b", "", None, &[], now)
    }) else {
        panic!("failed")
    };
    assert_eq!(f.retry_at.duration_since(now).as_secs(), 600);
}

#[test]
fn manifests_are_asked_for_once_for_each_platform() {
    let amd = Platform::new("linux", "amd64");
    let arm = Platform::new("linux", "arm64");
    let manifest = |arch: &str, variant: Option<&str>| PlatformManifest {
        os: "linux".into(),
        architecture: arch.into(),
        variant: variant.map(Into::into),
        digest: format!("sha256:{arch}"),
        size_bytes: 1,
    };
    let mut m = Memory::default();
    m.learn("a", "", "sha256:1", false, at(10));
    assert_eq!(m.recall("a", "", None, std::slice::from_ref(&amd), at(20)), None);
    m.learn_manifests("sha256:1", std::slice::from_ref(&amd), vec![]);
    assert!(
        m.missing("sha256:1", std::slice::from_ref(&amd)).is_empty(),
        "asked, and there is none"
    );
    let both = [amd, arm.clone()];
    assert_eq!(m.missing("sha256:1", &both), [arm]);
    m.learn_manifests("sha256:1", &[], vec![manifest("arm64", Some("v8"))]);
    assert!(m.missing("sha256:1", &both).is_empty(), "known from a revision");
}

#[test]
fn what_nobody_names_is_forgotten() {
    let mut m = Memory::default();
    for r in ["a", "b"] {
        m.learn(r, "", &format!("sha256:{r}"), false, at(1));
        m.learn_manifests(&format!("sha256:{r}"), &[], vec![]);
        m.fail(r, "x", why(Reason::NotFound, None), at(1), at(1));
    }
    m.learn_manifests("sha256:named", &[], vec![]);
    m.retain(
        &BTreeSet::from(["a".into()]),
        &BTreeSet::from(["sha256:named".into()]),
    );
    assert!(m.recall("a", "", None, &[], at(2)).is_some());
    assert!(m.recall("b", "", None, &[], at(2)).is_none());
    assert_eq!(m.manifests.len(), 2);
    assert_eq!(m.failed.len(), 1);
}
