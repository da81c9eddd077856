//! What failed, grouped by image and reason.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use larder_api::image_cache_status::Failure;
use larder_api::names::Reason;
use larder_api::node_image_cache::{Desired, ImageOnNode, ImageState, NodeState};
use larder_api::revision::RevisionImage;

use super::nodes::{NodeReport, Overview, overdue_words};
use super::{ReportInput, images};
use crate::backoff::seldom_heals;
use crate::plan::signed;
use crate::trim::MAX_FAILURES;

/// Nodes that a group names.
const SAMPLE_NODES: usize = 5;

struct Group<'a> {
    message: String,
    nodes: i32,
    sample_nodes: Vec<&'a str>,
    /// Every one of them is left out on purpose.
    skipped: bool,
}

/// Groups, those that need a person first, then those on most nodes; and how many were left out.
pub(super) fn group(input: &ReportInput<'_>, overview: &Overview<'_>) -> (Vec<Failure>, i32) {
    let newest = newest(input);
    let mut groups: BTreeMap<(&str, Reason), Group<'_>> = BTreeMap::new();
    for node in &overview.nodes {
        if node.state == NodeState::Unreachable {
            // What was wrong there may long be right.
            continue;
        }
        let name = node.view.facts.name.as_str();
        if let Some((reason, message)) = of_node(input, node) {
            add(&mut groups, ("", reason), name, false, || message);
        }
        if node.view.claim.is_none_or(|c| c.desired == Desired::Absent) {
            continue;
        }
        let ended = |i: &&&ImageOnNode| matches!(i.state, ImageState::Failed | ImageState::Skipped);
        for image in node.view.images.iter().filter(ended) {
            if is_wanted(node, image, &newest) {
                let skipped = image.state == ImageState::Skipped;
                let reason = image.reason.unwrap_or(Reason::RuntimeError);
                add(&mut groups, (&image.image, reason), name, skipped, || {
                    image.message.clone()
                });
            }
        }
    }
    let mut groups: Vec<(Failure, bool)> = groups
        .into_iter()
        .map(|((image, reason), group)| {
            let failure = Failure {
                image: input.wanted.written(image).to_owned(),
                reason,
                message: group.message,
                nodes: group.nodes,
                sample_nodes: group.sample_nodes.into_iter().map(str::to_owned).collect(),
            };
            (failure, group.skipped)
        })
        .collect();
    groups.extend(
        unresolved(input, overview, &groups)
            .into_iter()
            .map(|failure| (failure, false)),
    );
    groups.sort_by(|(a, a_skipped), (b, b_skipped)| {
        (a_skipped, b.nodes, &a.image, a.reason).cmp(&(b_skipped, a.nodes, &b.image, b.reason))
    });
    let omitted = groups.len().saturating_sub(MAX_FAILURES) as i32;
    (
        groups
            .into_iter()
            .take(MAX_FAILURES)
            .map(|(failure, _)| failure)
            .collect(),
        omitted,
    )
}

/// Whether some image failed for a reason that needs a person, on a node that may still be busy with others.
pub(super) fn need_a_person(input: &ReportInput<'_>, overview: &Overview<'_>) -> bool {
    let newest = newest(input);
    let present = |n: &&NodeReport<'_>| {
        let claimed = n.view.claim.is_some_and(|c| c.desired == Desired::Present);
        claimed && n.state != NodeState::Unreachable
    };
    overview.nodes.iter().filter(present).any(|node| {
        node.view.images.iter().any(|image| {
            image.state == ImageState::Failed
                && image.reason.is_some_and(seldom_heals)
                && is_wanted(node, image, &newest)
        })
    })
}

