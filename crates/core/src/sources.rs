//! What the sources of a cache bring: what each said last, and what it keeps while it fails or loses too much at once.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::Removal;
use larder_api::image_cache_status::SourceStatus;
use larder_api::image_source::Source;
use larder_api::{ImageCache, ImageCacheRevisionSpec, ImageCacheSpec};

use crate::exclude::Exclude;
use crate::image_ref::ImageRef;
use crate::images::{Brought, WantedImages, exclude, wanted_with};
use crate::message::cut;

/// A source that lost more than half is believed if it says so again after this long.
pub const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// Words of a reason that is no registry's.
pub mod reason {
    /// It has not been asked yet.
    pub const PENDING: &str = "Pending";
    /// It lost more than half of its images at once.
    pub const SHRUNK: &str = "Shrunk";
    /// The cache has more images than a revision may list.
    pub const TOO_MANY_IMAGES: &str = "TooManyImages";
    /// What the spec says of it cannot be carried out.
    pub const INVALID_SOURCE: &str = "InvalidSource";
    /// It could not be reached, or gave no answer that can be used.
    pub const UNREACHABLE: &str = "Unreachable";
}
/// Characters of a source's message.
const WORDS: usize = 256;
/// References that a message names.
const NAMED: usize = 3;

/// Why a source was not read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In one word: a [`larder_api::names::Reason`] or one of [`reason`].
    pub reason: String,
    /// In words, without anything secret.
    pub message: String,
}

/// Which images a source may have although it does not name them, normalised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hides {
    /// Whatever it had.
    #[default]
    Any,
    /// Only these: those of the part that could not be read, when it last could.
    Only(BTreeSet<String>),
    /// Any but these: they are known to be of other parts.
    AnyBut(BTreeSet<String>),
}

impl Hides {
    fn may_be(&self, image: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(these) => these.contains(image),
            Self::AnyBut(these) => !these.contains(image),
        }
    }
}

/// What is known of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceView {
    /// Its name.
    pub name: String,
    /// What it said when it was last read. None: it was not read since the operator started.
    pub images: Option<Vec<String>>,
    /// What is wrong with it.
    pub problem: Option<Problem>,
    /// What is wrong may hide images: those that the cache has from it stay, as far as [`hides`](Self::hides) says.
    pub incomplete: bool,
    /// Of a source that is incomplete, which images may be hidden.
    pub hides: Hides,
    /// It said so twice, [`LOOK_AGAIN`] apart.
    pub seen_twice: bool,
    /// When it was last read whole.
    pub read_at: Option<Timestamp>,
}

/// What came of all sources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Combined {
    /// The images of spec and sources.
    pub wanted: WantedImages,
    /// The sources, in the order of the spec.
    pub statuses: Vec<SourceStatus>,
    /// Sources that lost more than half, by name. Until they have been seen twice nothing of theirs leaves.
    pub shrunk: BTreeSet<String>,
}

impl Combined {
    /// Every source was read whole, and there is nothing: neither in them nor in the spec.
    pub fn is_empty_for_good(&self) -> bool {
        let wanted = &self.wanted;
        let nothing = wanted.images.is_empty() && wanted.invalid.is_empty();
        nothing && !self.statuses.is_empty() && self.statuses.iter().all(|s| s.ready)
    }
}

/// Puts spec and sources together. `views` are in any order; `newest` is the cache's newest revision, which says what
/// each source gave last; `previous` is what the status says of sources now.
pub fn combine(
    spec: &ImageCacheSpec,
    views: &[SourceView],
    newest: Option<&ImageCacheRevisionSpec>,
    previous: &[SourceStatus],
) -> Combined {
    let unknown = SourceView::default();
    let exclude = exclude(spec);
    let mut shrunk = BTreeMap::new();
    let mut brought = Vec::new();
    for source in &spec.sources {
        let view = views.iter().find(|v| v.name == source.name).unwrap_or(&unknown);
        let before = last_good(&exclude, newest, &source.name);
        let mut images = view.images.clone().unwrap_or_default();
        let known: BTreeSet<String> = images.iter().filter_map(|i| normalized(i)).collect();
        let lost: Vec<&String> = before.iter().filter(|i| !known.contains(*i)).collect();
        let hidden = |image: &str| view.images.is_none() || (view.incomplete && view.hides.may_be(image));
        let gone = lost.iter().filter(|i| !hidden(i)).count();
        if gone * 2 > before.len() {
            shrunk.insert(source.name.clone(), (gone, before.len()));
        }
        // What is not purged does no harm by leaving at once.
        let doubtful =
            shrunk.contains_key(&source.name) && !view.seen_twice && spec.removal != Removal::Retain;
        images.extend(lost.into_iter().filter(|i| doubtful || hidden(i)).cloned());
        if !doubtful {
            shrunk.remove(&source.name);
        }
        brought.push(Brought {
            source: source.name.clone(),
            images,
        });
    }
    let wanted = wanted_with(spec, &brought);
    let statuses = spec
        .sources
        .iter()
        .map(|source| {
            let view = views.iter().find(|v| v.name == source.name).unwrap_or(&unknown);
            let before = previous.iter().find(|s| s.name == source.name);
            status(source, view, &wanted, shrunk.get(&source.name), before)
        })
        .collect();
    Combined {
        wanted,
        statuses,
        shrunk: shrunk.into_keys().collect(),
    }
}

