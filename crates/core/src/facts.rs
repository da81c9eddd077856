//! Plain facts about nodes, taken from `v1.Node` once, so that heartbeats do not look like changes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};

/// What Larder needs to know of a node. Two equal values mean that nothing of interest changed.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own in v1.Node"
)]
pub struct NodeFacts {
    /// Name.
    pub name: String,
    /// UID: a node re-created under its name is another node.
    pub uid: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Cordoned.
    pub unschedulable: bool,
    /// The condition `Ready` is True.
    pub ready: bool,
    /// The condition `DiskPressure` is True.
    pub disk_pressure: bool,
    /// As in Go's GOOS.
    pub os: String,
    /// As in Go's GOARCH.
    pub architecture: String,
    /// When it joined.
    pub created_at: Option<Timestamp>,
    /// The node is being deleted.
    pub deleting: bool,
}

impl NodeFacts {
    /// Reads a node. Absent fields are empty, absent conditions are False.
    pub fn from_node(node: &Node) -> Self {
        let status = node.status.as_ref();
        let condition = |kind: &str| {
            status
                .and_then(|s| s.conditions.as_ref())
                .is_some_and(|all| all.iter().any(|c| c.type_ == kind && c.status == "True"))
        };
        let info = status.and_then(|s| s.node_info.as_ref());
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: node
                .spec
                .as_ref()
                .and_then(|s| s.taints.clone())
                .unwrap_or_default(),
            unschedulable: node
                .spec
                .as_ref()
                .and_then(|s| s.unschedulable)
                .unwrap_or_default(),
            ready: condition("Ready"),
            disk_pressure: condition("DiskPressure"),
            os: info.map(|i| i.operating_system.clone()).unwrap_or_default(),
            architecture: info.map(|i| i.architecture.clone()).unwrap_or_default(),
            created_at: node.metadata.creation_timestamp.as_ref().map(|t| t.0),
            deleting: node.metadata.deletion_timestamp.is_some(),
        }
    }
}