fn add<'a>(
    groups: &mut BTreeMap<(&'a str, Reason), Group<'a>>,
    key: (&'a str, Reason),
    node: &'a str,
    skipped: bool,
    message: impl FnOnce() -> String,
) {
    // Nodes come in the order of their names: the first one speaks for all.
    let group = groups.entry(key).or_insert_with(|| Group {
        message: message(),
        nodes: 0,
        sample_nodes: Vec::new(),
        skipped: true,
    });
    group.nodes += 1;
    group.skipped &= skipped;
    if group.sample_nodes.len() < SAMPLE_NODES {
        group.sample_nodes.push(node);
    }
}

/// What is wrong with the node's work as a whole.
fn of_node(input: &ReportInput<'_>, node: &NodeReport<'_>) -> Option<(Reason, String)> {
    if let Some((reason, on_node)) = node.current.and_then(|o| Some((o.reason?, o))) {
        return Some((reason, on_node.message.clone()));
    }
    if let Some(on_node) = removal_failed(node) {
        return Some((Reason::RuntimeError, on_node.to_owned()));
    }
    let overall = signed(input.cache.spec.timeouts.overall);
    node.overdue
        .then(|| (Reason::Timeout, overdue_words(overall, "")))
}

/// The words of a removal that could not be carried out.
pub(super) fn removal_failed<'a>(node: &NodeReport<'a>) -> Option<&'a str> {
    node.view.claim?;
    node.view
        .on_node
        .as_ref()
        .map(|o| o.removal_error.as_str())
        .filter(|words| !words.is_empty())
}

/// Images of the newest revision, by reference.
fn newest<'a>(input: &ReportInput<'a>) -> HashMap<&'a str, &'a RevisionImage> {
    images::images(input)
        .iter()
        .map(|i| (i.image.as_str(), i))
        .collect()
}

/// Whether what the node said of the image still counts: it is about the revision assigned, or the newest one wants the
/// very same image.
fn is_wanted(node: &NodeReport<'_>, image: &ImageOnNode, newest: &HashMap<&str, &RevisionImage>) -> bool {
    node.current.is_some()
        || newest
            .get(image.image.as_str())
            .is_some_and(|i| i.digest == image.digest)
}

/// References that the operator could not resolve, no node fails at, and no node is known to hold.
fn unresolved(input: &ReportInput<'_>, overview: &Overview<'_>, groups: &[(Failure, bool)]) -> Vec<Failure> {
    if input.unresolved.is_empty() {
        return Vec::new();
    }
    let failing: BTreeSet<&str> = groups.iter().map(|(f, _)| f.image.as_str()).collect();
    let normalized: HashMap<&str, &str> = input
        .wanted
        .images
        .iter()
        .map(|i| (i.written.as_str(), i.reference.normalized()))
        .collect();
    let held = held_somewhere(overview, images::images(input));
    let mut seen = BTreeSet::new();
    input
        .unresolved
        .iter()
        .filter(|u| !failing.contains(u.image.as_str()))
        .filter(|u| !normalized.get(u.image.as_str()).is_some_and(|n| held.contains(n)))
        .filter(|u| seen.insert((&u.image, u.reason)))
        .map(|u| Failure {
            image: u.image.clone(),
            reason: u.reason,
            message: u.message.clone(),
            nodes: 0,
            sample_nodes: Vec::new(),
        })
        .collect()
}

/// Images of the newest revision that at least one node proves to hold.
fn held_somewhere<'a>(overview: &Overview<'_>, images: &'a [RevisionImage]) -> BTreeSet<&'a str> {
    // Nodes whose list of missing images is complete, and on how many of those each image is missing.
    let mut complete = 0;
    let mut missing: HashMap<&str, usize> = HashMap::new();
    for node in overview.nodes.iter().filter(|n| n.at_newest) {
        let Some(on_node) = node.current else { continue };
        let not_ready =
            usize::try_from(on_node.total + on_node.skipped - on_node.ready).unwrap_or(usize::MAX);
        if on_node.total + on_node.skipped > 0 && not_ready == node.view.images.len() {
            complete += 1;
            for image in &node.view.images {
                *missing.entry(image.image.as_str()).or_default() += 1;
            }
        }
    }
    let names = images.iter().map(|i| i.image.as_str());
    names
        .filter(|name| missing.get(name).copied().unwrap_or(0) < complete)
        .collect()
}
