//! From the world to the core's snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use larder_api::ImageCacheRevision;
use larder_core::plan::{Plan, Snapshot, plan};
use larder_core::revise::owned;
use larder_core::revision::newest;

use crate::world::World;

/// Plans from what the world holds at this moment.
pub(super) fn make(world: &World, pulls_per_node: i32, now: Timestamp) -> Plan {
    let agents = world.agents(now);
    let nodes = world.nodes.all();
    let caches = world.caches.all();
    let objects = world.objects.all();
    let revisions = world.revisions.all();
    let by_owner = by_owner(&revisions);
    let newest_of = |uid: Option<&str>| {
        let of_cache = by_owner.get(uid?)?;
        newest(
            &of_cache
                .iter()
                .copied()
                .filter(|r| owned(r, uid.unwrap_or_default()))
                .collect::<Vec<_>>(),
        )
    };
    let snapshot = Snapshot {
        now,
        nodes: nodes.iter().map(|n| &**n).collect(),
        caches: caches
            .iter()
            .map(|c| (&**c, newest_of(c.metadata.uid.as_deref())))
            .collect(),
        objects: objects
            .iter()
            .filter_map(|o| Some((o.metadata.name.as_deref()?, &**o)))
            .collect(),
        revisions: revisions
            .iter()
            .filter_map(|r| {
                let key = (r.metadata.namespace.as_deref()?, r.metadata.name.as_deref()?);
                Some((key, &**r))
            })
            .collect(),
        agents: agents
            .iter()
            .map(|(node, agent)| (node.as_str(), *agent))
            .collect(),
        pulls_per_node,
    };
    plan(&snapshot)
}

fn by_owner(revisions: &[Arc<ImageCacheRevision>]) -> BTreeMap<&str, Vec<&ImageCacheRevision>> {
    let mut by_owner: BTreeMap<&str, Vec<&ImageCacheRevision>> = BTreeMap::new();
    for revision in revisions {
        for owner in revision.owner_references() {
            by_owner.entry(&owner.uid).or_default().push(revision);
        }
    }
    by_owner
}
