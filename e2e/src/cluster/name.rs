//! Names of clusters and nodes, and the names on the machine that derive from them.
//!
//! Everything of a cluster on the machine begins with its name and a character that no name contains (a dot, or a
//! slash in paths), so that `larder` never takes hold of what belongs to `larder-test`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cluster::error::{Error, Result};

/// The name of a cluster: a DNS label of at most 40 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

impl ClusterName {
    /// Takes a name, or says which rule it breaks.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        check("cluster", &name, 40)?;
        Ok(Self(name))
    }

    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The network namespace of the control plane, the registries and the bridge.
    pub fn control_netns(&self) -> String {
        format!("{}.control", self.0)
    }

    /// The network namespace of a node. The `n.` keeps a node named `control` apart from the control plane.
    pub fn node_netns(&self, node: &str) -> String {
        format!("{}.n.{node}", self.0)
    }

    /// What the names of all network namespaces of this cluster begin with.
    pub fn netns_prefix(&self) -> String {
        format!("{}.", self.0)
    }

    /// The cluster's subtree in every cgroup hierarchy, relative to its root.
    pub fn cgroup(&self) -> String {
        self.0.clone()
    }

    /// The subtree that holds a node's components and pods.
    pub fn node_cgroup(&self, node: &str) -> String {
        format!("{}/n-{node}", self.0)
    }

    /// The leaf that holds the control plane, the registries and the supervisor.
    pub fn control_cgroup(&self) -> String {
        format!("{}/control", self.0)
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for ClusterName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<String> for ClusterName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

/// Checks the name of a node: a DNS label of at most 40 characters, as it becomes a host name and a cgroup.
pub fn check_node_name(name: &str) -> Result<()> {
    check("node", name, 40)
}

fn check(kind: &'static str, name: &str, longest: usize) -> Result<()> {
    let refuse = |why| {
        Err(Error::Name {
            kind,
            name: name.to_owned(),
            why,
        })
    };
    if name.is_empty() {
        return refuse("must not be empty");
    }
    if name.len() > longest {
        return refuse("is longer than 40 characters");
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return refuse("may hold only a-z, 0-9 and -");
    }
    if name.starts_with('-') || name.ends_with('-') {
        return refuse("must begin and end with a letter or digit");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dns_labels() {
        for good in ["larder", "larder-test", "a", "1", "n0-1"] {
            assert!(ClusterName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "a b", "../x", &"x".repeat(41)] {
            assert!(ClusterName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_cluster_never_owns_the_namespaces_of_another() {
        let larder = ClusterName::new("larder").unwrap();
        let test = ClusterName::new("larder-test").unwrap();
        assert!(!test.control_netns().starts_with(&larder.netns_prefix()));
        assert!(!test.node_netns("node-1").starts_with(&larder.netns_prefix()));
        assert!(larder.node_netns("control").starts_with(&larder.netns_prefix()));
        assert_ne!(larder.node_netns("control"), larder.control_netns());
    }

    #[test]
    fn a_name_in_a_file_is_checked_like_one_on_the_command_line() {
        assert!(serde_json::from_str::<ClusterName>("\"../etc\"").is_err());
        assert_eq!(
            serde_json::from_str::<ClusterName>("\"larder\"")
                .unwrap()
                .as_str(),
            "larder"
        );
    }
}
