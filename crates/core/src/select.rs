//! Which nodes a cache selects, and which of them can be worked on.

mod requirement;

use k8s_openapi::api::core::v1::{NodeSelector, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use larder_api::image_cache::NodesSpec;

use crate::facts::NodeFacts;
use requirement::Requirement;

/// Label with a node's operating system.
const OS_LABEL: &str = "kubernetes.io/os";
/// Taints that say how a node is and not whom it is for: tolerated by every cache.
pub const ALWAYS_TOLERATED: [&str; 7] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/network-unavailable",
    "node.kubernetes.io/unschedulable",
];
/// Prefix of the taints that the cluster autoscaler takes for a start not yet finished; tolerated by every cache.
pub const STARTUP_TAINT_PREFIX: &str = "startup-taint.cluster-autoscaler.kubernetes.io/";

/// What a node is to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Eligibility {
    /// Not one of the cache's nodes.
    NotMatching,
    /// One by its labels, kept away by a taint.
    NotTolerated,
    /// Selected, but not Ready.
    Unreachable,
    /// Selected, but cordoned.
    Cordoned,
    /// Selected, but its disk is nearly full.
    DiskPressure,
    /// Selected, and images can be pulled on it.
    Workable,
}

impl Eligibility {
    /// Whether the node counts among those that the cache selects.
    pub fn is_selected(self) -> bool {
        !matches!(self, Self::NotMatching | Self::NotTolerated)
    }
}

/// What the node is to a cache with these `nodes`.
pub fn eligibility(nodes: &NodesSpec, node: &NodeFacts) -> Eligibility {
    if !matches(nodes, node) {
        Eligibility::NotMatching
    } else if !node.taints.iter().all(|t| tolerated(t, &nodes.tolerations)) {
        Eligibility::NotTolerated
    } else if !node.ready {
        Eligibility::Unreachable
    } else if node.unschedulable && !nodes.include_unschedulable {
        Eligibility::Cordoned
    } else if node.disk_pressure {
        Eligibility::DiskPressure
    } else {
        Eligibility::Workable
    }
}

fn matches(nodes: &NodesSpec, node: &NodeFacts) -> bool {
    let virtual_kubelet = node.labels.get("type").is_some_and(|v| v == "virtual-kubelet");
    !node.deleting
        && !virtual_kubelet
        && nodes.selector.as_ref().is_none_or(|s| matches_labels(s, node))
        && nodes.affinity.as_ref().is_none_or(|a| matches_affinity(a, node))
        && (is_linux(node) || names_os(nodes))
}

fn is_linux(node: &NodeFacts) -> bool {
    match (node.os.as_str(), node.labels.get(OS_LABEL)) {
        // A node that has not reported yet: its label decides, and without one it will be Linux.
        ("", label) => label.is_none_or(|l| l == "linux"),
        (os, _) => os == "linux",
    }
}

/// Whether the user spoke about operating systems, so that nothing is assumed.
fn names_os(nodes: &NodesSpec) -> bool {
    let in_selector = nodes.selector.as_ref().is_some_and(|s| {
        s.match_labels.iter().flatten().any(|(key, _)| key == OS_LABEL)
            || s.match_expressions.iter().flatten().any(|r| r.key == OS_LABEL)
    });
    in_selector
        || nodes.affinity.as_ref().is_some_and(|a| {
            a.node_selector_terms
                .iter()
                .flat_map(|t| t.match_expressions.iter().flatten())
                .any(|r| r.key == OS_LABEL)
        })
}

/// As `LabelSelectorAsSelector` of apimachinery: all requirements hold; an empty selector takes everything; what it
/// would refuse (an unknown operator, a list that is empty or should be) matches nothing.
fn matches_labels(selector: &LabelSelector, node: &NodeFacts) -> bool {
    let label = |key: &str| node.labels.get(key).map(String::as_str);
    selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| label(key) == Some(value))
        && selector.match_expressions.iter().flatten().all(|r| {
            Requirement::of_labels(&r.operator, r.values.as_deref().unwrap_or_default())
                .is_some_and(|q| q.holds(label(&r.key)))
        })
}

/// As the scheduler's required node affinity: one term is enough, an empty term matches nothing, and so does an
/// affinity without terms.
fn matches_affinity(affinity: &NodeSelector, node: &NodeFacts) -> bool {
    affinity.node_selector_terms.iter().any(|term| {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let empty = expressions.is_empty() && fields.is_empty();
        let by_label = expressions.iter().all(|r| {
            Requirement::of_node(&r.operator, r.values.as_deref().unwrap_or_default())
                .is_some_and(|q| q.holds(node.labels.get(&r.key).map(String::as_str)))
        });
        let by_field = fields.iter().all(|r| {
            r.key == "metadata.name"
                && Requirement::of_field(&r.operator, r.values.as_deref().unwrap_or_default())
                    .is_some_and(|q| q.holds(Some(&node.name)))
        });
        !empty && by_label && by_field
    })
}

/// Whether the taint keeps Larder's pods away from no node of this cache.
pub fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    !matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
        || ALWAYS_TOLERATED.contains(&taint.key.as_str())
        || taint.key.starts_with(STARTUP_TAINT_PREFIX)
        || tolerations.iter().any(|t| tolerates(t, taint))
}

/// As `ToleratesTaint` of the scheduler: no effect means every effect, no key with Exists every taint.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        // An empty key needs Exists; the API server refuses anything else in a pod.
        "" | "Equal" => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        _ => false,
    }
}

/// The tolerations that Larder's pods carry for one node: the cache's own, and one for each of the node's taints that
/// is always tolerated or that is about the node's health and may come later.
pub fn pod_tolerations(nodes: &NodesSpec, node: &NodeFacts) -> Vec<Toleration> {
    let exists = |key: &str| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    };
    let mut all: Vec<Toleration> = nodes.tolerations.clone();
    all.extend(ALWAYS_TOLERATED.iter().map(|key| exists(key)));
    for taint in node
        .taints
        .iter()
        .filter(|t| t.key.starts_with(STARTUP_TAINT_PREFIX))
    {
        let toleration = exists(&taint.key);
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

#[cfg(test)]
mod tests;