/// What the newest revision has from a source, but for what is excluded by now.
fn last_good(exclude: &Exclude, newest: Option<&ImageCacheRevisionSpec>, source: &str) -> Vec<String> {
    let images = newest.map(|n| n.images.as_slice()).unwrap_or_default();
    images
        .iter()
        .filter(|i| i.sources.iter().any(|s| s == source))
        .filter(|i| ImageRef::parse(&i.image).is_ok_and(|r| !exclude.fits(&r)))
        .map(|i| i.image.clone())
        .collect()
}

fn normalized(image: &str) -> Option<String> {
    ImageRef::parse(image).ok().map(|r| r.normalized().to_owned())
}

fn status(
    source: &Source,
    view: &SourceView,
    wanted: &WantedImages,
    shrunk: Option<&(usize, usize)>,
    previous: Option<&SourceStatus>,
) -> SourceStatus {
    let images = wanted
        .images
        .iter()
        .filter(|i| i.sources.contains(&source.name))
        .count() as i32;
    if view.images.is_none() && view.problem.is_none() {
        // After a restart it is as it was, until it has been asked.
        return match previous {
            Some(previous) => SourceStatus {
                images,
                ..previous.clone()
            },
            None => SourceStatus {
                name: source.name.clone(),
                reason: reason::PENDING.into(),
                message: "has not been read yet".into(),
                images,
                ..SourceStatus::default()
            },
        };
    }
    let problem = view.problem.clone().or_else(|| trouble(&source.name, wanted));
    let note = shrunk.map(|(lost, of)| Problem {
        reason: reason::SHRUNK.into(),
        message: format!("lost {lost} of {of} images at once: they stay until it says so again"),
    });
    let said = problem.as_ref().or(note.as_ref());
    let read_at = view
        .read_at
        .map(|at| Time(Timestamp::from_second(at.as_second()).unwrap_or(at)));
    SourceStatus {
        name: source.name.clone(),
        ready: problem.is_none(),
        reason: said.map(|p| p.reason.clone()).unwrap_or_default(),
        message: said.map(|p| cut(&p.message, WORDS)).unwrap_or_default(),
        images,
        last_success_time: read_at.or_else(|| previous.and_then(|p| p.last_success_time.clone())),
    }
}

/// What is wrong with a source that was read whole.
fn trouble(source: &str, wanted: &WantedImages) -> Option<Problem> {
    if let Some(broken) = wanted.broken.get(source) {
        let named = broken
            .iter()
            .take(NAMED)
            .map(|(image, error)| format!("{}: {error}", cut(image, WORDS / 4)));
        let more = (broken.len() > NAMED).then(|| format!("and {} more", broken.len() - NAMED));
        return Some(Problem {
            reason: "InvalidReference".into(),
            message: named.chain(more).collect::<Vec<_>>().join("; "),
        });
    }
    let beyond = wanted.beyond.get(source)?;
    Some(Problem {
        reason: reason::TOO_MANY_IMAGES.into(),
        message: format!(
            "a cache has at most {} images: {beyond} of this source are left out",
            crate::images::MAX_IMAGES
        ),
    })
}

/// Why the cache may not have a source, by the names of sources: workloads of other namespaces.
pub fn denied(cache: &ImageCache) -> BTreeMap<String, String> {
    let own = cache.metadata.namespace.as_deref().unwrap_or_default();
    let mut denied = BTreeMap::new();
    for source in &cache.spec.sources {
        let namespaces = source.workloads.iter().flat_map(|w| &w.namespaces);
        let others: Vec<&str> = namespaces.map(String::as_str).filter(|n| *n != own).collect();
        if let Some(first) = others.first() {
            let words = format!("workloads of namespace {first} are not this namespace's to look at");
            denied.insert(source.name.clone(), words);
        }
    }
    denied
}

#[cfg(test)]
mod tests;
