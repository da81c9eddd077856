//! What is remembered of one source that is asked. Pure: every moment is passed in.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use larder_api::image_source::Source;
use larder_core::sources::{Hides, LOOK_AGAIN, Problem, SourceView};

use super::apps::{Apps, Told};

/// First delay after a failure; doubles to [`MAX_DELAY`].
pub(super) const MIN_DELAY: SignedDuration = SignedDuration::from_secs(5);
/// Longest delay after failures.
pub(super) const MAX_DELAY: SignedDuration = SignedDuration::from_mins(5);
/// Servers may ask to be left alone for at most this long.
const MAX_RETRY_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// A source as it was last seen.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// As the spec had it when it was asked: another one has to be asked anew.
    source: Source,
    /// What it said last, in whatever state it is now.
    images: Option<Vec<String>>,
    /// What was wrong with what it said last.
    flaw: Option<Problem>,
    /// Why nothing was learned when it was last asked.
    failure: Option<Problem>,
    incomplete: bool,
    hides: Hides,
    apps: Apps,
    etag: Option<String>,
    asked_at: Option<Timestamp>,
    read_at: Option<Timestamp>,
    retry_at: Option<Timestamp>,
    /// It asked not to be asked before.
    left_alone_until: Option<Timestamp>,
    attempts: u32,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It says what it said before.
    Unchanged,
    /// It said something.
    Read {
        /// References as it spells them.
        images: Vec<String>,
        /// Something is wrong with some of it.
        flaw: Option<Problem>,
        /// What is wrong may pass, and hides images.
        incomplete: bool,
        /// By the apps of a registry, if what is wrong is wrong with apps alone.
        apps: Option<Told>,
        /// To ask whether it is still this.
        etag: Option<String>,
        /// How long what is incomplete asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// It said nothing that can be used.
    Failed {
        /// Why.
        problem: Problem,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
}

impl Entry {
    /// Of a source that was never asked.
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            ..Self::default()
        }
    }

    /// Whether it is about this source, as it is now.
    pub(super) fn is_of(&self, source: &Source) -> bool {
        self.source == *source
    }

    /// Whether it is to be asked now: it never was, not since `not_before`, a failure is to be repeated, or it lost so
    /// much, at `shrunk_since`, that it is to be seen twice. Never while it asked to be left alone.
    pub(super) fn is_due(
        &self,
        not_before: Option<Timestamp>,
        shrunk_since: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        let Some(asked_at) = self.asked_at else {
            return true;
        };
        if self.left_alone_until.is_some_and(|until| now < until) {
            return false;
        }
        let again = shrunk_since.map(|since| since + LOOK_AGAIN);
        not_before.is_some_and(|n| asked_at < n)
            || self.retry_at.is_some_and(|at| at <= now)
            || again.is_some_and(|again| asked_at < again && again <= now)
    }

    /// When time alone has it asked again.
    pub(super) fn wake_at(&self, shrunk_since: Option<Timestamp>) -> Option<Timestamp> {
        let again = shrunk_since.map(|since| since + LOOK_AGAIN);
        self.retry_at
            .or(again.filter(|again| self.asked_at.is_none_or(|asked| asked < *again)))
    }

    /// The version to compare with, as long as what it said is known.
    pub(super) fn etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|_| self.images.is_some())
    }

    /// Takes up what came of asking, begun at `asked_at`.
    pub(super) fn learn(&mut self, answer: Answer, asked_at: Timestamp, now: Timestamp) {
        self.asked_at = Some(asked_at);
        let mut later = None;
        match answer {
            Answer::Unchanged => {
                self.failure = None;
                self.incomplete = false;
                if self.flaw.is_none() {
                    self.read_at = Some(now);
                }
            }
            Answer::Read {
                images,
                flaw,
                incomplete,
                apps,
                etag,
                retry_after,
            } => {
                later = retry_after;
                self.images = Some(images);
                if flaw.is_none() {
                    self.read_at = Some(now);
                }
                self.flaw = flaw;
                self.failure = None;
                self.incomplete = incomplete;
                self.hides = apps.map_or(Hides::Any, |told| self.apps.learn(told));
                self.etag = etag.filter(|_| !incomplete);
            }
            Answer::Failed { problem, retry_after } => {
                self.failure = Some(problem);
                self.incomplete = true;
                self.hides = Hides::Any;
                self.put_off(retry_after, now);
                return;
            }
        }
        if self.incomplete {
            self.put_off(later, now);
        } else {
            self.attempts = 0;
            self.retry_at = None;
            self.left_alone_until = None;
        }
    }

    fn put_off(&mut self, retry_after: Option<Duration>, now: Timestamp) {
        let doubled = MIN_DELAY.as_secs() << self.attempts.min(16);
        let delay = SignedDuration::from_secs(doubled).min(MAX_DELAY);
        let asked = retry_after.and_then(|d| SignedDuration::try_from(d).ok());
        let asked = asked.map(|asked| asked.min(MAX_RETRY_AFTER));
        let delay = delay.max(asked.unwrap_or_default());
        self.attempts = self.attempts.saturating_add(1);
        self.left_alone_until = asked.and_then(|asked| now.checked_add(asked).ok());
        self.retry_at = now.checked_add(delay).ok();
    }

    /// As the decisions see it.
    pub(super) fn view(&self, shrunk_since: Option<Timestamp>) -> SourceView {
        let again = shrunk_since.map(|since| since + LOOK_AGAIN);
        SourceView {
            name: self.source.name.clone(),
            images: self.images.clone(),
            problem: self.failure.clone().or_else(|| self.flaw.clone()),
            incomplete: self.incomplete,
            hides: self.hides.clone(),
            seen_twice: again.is_some_and(|again| self.asked_at.is_some_and(|at| at >= again)),
            read_at: self.read_at,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn read(images: &[&str]) -> Answer {
        Answer::Read {
            images: images.iter().map(|i| (*i).to_owned()).collect(),
            flaw: None,
            incomplete: false,
            apps: None,
            etag: Some("\"1\"".into()),
            retry_after: None,
        }
    }

    fn failed(retry_after: Option<u64>) -> Answer {
        Answer::Failed {
            problem: Problem {
                reason: "Unreachable".into(),
                message: "503".into(),
            },
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn failures_are_repeated_ever_later_and_keep_what_was_said() {
        let mut entry = Entry::new(Source::default());
        assert!(entry.is_due(None, None, at(0)));
        entry.learn(read(&["a"]), at(0), at(1));
        assert!(!entry.is_due(None, None, at(100_000)), "nothing asks for it");
        let mut now = at(10);
        for delay in [5, 10, 20, 40, 80, 160, 300, 300] {
            entry.learn(failed(None), now, now);
            let again = entry.wake_at(None).unwrap();
            assert_eq!(again.duration_since(now).as_secs(), delay);
            assert!(!entry.is_due(None, None, again - SignedDuration::from_secs(1)));
            assert!(entry.is_due(None, None, again));
            now = again;
        }
        let view = entry.view(None);
        assert_eq!(view.images.unwrap(), ["a"]);
        assert!(view.incomplete && view.problem.is_some());
        assert_eq!(view.read_at, Some(at(1)));
        entry.learn(failed(Some(600)), now, now);
        assert_eq!(entry.wake_at(None).unwrap().duration_since(now).as_secs(), 600);
        entry.learn(failed(Some(1_000_000)), now, now);
        assert_eq!(entry.wake_at(None).unwrap().duration_since(now).as_secs(), 3600);

        let part = Answer::Read {
            images: vec!["a".into()],
            flaw: None,
            incomplete: true,
            apps: None,
            etag: None,
            retry_after: Some(Duration::from_secs(700)),
        };
        entry.learn(part, now, now);
        assert_eq!(entry.wake_at(None).unwrap().duration_since(now).as_secs(), 700);
        let (early, then) = (
            now + SignedDuration::from_secs(699),
            now + SignedDuration::from_secs(700),
        );
        assert!(
            !entry.is_due(Some(early), None, early),
            "no refresh asks a server that asked to be left alone"
        );
        assert!(entry.is_due(Some(early), None, then));

        entry.learn(Answer::Unchanged, now, now);
        let view = entry.view(None);
        assert_eq!(
            (view.problem, view.incomplete, view.read_at),
            (None, false, Some(now))
        );
        assert_eq!(entry.wake_at(None), None);
    }

    #[test]
    fn a_list_with_a_bad_line_is_not_read_whole_because_it_is_the_same() {
        let mut entry = Entry::new(Source::default());
        let flawed = Answer::Read {
            images: vec!["a".into()],
            flaw: Some(Problem {
                reason: "InvalidReference".into(),
                message: "line 2".into(),
            }),
            incomplete: false,
            apps: None,
            etag: Some("\"1\"".into()),
            retry_after: None,
        };
        entry.learn(flawed, at(0), at(1));
        entry.learn(Answer::Unchanged, at(2), at(3));
        let view = entry.view(None);
        assert!(view.problem.is_some());
        assert_eq!(view.read_at, None);
    }

    #[test]
    fn of_a_registry_read_in_part_the_images_of_the_rest_may_be_hidden() {
        let mut entry = Entry::new(Source::default());
        let told = |one: &str, two: Option<&str>| Answer::Read {
            images: vec![one.to_owned()],
            flaw: None,
            incomplete: two.is_none(),
            apps: Some(
                [
                    ("one".to_owned(), Some([one.to_owned()].into())),
                    ("two".to_owned(), two.map(|two| [two.to_owned()].into())),
                ]
                .into(),
            ),
            etag: None,
            retry_after: None,
        };
        entry.learn(told("a:1", Some("b:1")), at(0), at(1));
        entry.learn(told("a:2", None), at(2), at(3));
        let view = entry.view(None);
        assert!(view.incomplete);
        assert_eq!(view.hides, Hides::Only(["b:1".to_owned()].into()));
        entry.learn(failed(None), at(4), at(5));
        assert_eq!(
            entry.view(None).hides,
            Hides::Any,
            "the registry itself is not there"
        );
    }

    #[test]
    fn a_refresh_asks_once() {
        let mut entry = Entry::new(Source::default());
        entry.learn(read(&["a"]), at(0), at(1));
        assert!(entry.is_due(Some(at(5)), None, at(5)));
        entry.learn(failed(None), at(5), at(6));
        assert!(
            !entry.is_due(Some(at(5)), None, at(7)),
            "its failure has its own time"
        );
        assert_eq!(entry.etag(), Some("\"1\""));
    }

    #[test]
    fn what_lost_much_is_asked_again_and_believed_then() {
        let mut entry = Entry::new(Source::default());
        entry.learn(read(&["a"]), at(0), at(1));
        let since = Some(at(2));
        assert!(!entry.is_due(None, since, at(11)));
        assert!(!entry.view(since).seen_twice);
        assert_eq!(entry.wake_at(since), Some(at(12)));
        assert!(entry.is_due(None, since, at(12)));
        entry.learn(read(&["a"]), at(12), at(12));
        assert!(entry.view(since).seen_twice);
        assert!(!entry.is_due(None, since, at(13)));
        assert_eq!(entry.wake_at(since), None, "nothing is left to ask");
    }
}
