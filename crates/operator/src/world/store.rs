//! The objects of one kind, as last seen or last written by ourselves, whichever is newer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;

/// Namespace (empty for cluster-scoped kinds) and name.
pub type Key = (String, String);

/// UIDs of deleted objects that are remembered, lest a late answer to a write of ours bring one back.
const BURIED: usize = 4096;

/// Objects of one kind by key, with one index.
///
/// A change is taken only if its resourceVersion is higher than that of what is stored (API servers from 1.32 on
/// number all objects of a resource in one order), so a watch that lags behind our own writes is no harm.
#[derive(Debug)]
pub struct Store<K> {
    inner: RwLock<Inner<K>>,
    index: fn(&K) -> Vec<String>,
}

#[derive(Debug)]
struct Inner<K> {
    objects: BTreeMap<Key, Entry<K>>,
    by_index: BTreeMap<String, BTreeSet<Key>>,
    /// UIDs that we asked to be deleted and that are not gone yet.
    deleting: BTreeSet<String>,
    buried: BTreeSet<String>,
    /// The same, oldest first.
    burials: VecDeque<String>,
    /// Counts the lists that were begun.
    list: u64,
    listed: bool,
    /// Keys seen by the list under way.
    seen: BTreeSet<Key>,
}

#[derive(Debug)]
struct Entry<K> {
    object: Arc<K>,
    version: u64,
    /// The list that was under way or last ended when this came.
    list: u64,
}

/// What changed: before and after. Both, or one where it came or went.
#[derive(Debug)]
pub struct Change<K> {
    /// Before.
    pub old: Option<Arc<K>>,
    /// After.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// Both sides that exist.
    pub fn sides(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(&self.new)
    }
}

impl<K: Resource + Clone> Store<K> {
    /// An empty store; `index` names the groups that an object is found by.
    pub fn new(index: fn(&K) -> Vec<String>) -> Self {
        Self {
            index,
            inner: RwLock::new(Inner {
                objects: BTreeMap::new(),
                by_index: BTreeMap::new(),
                deleting: BTreeSet::new(),
                buried: BTreeSet::new(),
                burials: VecDeque::new(),
                list: 0,
                listed: false,
                seen: BTreeSet::new(),
            }),
        }
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.read().objects.get(&key).map(|e| Arc::clone(&e.object))
    }

