//! Keeps a status within its byte budget, so that the API server always takes it. What is cut is said or counted.

use larder_api::ImageCacheStatus;
use larder_api::image_cache_status::{Failure, NodeStatus};
use larder_api::node_image_cache::{
    AgentStatus, CacheOnNode, ImageOnNode, ImageState, NodeState, PullerStatus,
};
use serde::Serialize;

use crate::message::cut;

/// Bytes of a status as JSON.
pub const BUDGET: usize = 48 * 1024;
/// Nodes that a status lists one by one.
pub const MAX_NODES: usize = 250;
/// Groups of failures that a status lists.
pub const MAX_FAILURES: usize = 20;
/// Images that the status of a node lists.
pub const MAX_IMAGES: usize = 200;
/// Characters of a condition's message.
pub const MAX_CONDITION_CHARS: usize = 1024;
/// What a message is cut to before any is dropped.
const SHORT_CHARS: usize = 96;
/// Share of the budget that failures may take: they are grouped, so few of them speak for many nodes.
const FAILURES_BUDGET: usize = 16 * 1024;
/// Room for the counters of what was left out, whose digits come last.
const SLACK: usize = 64;

/// The status with at most [`MAX_NODES`] nodes, those with problems first, [`MAX_FAILURES`] failures and [`BUDGET`]
/// bytes. Messages go before entries, the last before the first.
pub fn trim(mut status: ImageCacheStatus) -> ImageCacheStatus {
    for condition in &mut status.conditions {
        condition.message = cut(&condition.message, MAX_CONDITION_CHARS);
    }
    status
        .node_statuses
        .sort_by(|a, b| (urgency(a.state), &a.node).cmp(&(urgency(b.state), &b.node)));
    let mut nodes_omitted = truncate(&mut status.node_statuses, MAX_NODES);
    let mut failures_omitted = truncate(&mut status.failures, MAX_FAILURES);
    failures_omitted += fit(&mut status.failures, FAILURES_BUDGET, |f: &mut Failure| {
        &mut f.message
    });

    let mut rest = without_nodes(&status);
    for limit in [SHORT_CHARS, 0] {
        // Only texts far beyond what conditions are made of get here.
        if rest + SLACK > BUDGET {
            for condition in &mut status.conditions {
                condition.message = cut(&condition.message, limit);
            }
            rest = without_nodes(&status);
        }
    }
    let left = BUDGET.saturating_sub(rest + SLACK);
    nodes_omitted += fit(&mut status.node_statuses, left, |n: &mut NodeStatus| {
        &mut n.message
    });
    status.node_statuses_omitted += nodes_omitted;
    status.failures_omitted += failures_omitted;
    status
}

/// Bytes of all but the list of nodes. Counters of what was left out do not count: they may still grow.
fn without_nodes(status: &ImageCacheStatus) -> usize {
    size(&ImageCacheStatus {
        node_statuses: Vec::new(),
        node_statuses_omitted: 0,
        failures_omitted: 0,
        ..status.clone()
    })
}

/// The status with at most [`MAX_IMAGES`] images, failed ones first, and [`BUDGET`] bytes. Caches are never left out:
/// their entries are what the node is known to hold.
pub fn trim_node(status: PullerStatus) -> PullerStatus {
    trim_puller(status, BUDGET)
}

/// The same for what an agent says: all but the lists of caches and images is small and stays.
pub fn trim_agent(mut status: AgentStatus) -> AgentStatus {
    let puller = std::mem::take(&mut status.puller);
    let rest = size(&status);
    status.puller = trim_puller(puller, BUDGET.saturating_sub(rest));
    status
}

fn trim_puller(mut status: PullerStatus, budget: usize) -> PullerStatus {
    status.images.sort_by(|a, b| {
        (interest(a.state), &a.cache, &a.image).cmp(&(interest(b.state), &b.cache, &b.image))
    });
    let mut omitted = truncate(&mut status.images, MAX_IMAGES);
    let rest = trim_caches(&mut status, budget);
    let left = budget.saturating_sub(rest + SLACK);
    omitted += fit(&mut status.images, left, |i: &mut ImageOnNode| &mut i.message);
    status.images_omitted += omitted;
    status
}

/// What is left out last.
fn interest(state: ImageState) -> u8 {
    match state {
        ImageState::Failed => 0,
        ImageState::Pulling => 1,
        ImageState::Waiting => 2,
        ImageState::Skipped => 3,
    }
}

/// What is done to every cache's entry while the status without images has more bytes than the number says.
type Step = (usize, fn(&mut CacheOnNode));

/// Shortens the entries of caches as far as needed, half of the budget being for images; what is needed least goes first.
/// Returns the bytes of the status without its images.
fn trim_caches(status: &mut PullerStatus, whole: usize) -> usize {
    let steps: [Step; 6] = [
        (whole / 2, |cache| cache.reported.truncate(64)),
        (whole / 2, |cache| {
            cache.message = cut(&cache.message, SHORT_CHARS);
            cache.removal_error = cut(&cache.removal_error, SHORT_CHARS);
        }),
        (whole / 2, |cache| cache.message.clear()),
        (whole, |cache| cache.reported.truncate(16)),
        (whole, |cache| cache.reported.clear()),
        // Never empty: that there is an error is a fact of its own.
        (whole, |cache| cache.removal_error = cut(&cache.removal_error, 8)),
    ];
    let without_images = |status: &PullerStatus| {
        size(&PullerStatus {
            images: Vec::new(),
            images_omitted: 0,
            ..status.clone()
        })
    };
    let mut rest = without_images(status);
    for (budget, step) in steps {
        if rest + SLACK > budget {
            status.caches.iter_mut().for_each(step);
            rest = without_images(status);
        }
    }
    rest
}

/// What a person looks for first.
fn urgency(state: NodeState) -> u8 {
    match state {
        NodeState::Failed => 0,
        NodeState::Unreachable => 1,
        NodeState::Pulling | NodeState::Purging => 2,
        NodeState::Waiting => 3,
        NodeState::Purged => 4,
        NodeState::Ready => 5,
    }
}

/// Shrinks a list from its end until its JSON has at most `budget` bytes: messages are cut, then dropped, then entries
/// are. Returns how many entries are gone.
fn fit<T: Serialize>(list: &mut Vec<T>, budget: usize, message: impl Fn(&mut T) -> &mut String) -> i32 {
    // A comma or bracket for each.
    let mut sizes: Vec<usize> = list.iter().map(|entry| size(entry) + 1).collect();
    let mut total = sizes.iter().sum::<usize>() + 1;
    for limit in [SHORT_CHARS, 0] {
        for (entry, entry_size) in list.iter_mut().zip(&mut sizes).rev() {
            if total <= budget {
                return 0;
            }
            let text = message(entry);
            *text = cut(text, limit);
            total -= *entry_size;
            *entry_size = size(entry) + 1;
            total += *entry_size;
        }
    }
    let mut omitted = 0;
    while total > budget
        && let Some(entry_size) = sizes.pop()
    {
        list.pop();
        total -= entry_size;
        omitted += 1;
    }
    omitted
}

fn truncate<T>(list: &mut Vec<T>, limit: usize) -> i32 {
    let omitted = list.len().saturating_sub(limit);
    list.truncate(limit);
    omitted as i32
}

/// Bytes as JSON. Plain data always has a JSON form.
fn size<T: Serialize>(value: &T) -> usize {
    serde_json::to_vec(value).map_or(0, |json| json.len())
}

#[cfg(test)]
mod tests;
