//! The node's own object, as last seen.

use std::sync::Arc;

use larder_api::NodeImageCache;
use larder_api::node_image_cache::CacheOnNode;
use tokio::sync::watch;

/// What is known of the object.
#[derive(Clone, Debug, Default)]
pub(super) enum Own {
    /// Not looked up yet.
    #[default]
    Unknown,
    /// There is none: nothing is claimed.
    Absent,
    /// This one.
    Present(Arc<NodeImageCache>),
}

/// The newest state of the object that is known, from the watch or from an answer to a write.
#[derive(Debug, Default)]
pub(super) struct Object(watch::Sender<Own>);

impl Object {
    /// Tells of every change.
    pub(super) fn subscribe(&self) -> watch::Receiver<Own> {
        self.0.subscribe()
    }

    /// The watch found it, or found it changed. What is older than the answer to a write is passed over.
    pub(super) fn seen(&self, mut object: NodeImageCache) {
        trim(&mut object);
        self.0.send_if_modified(|own| {
            if let Own::Present(known) = own
                && known.metadata.uid == object.metadata.uid
                && version(known) >= version(&object)
            {
                return false;
            }
            *own = Own::Present(Arc::new(object));
            true
        });
    }

    /// The API server's answer to a write of the status. Unless somebody else wrote meanwhile, it changes nothing that the
    /// loop does not know, so that nobody is woken.
    pub(super) fn wrote(&self, mut object: NodeImageCache) {
        trim(&mut object);
        self.0.send_if_modified(|own| {
            let Own::Present(known) = own else { return false };
            if known.metadata.uid != object.metadata.uid || version(known) >= version(&object) {
                return false;
            }
            let kubelet = |o: &NodeImageCache| o.status.as_ref().and_then(|s| s.kubelet.clone());
            let news =
                known.metadata.generation != object.metadata.generation || kubelet(known) != kubelet(&object);
            *own = Own::Present(Arc::new(object));
            news
        });
    }

    /// There is none, or none any more.
    pub(super) fn gone(&self) {
        self.0.send_if_modified(|own| {
            let changed = !matches!(own, Own::Absent);
            *own = Own::Absent;
            changed
        });
    }
}

/// Versions are numbers that grow with each change of the object.
fn version(object: &NodeImageCache) -> u64 {
    let version = object.metadata.resource_version.as_deref().unwrap_or_default();
    version.parse().unwrap_or(0)
}

/// What is not needed, and the longest of it, is not kept.
fn trim(object: &mut NodeImageCache) {
    object.metadata.managed_fields = None;
    object.metadata.annotations = None;
    object.metadata.labels = None;
    if let Some(kubelet) = object.status.as_mut().and_then(|s| s.kubelet.as_mut()) {
        kubelet.images.clear();
        for cache in &mut kubelet.caches {
            *cache = CacheOnNode {
                namespace: std::mem::take(&mut cache.namespace),
                uid: std::mem::take(&mut cache.uid),
                state: cache.state,
                revision: std::mem::take(&mut cache.revision),
                held: std::mem::take(&mut cache.held),
                ..CacheOnNode::default()
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_api::node_image_cache::{ImageOnNode, NodeImageCacheStatus, NodeState, PullerStatus};

    use super::*;

    fn object(uid: &str, version: u64, generation: i64) -> NodeImageCache {
        let mut object = NodeImageCache::default();
        object.metadata.uid = Some(uid.into());
        object.metadata.resource_version = Some(version.to_string());
        object.metadata.generation = Some(generation);
        object
    }

    fn shown(store: &Object) -> String {
        match &*store.0.borrow() {
            Own::Present(object) => format!(
                "{} {}",
                object.metadata.uid.as_deref().unwrap_or_default(),
                version(object)
            ),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn of_the_kubelets_part_it_is_kept_which_caches_it_counts_on() {
        let mut seen = object("a", 1, 1);
        seen.status = Some(NodeImageCacheStatus {
            kubelet: Some(PullerStatus {
                node_uid: "node".into(),
                caches: vec![CacheOnNode {
                    uid: "web".into(),
                    state: NodeState::Ready,
                    message: "long".into(),
                    ..CacheOnNode::default()
                }],
                images: vec![ImageOnNode::default()],
                ..PullerStatus::default()
            }),
            ..NodeImageCacheStatus::default()
        });
        let store = Object::default();
        store.seen(seen);
        let Own::Present(kept) = store.0.borrow().clone() else {
            panic!("not kept");
        };
        let kubelet = kept.status.as_ref().unwrap().kubelet.as_ref().unwrap();
        assert_eq!((kubelet.node_uid.as_str(), kubelet.images.len()), ("node", 0));
        let cache = &kubelet.caches[0];
        assert_eq!(
            (cache.uid.as_str(), cache.state, cache.message.as_str()),
            ("web", NodeState::Ready, "")
        );
    }

    #[test]
    fn what_was_seen_later_holds_whatever_comes_first() {
        let store = Object::default();
        let mut changes = store.subscribe();
        store.wrote(object("a", 5, 1));
        assert_eq!(
            shown(&store),
            "Unknown",
            "an answer tells nothing of what the watch has not found"
        );
        store.seen(object("a", 5, 1));
        changes.mark_unchanged();
        store.wrote(object("a", 9, 1));
        assert!(!changes.has_changed().unwrap(), "our own write is no news");
        store.seen(object("a", 7, 1));
        assert_eq!(shown(&store), "a 9", "the watch is behind the write");
        store.wrote(object("a", 11, 2));
        assert!(changes.has_changed().unwrap(), "another writer's change is");
        let mut acknowledged = object("a", 12, 2);
        acknowledged.status = Some(NodeImageCacheStatus {
            kubelet: Some(PullerStatus::default()),
            ..NodeImageCacheStatus::default()
        });
        changes.mark_unchanged();
        store.wrote(acknowledged);
        assert!(changes.has_changed().unwrap(), "a removal may wait for it");
        store.seen(object("b", 3, 1));
        assert_eq!(shown(&store), "b 3", "a new object counts versions of its own");
        store.wrote(object("a", 13, 2));
        assert_eq!(shown(&store), "b 3");
        store.gone();
        store.wrote(object("b", 4, 1));
        assert_eq!(shown(&store), "Absent");
    }
}
