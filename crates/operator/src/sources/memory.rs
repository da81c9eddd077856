//! What is remembered of the sources that are asked, cache by cache.

use std::collections::BTreeMap;

use jiff::Timestamp;
use larder_api::ImageCache;
use larder_api::image_source::Source;
use larder_core::sources::{Problem, reason};
use tokio::sync::watch;

use super::entry::{Answer, Entry};
use super::{key, uid};
use crate::world::Key;

/// What is remembered for one cache.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) uid: String,
    /// By the name of the source.
    pub(super) asked: BTreeMap<String, Asked>,
    /// When a source was first seen to have lost more than half.
    pub(super) shrunk: BTreeMap<String, Timestamp>,
    /// A moment that lay ahead when it was asked for, and when that was.
    ahead: Option<(Timestamp, Timestamp)>,
}

pub(super) struct Asked {
    pub(super) entry: Entry,
    /// Closed when the request under way has ended.
    pub(super) flight: Option<watch::Receiver<()>>,
    /// The cache has not waited for it.
    pub(super) late: bool,
}

impl Memory {
    /// Of this cache; what was remembered of another with its name is forgotten.
    pub(super) fn of<'a>(all: &'a mut BTreeMap<Key, Self>, cache: &ImageCache) -> &'a mut Self {
        let memory = all.entry(key(cache)).or_default();
        if memory.uid != uid(cache) {
            *memory = Self {
                uid: uid(cache).to_owned(),
                ..Self::default()
            };
        }
        memory
    }

    /// A moment to come, of a clock that was ahead, can never be reached by asking: it is when it was first asked for.
    pub(super) fn in_reach(&mut self, at: Timestamp, now: Timestamp) -> Timestamp {
        match self.ahead {
            Some((ahead, since)) if ahead == at => since,
            _ if at <= now => at,
            _ => {
                self.ahead = Some((at, now));
                now
            }
        }
    }
}

impl Asked {
    /// Never asked yet.
    pub(super) fn new(source: Source) -> Self {
        Self {
            entry: Entry::new(source),
            flight: None,
            late: false,
        }
    }

    /// A request that ended without an answer, as by a panic, is one that failed.
    pub(super) fn bury(&mut self, now: Timestamp) {
        if self.flight.take_if(|f| f.has_changed().is_err()).is_some() {
            let problem = Problem {
                reason: reason::UNREACHABLE.into(),
                message: "asking it came to no end".into(),
            };
            let retry_after = None;
            self.entry
                .learn(Answer::Failed { problem, retry_after }, now, now);
        }
    }
}
