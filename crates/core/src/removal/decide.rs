//! Which names and images may go, and what becomes of each entry.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::held::{Held, Kind, Name, NodeContents, group};
use super::report::{EntryOutcome, Outcome, PurgeEntry};
use crate::image_ref::ImageRef;

/// An image counts as Larder's if it came no earlier than this before the claim: clocks of node and API server differ.
pub const CLAIM_LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// What to do on a node, and what becomes of the entries if it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovalPlan {
    /// One for each entry, in the entries' order.
    pub outcomes: Vec<EntryOutcome>,
    /// One at most for each image, sorted by image id.
    pub steps: Vec<RemovalStep>,
}

/// What to do with one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovalStep {
    /// Image id.
    pub image: String,
    /// Indices of the entries that it serves, ascending.
    pub entries: Vec<usize>,
    /// What to do.
    pub act: RemovalAct,
}

/// How an image, or some of its names, goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemovalAct {
    /// `RemoveImage` of CRI by id: every name goes.
    RemoveImage,
    /// These records go, in this order.
    DeleteRecords {
        /// Name and target of each.
        records: Vec<(String, String)>,
        /// No name is left after the last: let its deletion wait for the garbage collection.
        collect: bool,
    },
}

/// An entry, read.
struct Wish {
    index: usize,
    reference: ImageRef,
    claimed_at: Timestamp,
    all: bool,
    /// The image holds the very tag that the entry names, so the tag goes with it.
    has_tag: bool,
}

/// Decides. Names in `keep` stay, whatever the entries say: something else on the node wants them. The same state and
/// entries give the same plan, whatever the order of the lists; after the plan is carried
/// out, it is empty.
pub fn decide(entries: &[PurgeEntry], keep: &[ImageRef], state: &NodeContents) -> RemovalPlan {
    let held = group(state);
    let outcomes = entries.iter().map(|e| outcome(e, Outcome::Absent, "")).collect();
    let mut plan = RemovalPlan {
        outcomes,
        steps: Vec::new(),
    };
    let parsed: Vec<_> = entries.iter().map(|e| ImageRef::parse(&e.reference)).collect();
    let mandates = mandates(entries, &parsed);
    let mut wishes: BTreeMap<usize, Vec<Wish>> = BTreeMap::new();
    for (index, (entry, reference)) in entries.iter().zip(&parsed).enumerate() {
        let digest = entry.digest.as_deref();
        match reference.as_ref().map(|r| (r, locate(&held, r, digest))) {
            // No image can have such a name: to try again for ever would hold up whoever waits for the removal.
            Err(error) => settle(&mut plan, index, Outcome::Absent, error.to_string()),
            Ok((_, Err(why))) => settle(&mut plan, index, Outcome::Absent, why.to_owned()),
            Ok((reference, Ok((place, has_tag)))) => {
                let (claimed_at, all) = mandates
                    .get(&(reference, digest))
                    .copied()
                    .unwrap_or((entry.claimed_at, entry.all));
                let wish = Wish {
                    index,
                    reference: reference.clone(),
                    claimed_at,
                    all,
                    has_tag,
                };
                wishes.entry(place).or_default().push(wish);
            }
        }
    }
    for (place, wishes) in wishes {
        decide_image(&held[place], wishes, keep, state.records.is_some(), &mut plan);
    }
    plan.steps.sort_by(|a, b| a.image.cmp(&b.image));
    plan
}

type Mandates<'a> = BTreeMap<(&'a ImageRef, Option<&'a str>), (Timestamp, bool)>;

/// The earliest claim and the widest mandate for each reference and digest: entries that agree in both mean one image,
/// which is not treated in two ways.
fn mandates<'a, E>(entries: &'a [PurgeEntry], parsed: &'a [Result<ImageRef, E>]) -> Mandates<'a> {
    let mut mandates = Mandates::new();
    for (entry, reference) in entries.iter().zip(parsed) {
        let Ok(reference) = reference else { continue };
        let given = (entry.claimed_at, entry.all);
        let (claimed_at, all) = mandates
            .entry((reference, entry.digest.as_deref()))
            .or_insert(given);
        *claimed_at = given.0.min(*claimed_at);
        *all |= given.1;
    }
    mandates
}

/// The image that an entry means and whether it holds the entry's own tag. A tag that points elsewhere by now is not
/// ours; the content that it had may still be there without it.
fn locate(held: &[Held], reference: &ImageRef, digest: Option<&str>) -> Result<(usize, bool), &'static str> {
    let digest = reference.digest().or(digest);
    let tagged = match reference.digest() {
        Some(_) => None,
        None => held.iter().position(|h| h.has_tag(reference.normalized())),
    };
    let Some(digest) = digest else {
        return tagged.map(|place| (place, true)).ok_or("");
    };
    if let Some(place) = tagged.filter(|place| held[*place].holds(digest)) {
        return Ok((place, true));
    }
    // Content that only other repositories name is theirs.
    let without = held
        .iter()
        .position(|h| h.holds(digest) && (h.is_in(reference.name()) || h.is_unnamed()));
    match (without, tagged) {
        (Some(place), _) => Ok((place, false)),
        (None, Some(_)) => Err("the tag means another image by now, which stays"),
        (None, None) => Err(""),
    }
}

