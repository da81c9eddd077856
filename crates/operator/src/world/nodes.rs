//! The nodes, as facts: heartbeats change nothing here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::api::core::v1::Node;
use larder_core::facts::NodeFacts;

use super::store::Change;

/// Every node by name. Nobody here writes nodes, so what the watch says is always the newest.
#[derive(Debug, Default)]
pub struct Nodes {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: BTreeMap<String, Arc<NodeFacts>>,
    listed: bool,
    seen: BTreeSet<String>,
}

impl Nodes {
    /// One node.
    pub fn get(&self, name: &str) -> Option<Arc<NodeFacts>> {
        self.read().nodes.get(name).cloned()
    }

    /// Every node, by name.
    pub fn all(&self) -> Vec<Arc<NodeFacts>> {
        self.read().nodes.values().cloned().collect()
    }

    /// Whether nodes have been listed once.
    pub fn listed(&self) -> bool {
        self.read().listed
    }

    /// A node came or changed. None if no fact of interest did.
    pub fn apply(&self, node: &Node) -> Option<Change<NodeFacts>> {
        let facts = NodeFacts::from_node(node);
        let mut inner = self.write();
        inner.seen.insert(facts.name.clone());
        if inner.nodes.get(&facts.name).is_some_and(|old| **old == facts) {
            return None;
        }
        let new = Arc::new(facts);
        let old = inner.nodes.insert(new.name.clone(), Arc::clone(&new));
        Some(Change { old, new: Some(new) })
    }

    /// A node is gone.
    pub fn remove(&self, name: &str) -> Option<Change<NodeFacts>> {
        let old = self.write().nodes.remove(name)?;
        Some(Change {
            old: Some(old),
            new: None,
        })
    }

    /// A new list begins.
    pub fn list_begins(&self) {
        self.write().seen.clear();
    }

    /// The list is complete: what it did not hold is gone.
    pub fn list_ends(&self) -> Vec<Change<NodeFacts>> {
        let mut inner = self.write();
        inner.listed = true;
        let seen = std::mem::take(&mut inner.seen);
        let gone: Vec<String> = inner
            .nodes
            .keys()
            .filter(|name| !seen.contains(*name))
            .cloned()
            .collect();
        gone.iter()
            .filter_map(|name| inner.nodes.remove(name))
            .map(|old| Change {
                old: Some(old),
                new: None,
            })
            .collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus};

    use super::*;

    fn node(name: &str, ready: bool, version: &str) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some(name.into());
        node.metadata.resource_version = Some(version.into());
        let condition = NodeCondition {
            type_: "Ready".into(),
            status: if ready { "True" } else { "False" }.into(),
            ..NodeCondition::default()
        };
        node.status = Some(NodeStatus {
            conditions: Some(vec![condition]),
            ..NodeStatus::default()
        });
        node
    }

    #[test]
    fn heartbeats_are_no_change() {
        let nodes = Nodes::default();
        assert!(nodes.apply(&node("n", true, "1")).is_some());
        assert!(nodes.apply(&node("n", true, "2")).is_none());
        let change = nodes.apply(&node("n", false, "3")).unwrap();
        assert!(change.old.unwrap().ready && !change.new.unwrap().ready);
    }

    #[test]
    fn lists_take_away_what_is_missing() {
        let nodes = Nodes::default();
        nodes.apply(&node("a", true, "1"));
        nodes.apply(&node("b", true, "1"));
        nodes.list_begins();
        nodes.apply(&node("b", true, "2"));
        let gone = nodes.list_ends();
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].old.as_ref().unwrap().name, "a");
        assert!(nodes.listed() && nodes.get("b").is_some());
    }
}
