//! The steps, one after another.

use std::collections::BTreeSet;

use jiff::Timestamp;
use larder_api::names::Reason;
use larder_api::node_image_cache::{
    AgentStatus, CacheClaim, CacheOnNode, Capability, Desired, ImageOnNode, NodeState,
};

use super::presence::Store;
use super::scope::{Scope, previous};
use super::types::{Action, AgentInput, Decision, Observed};
use super::wanted::{Wanted, Whose};
use super::write::worth_writing;
use super::{conditions, disk, protect, pulls, remove, status};
use crate::node::{Write, compose};
use crate::plan::earliest;
use crate::pull::bits;
use crate::trim::trim_agent;

/// Decides. [`super::Memory::observe`] comes first, with the same observation.
pub fn decide(input: &AgentInput<'_>) -> Decision {
    let wanted = Wanted::of(input.os, input.architecture, input.spec, input.revisions);
    let (actions, status, wake_at, awaits_write) = match input.observed {
        Ok(observed) => seeing(input, &wanted, observed),
        Err(words) => blind(input, &wanted, words),
    };
    let status = trim_agent(status);
    let write = worth_writing(input, wanted.kubelet, &status);
    let wake_at = match write {
        Write::At(at) => earliest(wake_at, at),
        Write::No | Write::Now => wake_at,
    };
    Decision {
        actions,
        status,
        write,
        awaits_write,
        wake_at,
    }
}

/// The spec that the node answers to: while a removal is at work, the one by which it was decided. The operator lets no
/// pod pull for a newer spec before it is named here, lest the removal take what the pod brings.
fn observed_generation(input: &AgentInput<'_>) -> i64 {
    let removing = input.removing.iter().map(|r| match r.generation {
        // Of an object that was there before this one, whose generations count anew.
        other if other > input.generation => 0,
        same => same,
    });
    removing.fold(input.generation, i64::min)
}

type Steps = (Vec<Action>, AgentStatus, Option<Timestamp>, bool);

fn seeing(input: &AgentInput<'_>, wanted: &Wanted<'_>, observed: &Observed) -> Steps {
    let scope = Scope {
        input,
        observed,
        wanted,
        store: Store::of(observed),
    };
    let pulls = pulls::decide(&scope);
    let protection = protect::decide(&scope);
    let disk = disk::report(observed.disk, input.previous.and_then(|p| p.disk.as_ref()));
    let mut caches = Vec::new();
    let mut images = Vec::new();
    let mut settled = BTreeSet::new();
    for claimed in &scope.wanted.claims {
        let said = status::say(&scope, claimed, &pulls, disk.as_ref());
        caches.extend(said.on_node);
        images.extend(said.images);
        if said.settled {
            settled.insert(claimed.claim.uid.as_str());
        }
    }
    let removals = remove::decide(&scope, &settled, &mut caches);
    let before = input.previous.map_or(&[][..], |p| p.conditions.as_slice());
    let mut capabilities = observed.capabilities.clone();
    capabilities.sort_unstable();
    let status = AgentStatus {
        puller: compose(observed_generation(input), &input.spec.node_uid, caches, images),
        pod_uid: input.pod_uid.to_owned(),
        runtime: Some(observed.runtime.clone()),
        capabilities,
        disk,
        conditions: vec![
            conditions::runtime_ready(before, input.generation, input.now, Ok(())),
            conditions::protected(
                before,
                input.generation,
                input.now,
                scope.can(Capability::Pin),
                protection.open,
            ),
        ],
    };
    let mut actions = pulls.cancel;
    actions.extend(pulls.tag);
    actions.extend(protection.actions);
    actions.extend(removals.order.map(Action::Remove));
    actions.extend(pulls.pull);
    let wake_at = [pulls.wake_at, removals.wake_at].into_iter().flatten().min();
    (actions, status, wake_at, removals.awaits_write)
}

/// The runtime does not answer: what is known stays as it was, and nothing is done.
fn blind(input: &AgentInput<'_>, wanted: &Wanted<'_>, words: &str) -> Steps {
    let mut status = input.previous.cloned().unwrap_or_default();
    input.pod_uid.clone_into(&mut status.pod_uid);
    let mut caches = Vec::new();
    for claimed in &wanted.claims {
        let known = previous(input.previous, &claimed.claim.uid).cloned();
        let missing: Vec<bool> = claimed.images.iter().map(|_| true).collect();
        let ours = claimed
            .images
            .iter()
            .filter(|i| i.whose != Whose::Kubelets)
            .count();
        caches.extend(known.or_else(|| (ours > 0).then(|| unknown(claimed.claim, ours, &missing))));
    }
    let absent = input.spec.caches.iter().filter(|c| c.desired == Desired::Absent);
    caches.extend(absent.map(|claim| remove::unasked(input, claim)));
    let claimed = |image: &ImageOnNode| wanted.claims.iter().any(|c| c.cache() == image.cache);
    let images: Vec<ImageOnNode> = status.puller.images.drain(..).filter(claimed).collect();
    let omitted = status.puller.images_omitted;
    status.puller = compose(observed_generation(input), &input.spec.node_uid, caches, images);
    status.puller.images_omitted += omitted;
    let ready = conditions::runtime_ready(&status.conditions, input.generation, input.now, Err(words));
    status.conditions.retain(|c| c.type_ != ready.type_);
    status.conditions.insert(0, ready);
    (Vec::new(), status, None, false)
}

/// A claim of which nothing has been said yet.
fn unknown(claim: &CacheClaim, ours: usize, missing: &[bool]) -> CacheOnNode {
    CacheOnNode {
        namespace: claim.namespace.clone(),
        name: claim.name.clone(),
        uid: claim.uid.clone(),
        revision: claim.revision.clone(),
        state: NodeState::Waiting,
        reason: Some(Reason::RuntimeError),
        message: "the runtime does not answer".to_owned(),
        total: i32::try_from(ours).unwrap_or(i32::MAX),
        missing: bits::encode(missing),
        ..CacheOnNode::default()
    }
}
