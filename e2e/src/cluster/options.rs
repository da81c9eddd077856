//! What a caller asks for when a cluster or a node is made.

use std::collections::BTreeMap;

use crate::cluster::error::{Error, Result};
use crate::cluster::name::{ClusterName, check_node_name};
use crate::cluster::node::kubelet;
use crate::cluster::state::{ClusterState, NodeState};

/// The minor version of Kubernetes that runs unless another is asked for.
pub const DEFAULT_KUBERNETES: &str = "1.36";

/// The size of a node's image disk unless another is asked for: 8 GiB, in bytes.
pub const DEFAULT_IMAGE_DISK: u64 = 8 << 30;

/// What cluster to bring up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name.
    pub name: ClusterName,
    /// How many nodes it has at least.
    pub nodes: u8,
    /// The minor version of Kubernetes, such as `1.36`. A cluster that is there already keeps its own.
    pub kubernetes: String,
    /// The size of each new node's image disk, in bytes. Files are sparse: only what is written takes space.
    pub image_disk: u64,
    /// Whether new clusters' kubelets pull one image at a time, as is Kubernetes' default.
    pub serialize_image_pulls: bool,
}

impl Options {
    /// Three nodes of the default version and size.
    pub fn new(name: ClusterName) -> Self {
        Self {
            name,
            nodes: 3,
            kubernetes: DEFAULT_KUBERNETES.into(),
            image_disk: DEFAULT_IMAGE_DISK,
            serialize_image_pulls: false,
        }
    }
}

/// What node to add.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// Its name; none: the first free `node-N`.
    pub name: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints, as `key=value:Effect` or `key:Effect`.
    pub taints: Vec<String>,
    /// The size of its image disk, in bytes; none: the cluster's.
    pub image_disk: Option<u64>,
    /// Merged over the kubelet's configuration (RFC 7396), such as `{"imageGCHighThresholdPercent": 50}`.
    pub kubelet: serde_json::Value,
}

impl NodeOptions {
    /// The node that is to be, or why it cannot.
    pub fn check(self, cluster: &ClusterState) -> Result<NodeState> {
        let name = self.name.unwrap_or_else(|| cluster.free_name());
        check_node_name(&name)?;
        if cluster.node(&name).is_ok() {
            return Err(Error::Refused(format!("the cluster has a node {name:?} already")));
        }
        if let Some(bad) = self.taints.iter().find(|taint| kubelet::taint(taint).is_none()) {
            let effects = "NoSchedule, PreferNoSchedule or NoExecute";
            return Err(Error::Refused(format!(
                "taint {bad:?} is not key=value:Effect with an effect of {effects}"
            )));
        }
        Ok(NodeState {
            name,
            number: cluster.free_number()?,
            labels: self.labels,
            taints: self.taints,
            image_disk: self.image_disk.unwrap_or(cluster.image_disk),
            kubelet: self.kubelet,
            stopped: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> ClusterState {
        ClusterState::new(&Options {
            image_disk: 1 << 30,
            ..Options::new(ClusterName::new("x").unwrap())
        })
    }

    #[test]
    fn a_node_takes_what_is_free() {
        let mut cluster = cluster();
        let first = NodeOptions::default().check(&cluster).unwrap();
        assert_eq!(
            (first.name.as_str(), first.number, first.image_disk),
            ("node-1", 1, 1 << 30)
        );
        cluster.nodes.push(first);
        let small = NodeOptions {
            name: Some("small".into()),
            image_disk: Some(1 << 20),
            ..NodeOptions::default()
        };
        assert_eq!(small.check(&cluster).unwrap().number, 2);
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_made() {
        let mut cluster = cluster();
        cluster
            .nodes
            .push(NodeOptions::default().check(&cluster).unwrap());
        let named = |name: &str| NodeOptions {
            name: Some(name.into()),
            ..NodeOptions::default()
        };
        assert!(named("node-1").check(&cluster).is_err());
        assert!(named("Node").check(&cluster).is_err());
        let tainted = NodeOptions {
            taints: vec!["a=b:Sometimes".into()],
            ..NodeOptions::default()
        };
        assert!(
            tainted
                .check(&cluster)
                .unwrap_err()
                .to_string()
                .contains("a=b:Sometimes")
        );
    }
}