    /// Every object, in the order of namespace and name.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read()
            .objects
            .values()
            .map(|e| Arc::clone(&e.object))
            .collect()
    }

    /// The objects of one group of the index.
    pub fn indexed(&self, group: &str) -> Vec<Arc<K>> {
        let inner = self.read();
        let keys = inner.by_index.get(group).into_iter().flatten();
        keys.filter_map(|key| inner.objects.get(key))
            .map(|e| Arc::clone(&e.object))
            .collect()
    }

    /// Whether a group of the index has any object.
    pub fn has(&self, group: &str) -> bool {
        self.read().by_index.contains_key(group)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the kind has been listed once.
    pub fn listed(&self) -> bool {
        self.read().listed
    }

    /// An object came or changed. None if what is stored is as new.
    pub fn apply(&self, object: K) -> Option<Change<K>> {
        let mut inner = self.write();
        let key = key_of(&object);
        let version = version_of(&object);
        if inner.objects.get(&key).is_some_and(|e| e.version >= version) || inner.is_buried(&object) {
            return None;
        }
        Some(inner.put(self.index, key, version, object))
    }

    /// An object is gone. None if another one has its name by now.
    pub fn remove(&self, object: &K) -> Option<Change<K>> {
        let mut inner = self.write();
        let key = key_of(object);
        inner.bury(object.meta().uid.as_deref());
        if inner.objects.get(&key)?.object.meta().uid != object.meta().uid {
            return None;
        }
        inner.take(self.index, &key)
    }

    /// The API server says that no object of this UID is there.
    pub fn gone(&self, namespace: &str, name: &str, uid: &str) -> Option<Change<K>> {
        let mut inner = self.write();
        inner.bury(Some(uid));
        let key = (namespace.to_owned(), name.to_owned());
        if inner.objects.get(&key)?.object.meta().uid.as_deref() != Some(uid) {
            return None;
        }
        inner.take(self.index, &key)
    }

    /// We asked for an object's deletion: from now on it is seen as being deleted, whatever a late watch says.
    pub fn mark_deleting(&self, namespace: &str, name: &str, uid: &str, at: Time) -> Option<Change<K>> {
        let mut inner = self.write();
        let key = (namespace.to_owned(), name.to_owned());
        let entry = inner.objects.get(&key)?;
        let meta = entry.object.meta();
        if meta.uid.as_deref() != Some(uid) || meta.deletion_timestamp.is_some() {
            return None;
        }
        let mut object = (*entry.object).clone();
        let version = entry.version;
        object.meta_mut().deletion_timestamp = Some(at);
        inner.deleting.insert(uid.to_owned());
        Some(inner.put(self.index, key, version, object))
    }

    /// A new list begins.
    pub fn list_begins(&self) {
        let mut inner = self.write();
        inner.list += 1;
        inner.seen.clear();
    }

    /// An object of the list. What was stored before the list began gives way to it, whatever its version: after a
    /// restore from a backup versions may be lower.
    pub fn list_item(&self, object: K) -> Option<Change<K>> {
        let mut inner = self.write();
        let key = key_of(&object);
        let version = version_of(&object);
        let list = inner.list;
        inner.seen.insert(key.clone());
        let stays = inner.objects.get(&key).is_some_and(|e| {
            if e.list == list {
                e.version >= version
            } else {
                e.version == version
            }
        });
        if stays {
            return None;
        }
        Some(inner.put(self.index, key, version, object))
    }

    /// The list is complete: what it did not hold is gone, unless we made it since the list began.
    pub fn list_ends(&self) -> Vec<Change<K>> {
        let mut inner = self.write();
        inner.listed = true;
        let seen = std::mem::take(&mut inner.seen);
        let list = inner.list;
        let gone: Vec<Key> = inner
            .objects
            .iter()
            .filter(|(k, e)| e.list < list && !seen.contains(*k))
            .map(|(k, _)| k.clone())
            .collect();
        for key in &gone {
            let uid = inner.objects.get(key).and_then(|e| e.object.meta().uid.clone());
            inner.bury(uid.as_deref());
        }
        gone.iter()
            .filter_map(|key| inner.take(self.index, key))
            .collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner<K>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<K>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Resource + Clone> Inner<K> {
    fn put(&mut self, index: fn(&K) -> Vec<String>, key: Key, version: u64, mut object: K) -> Change<K> {
        // Half of an object's size, and of no use here.
        object.meta_mut().managed_fields = None;
        let uid = object.meta().uid.clone().unwrap_or_default();
        if object.meta().deletion_timestamp.is_none() && self.deleting.contains(&uid) {
            object.meta_mut().deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        }
        let groups = index(&object);
        let new = Arc::new(object);
        let entry = Entry {
            object: Arc::clone(&new),
            version,
            list: self.list,
        };
        let old = self.objects.insert(key.clone(), entry).map(|e| e.object);
        if let Some(old) = &old {
            self.unindex(index, &key, old);
            if old.meta().uid != new.meta().uid {
                let uid = old.meta().uid.clone();
                self.bury(uid.as_deref());
            }
        }
        for group in groups {
            self.by_index.entry(group).or_default().insert(key.clone());
        }
        Change { old, new: Some(new) }
    }

    fn take(&mut self, index: fn(&K) -> Vec<String>, key: &Key) -> Option<Change<K>> {
        let old = self.objects.remove(key)?.object;
        self.unindex(index, key, &old);
        Some(Change {
            old: Some(old),
            new: None,
        })
    }

    fn unindex(&mut self, index: fn(&K) -> Vec<String>, key: &Key, object: &K) {
        for group in index(object) {
            if let Some(keys) = self.by_index.get_mut(&group) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_index.remove(&group);
                }
            }
        }
    }

    fn bury(&mut self, uid: Option<&str>) {
        let Some(uid) = uid else { return };
        self.deleting.remove(uid);
        if !self.buried.insert(uid.to_owned()) {
            return;
        }
        self.burials.push_back(uid.to_owned());
        if self.burials.len() > BURIED
            && let Some(oldest) = self.burials.pop_front()
        {
            self.buried.remove(&oldest);
        }
    }

    fn is_buried(&self, object: &K) -> bool {
        object
            .meta()
            .uid
            .as_ref()
            .is_some_and(|uid| self.buried.contains(uid))
    }
}

fn key_of<K: Resource>(object: &K) -> Key {
    (
        object.meta().namespace.clone().unwrap_or_default(),
        object.meta().name.clone().unwrap_or_default(),
    )
}

fn version_of<K: Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|v| v.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