fn decide_image(
    held: &Held,
    wishes: Vec<Wish>,
    keep: &[ImageRef],
    has_records: bool,
    plan: &mut RemovalPlan,
) {
    let (ours, foreign): (Vec<Wish>, Vec<Wish>) = wishes
        .into_iter()
        .partition(|w| held.id.is_some() && (w.all || came_after(held, w.claimed_at)));
    for wish in foreign {
        let why = match held.created_at {
            Some(came) => format!(
                "on the node since {came:.0}, before Larder's claim of {:.0}",
                wish.claimed_at
            ),
            None => "the runtime does not say when it came".to_owned(),
        };
        settle(plan, wish.index, Outcome::Foreign, why);
    }
    if let Some(used) = &held.used {
        for wish in &ours {
            settle(plan, wish.index, Outcome::InUse, used.clone());
        }
        return;
    }
    let Some(id) = held.id.clone().filter(|_| !ours.is_empty()) else {
        return;
    };

    let shares = Shares::of(held, &ours, keep);
    let act = match (&shares.other, has_records) {
        (None, false) => Some(RemovalAct::RemoveImage),
        (None, true) => Some(RemovalAct::DeleteRecords {
            records: with_id_last(held),
            collect: true,
        }),
        (Some(_), false) => None,
        (Some(_), true) => Some(RemovalAct::DeleteRecords {
            records: shares.ours,
            collect: false,
        })
        .filter(|act| !matches!(act, RemovalAct::DeleteRecords { records, .. } if records.is_empty())),
    };
    for wish in &ours {
        match &shares.other {
            None => settle(plan, wish.index, Outcome::Removed, String::new()),
            Some(other) => settle(
                plan,
                wish.index,
                Outcome::Shared,
                format!("its content stays as {other}"),
            ),
        }
    }
    if let Some(act) = act {
        plan.steps.push(RemovalStep {
            image: id,
            entries: ours.iter().map(|w| w.index).collect(),
            act,
        });
    }
}

fn came_after(held: &Held, claimed_at: Timestamp) -> bool {
    let earliest = claimed_at.saturating_sub(CLAIM_LEEWAY).unwrap_or(Timestamp::MIN);
    held.created_at.is_some_and(|came| came >= earliest)
}

/// An image's names, divided.
struct Shares {
    /// A name that nobody asked to remove, or that has to stay.
    other: Option<String>,
    /// Records that may go although another name stays.
    ours: Vec<(String, String)>,
}

impl Shares {
    fn of(held: &Held, wishes: &[Wish], keep: &[ImageRef]) -> Self {
        let wanted = |normalized: &str| {
            wishes
                .iter()
                .any(|w| w.has_tag && w.reference.normalized() == normalized)
                && keep.iter().all(|k| k.normalized() != normalized)
        };
        let kept = |repository: &str, digest: &str| {
            keep.iter()
                .any(|k| k.name() == repository && k.digest() == Some(digest))
        };
        let repositories: BTreeSet<&str> = wishes.iter().map(|w| w.reference.name()).collect();
        let other_tags: Vec<(&str, &Name)> = held
            .names
            .iter()
            .filter_map(|name| match &name.kind {
                Kind::Tag {
                    repository,
                    normalized,
                } if !wanted(normalized) => Some((repository.as_str(), name)),
                _ => None,
            })
            .collect();
        let mut other = other_tags.first().map(|(_, name)| name.raw.clone());
        let mut ours = Vec::new();
        for name in &held.names {
            let goes = match &name.kind {
                Kind::Tag { normalized, .. } => wanted(normalized),
                Kind::Digest { repository, digest } if kept(repository, digest) => {
                    other.get_or_insert_with(|| name.raw.clone());
                    false
                }
                // A pull by tag makes the repository's digest record as well: it goes with the last tag that has it.
                Kind::Digest { repository, digest } if repositories.contains(repository.as_str()) => {
                    !other_tags
                        .iter()
                        .any(|(r, tag)| r == repository && tag.target.as_ref().is_none_or(|t| t == digest))
                }
                Kind::Digest { .. } | Kind::Opaque => {
                    other.get_or_insert_with(|| name.raw.clone());
                    false
                }
                Kind::Id => false,
            };
            if goes {
                ours.push((name.raw.clone(), name.target.clone().unwrap_or_default()));
            }
        }
        Self { other, ours }
    }
}

/// Every record of an image; the id last, because CRI knows the image by it.
fn with_id_last(held: &Held) -> Vec<(String, String)> {
    let (ids, names): (Vec<&Name>, Vec<&Name>) = held.names.iter().partition(|n| n.kind == Kind::Id);
    let pair = |name: &Name| (name.raw.clone(), name.target.clone().unwrap_or_default());
    names.into_iter().chain(ids).map(pair).collect()
}

fn settle(plan: &mut RemovalPlan, index: usize, what: Outcome, why: String) {
    plan.outcomes[index].outcome = what;
    plan.outcomes[index].message = why;
}

fn outcome(entry: &PurgeEntry, what: Outcome, why: &str) -> EntryOutcome {
    EntryOutcome {
        reference: entry.reference.clone(),
        outcome: what,
        message: why.to_owned(),
    }
}
