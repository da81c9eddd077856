//! What the operator sees of an agent: one that pulls an image a second and removes at once. Of the real one's decisions
//! see `joint`.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::node_image_cache::{CacheOnNode, Desired, NodeState, PullerStatus};
use larder_api::revision::RevisionImage;
use larder_core::choose::is_for_agent;
use larder_core::merge::Agent;

use super::world::{GENERATION, Node};
use crate::parts::objects::{digest_at, id_of};
use crate::parts::runtime::Runtime;

impl Node {
    /// The agent, where it is alive: pulls one image, removes what has to go, says what is there.
    pub fn agent(&mut self) {
        if self.agent != Agent::Alive {
            return;
        }
        let mut caches = Vec::new();
        let mut wanted = BTreeSet::new();
        for claim in self.claims.iter().filter(|c| c.desired == Desired::Present) {
            let revision = self
                .revisions
                .iter()
                .find(|r| r.metadata.name.as_deref() == Some(&claim.revision));
            wanted.extend(revision.unwrap().spec.spec.images.iter().map(|i| i.image.clone()));
        }
        for claim in &self.claims {
            let revision = self
                .revisions
                .iter()
                .find(|r| r.metadata.name.as_deref() == Some(&claim.revision));
            let spec = &revision.unwrap().spec.spec;
            let own = |i: &RevisionImage| is_for_agent(claim.into(), spec, i);
            let mut entry = CacheOnNode {
                namespace: "ns".into(),
                name: claim.name.clone(),
                uid: claim.uid.clone(),
                revision: claim.revision.clone(),
                since: Some(Time(self.now)),
                ..CacheOnNode::default()
            };
            if claim.desired == Desired::Absent {
                for image in spec.images.iter().filter(|i| !wanted.contains(&i.image)) {
                    entry.removed += i32::from(remove(&mut self.runtime, &image.image));
                }
                let before = self
                    .agent_status
                    .iter()
                    .flat_map(|s| &s.caches)
                    .find(|c| c.uid == claim.uid);
                entry.removed += before.map_or(0, |b| b.removed);
                entry.state = NodeState::Purged;
                caches.push(entry);
                continue;
            }
            if let Some(next) = spec
                .images
                .iter()
                .find(|i| own(i) && !self.runtime.holds(&i.image))
            {
                let (reference, digest) = (next.image.clone(), digest_at(&next.image));
                self.runtime.arrive(self.now, &reference, &digest, true, 0, true);
                self.pulled_by_agent.push(reference);
            }
            let missing: Vec<bool> = spec
                .images
                .iter()
                .map(|i| !own(i) || !self.runtime.holds(&i.image))
                .collect();
            entry.total = spec.images.iter().filter(|i| own(i)).count() as i32;
            entry.ready = missing.iter().filter(|m| !**m).count() as i32;
            entry.missing = hex(&missing);
            if entry.ready == entry.total {
                (entry.state, entry.held) = (NodeState::Ready, vec![claim.revision.clone()]);
                entry.checked_at = Some(Time(self.now));
            } else {
                entry.state = NodeState::Pulling;
            }
            if entry.total > 0 {
                caches.push(entry);
            }
        }
        self.agent_status = Some(PullerStatus {
            observed_generation: GENERATION,
            node_uid: self.facts.uid.clone(),
            caches,
            ..PullerStatus::default()
        });
    }
}

fn remove(runtime: &mut Runtime, reference: &str) -> bool {
    runtime.images.remove(&id_of(&digest_at(reference))).is_some()
}

/// A bit for each, as in `missing` of a cache on a node.
fn hex(bits: &[bool]) -> String {
    if !bits.contains(&true) {
        return String::new();
    }
    let digit = |four: &[bool]| {
        let value: u32 = four
            .iter()
            .enumerate()
            .map(|(i, set)| u32::from(*set) << (3 - i))
            .sum();
        char::from_digit(value, 16).unwrap()
    };
    bits.chunks(4).map(digit).collect()
}
