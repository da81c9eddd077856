//! What every decision of an agent promises.

use larder_api::image_cache::Puller;
use larder_api::node_image_cache::{CacheClaim, Desired, ImageState, NodeState};
use larder_api::revision::RevisionImage;
use larder_core::agent::{Action, Decision, Observed, RunningPull};
use larder_core::choose::is_for_agent;
use larder_core::plan::{ClaimSettings, Revisions};

use super::world::World;

impl World {
    /// Nothing above the limits, nothing wanted or used gone, nothing called ready that is not there.
    pub fn check(&self, decision: &Decision, revisions: &Revisions<'_>, observed: &Observed) {
        let new = decision
            .actions
            .iter()
            .filter(|a| matches!(a, Action::Pull(_)))
            .count();
        let limit = self.spec.limits.as_ref().map_or(5, |l| l.pulls as usize);
        assert!(new == 0 || self.process.pulls.len() + new <= limit);
        assert!(serde_json::to_vec(&decision.status).unwrap().len() <= 48 * 1024);
        let present: Vec<&CacheClaim> = self
            .spec
            .caches
            .iter()
            .filter(|c| c.desired == Desired::Present)
            .collect();
        let per_cache: usize = present
            .iter()
            .map(|c| ClaimSettings::of(c.overrides.as_ref()).images_per_node)
            .sum();
        let wanted = |p: &RunningPull| {
            present.iter().any(|c| {
                let revision = revisions.get(&("ns", c.revision.as_str()));
                let mut images = revision.iter().flat_map(|r| &r.spec.spec.images);
                images.any(|i| i.image == p.order.image && i.digest == p.order.digest)
            })
        };
        let at_work = self.process.pulls.iter().filter(|p| wanted(p)).count();
        assert!(new == 0 || at_work + new <= per_cache);
        let blind = present
            .iter()
            .any(|c| !revisions.contains_key(&("ns", c.revision.as_str())));
        for claim in &present {
            let Some(revision) = revisions.get(&("ns", claim.revision.as_str())) else {
                continue;
            };
            let pins = ClaimSettings::of(claim.overrides.as_ref()).pin && claim.puller != Puller::Job;
            for wanted in &revision.spec.spec.images {
                for action in &decision.actions {
                    match action {
                        Action::Remove(order) => {
                            assert!(
                                !order
                                    .entries
                                    .iter()
                                    .any(|e| e.reference == wanted.image && e.digest == wanted.digest),
                                "{wanted:?} is wanted"
                            );
                        }
                        Action::Pin { id, pin: false } => {
                            let target = wanted.digest.clone().unwrap_or_default();
                            let image = observed.images.iter().find(|i| i.id == *id).unwrap();
                            let meant = image.targets.contains(&target)
                                || (wanted.digest.is_none() && image.tags.contains_key(&wanted.image));
                            assert!(!(pins && meant), "{wanted:?} is unpinned");
                        }
                        _ => {}
                    }
                }
            }
            let entry = decision.status.puller.caches.iter().find(|c| c.uid == claim.uid);
            if entry.is_some_and(|e| e.state == NodeState::Ready && e.revision == claim.revision)
                && self.runtime_error.is_none()
            {
                for wanted in &revision.spec.spec.images {
                    let ours = is_for_agent((*claim).into(), &revision.spec.spec, wanted);
                    let mut images = decision.status.puller.images.iter();
                    let skipped = images.any(|i| i.image == wanted.image && i.state == ImageState::Skipped);
                    assert!(
                        !ours || skipped || is_whole(observed, wanted),
                        "{wanted:?} is not there"
                    );
                }
            }
        }
        for action in &decision.actions {
            assert!(
                !blind
                    || !matches!(
                        action,
                        Action::Remove(_) | Action::Pin { pin: false, .. } | Action::Cancel(_)
                    ),
                "{action:?} on a guess"
            );
        }
    }
}

fn is_whole(observed: &Observed, wanted: &RevisionImage) -> bool {
    observed.images.iter().any(|i| {
        i.complete
            && match &wanted.digest {
                Some(digest) => i.targets.contains(digest),
                None => i.tags.contains_key(&wanted.image),
            }
    })
}
