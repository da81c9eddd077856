//! What the claims on a node want of its agent.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use larder_api::image_cache::{OnMissingPlatform, Puller, RetrySpec};
use larder_api::node_image_cache::{CacheClaim, Desired};
use larder_api::revision::RevisionImage;
use larder_api::{ImageCacheRevision, NodeImageCacheSpec};

use crate::choose::{is_for_agent, may_use_credentials};
use crate::plan::{ClaimSettings, Revisions};

/// A reference, normalised, and the digest it should have, where known.
pub(super) type Key<'a> = (&'a str, Option<&'a str>);

/// Everything that is wanted.
pub(super) struct Wanted<'a> {
    /// Claims that are Present.
    pub(super) claims: Vec<Claimed<'a>>,
    /// Images to pull, each once however many claims want it.
    pub(super) images: BTreeMap<Key<'a>, Want<'a>>,
    /// The revision of a Present claim cannot be read: nobody knows what it wants, so nothing goes that it may want.
    pub(super) blind: bool,
    /// Some image is the kubelet's to pull.
    pub(super) kubelet: bool,
}

/// A Present claim.
pub(super) struct Claimed<'a> {
    pub(super) claim: &'a CacheClaim,
    pub(super) settings: ClaimSettings,
    /// None if it cannot be read.
    pub(super) revision: Option<&'a ImageCacheRevision>,
    /// Every image of the revision, in its order.
    pub(super) images: Vec<Wish<'a>>,
}

/// An image of a revision, as far as the agent is concerned.
pub(super) struct Wish<'a> {
    pub(super) image: &'a RevisionImage,
    pub(super) whose: Whose<'a>,
}

/// Who brings an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose<'a> {
    /// The kubelet.
    Kubelets,
    /// Nobody: it has no manifest for this node.
    Nobodys,
    /// The agent: it is in [`Wanted::images`] under this key.
    Agents(Key<'a>),
}

/// An image to pull, for all claims that want it.
#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is what the claims agree on in a matter of its own"
)]
pub(super) struct Want<'a> {
    /// Digests that prove it: the wanted one and those of the node's platform.
    pub(super) digests: Vec<&'a str>,
    /// Its reference has a tag, and that tag is to mean this digest.
    pub(super) tagged: bool,
    /// Compressed bytes; zero where unknown.
    pub(super) bytes: i64,
    pub(super) priority: i32,
    pub(super) pin: bool,
    /// Some claim lets the agent ask the node's credential providers.
    pub(super) credentials: bool,
    pub(super) attempt: Duration,
    pub(super) no_progress: Duration,
    pub(super) retry: RetrySpec,
    /// An image without a manifest for the node is left out; a claim that calls it a failure outweighs those that do not.
    pub(super) skippable: bool,
    /// The latest of assignments and refreshes.
    pub(super) asked_at: Timestamp,
    /// Indices in [`Wanted::claims`].
    pub(super) claims: Vec<usize>,
}

impl<'a> Wanted<'a> {
    /// Reads the claims. Where two claims want one tag to mean different digests, the tag belongs to the claim with the
    /// newest assignment, of equal ones to that with the greatest UID; the other's image is whole without the tag. A
    /// claim that knows no digest for a reference wants what the tag's owner wants.
    pub(super) fn of(
        os: &str,
        architecture: &str,
        spec: &'a NodeImageCacheSpec,
        revisions: &Revisions<'a>,
    ) -> Self {
        let mut present: Vec<&CacheClaim> = spec
            .caches
            .iter()
            .filter(|c| c.desired == Desired::Present)
            .collect();
        present.sort_by(|a, b| (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid)));
        let read: Vec<(&CacheClaim, Option<&ImageCacheRevision>)> = present
            .into_iter()
            .map(|c| {
                let revision = revisions.get(&(c.namespace.as_str(), c.revision.as_str()));
                (c, revision.copied())
            })
            .collect();
        let owners = owners(&read);
        let mut wanted = Self {
            claims: Vec::new(),
            images: BTreeMap::new(),
            blind: read.iter().any(|(_, revision)| revision.is_none()),
            kubelet: false,
        };
        for (claim, revision) in read {
            let settings = ClaimSettings::of(claim.overrides.as_ref());
            let images = revision.map_or(&[][..], |r| r.spec.spec.images.as_slice());
            let place = wanted.claims.len();
            let wishes: Vec<Wish<'a>> = images
                .iter()
                .map(|image| {
                    let ours = revision.is_some_and(|r| is_for_agent(claim.into(), &r.spec.spec, image));
                    let here = Here::of(image, os, architecture);
                    let whose = if !ours {
                        Whose::Kubelets
                    } else if here.missing {
                        Whose::Nobodys
                    } else {
                        let key = wanted.add(place, claim, &settings, image, &here, &owners);
                        Whose::Agents(key)
                    };
                    Wish { image, whose }
                })
                .collect();
            wanted.kubelet |= wishes.iter().any(|w| w.whose == Whose::Kubelets);
            wanted.claims.push(Claimed {
                claim,
                settings,
                revision,
                images: wishes,
            });
        }
        wanted
    }

    fn add(
        &mut self,
        place: usize,
        claim: &'a CacheClaim,
        settings: &ClaimSettings,
        image: &'a RevisionImage,
        here: &Here<'a>,
        owners: &BTreeMap<&'a str, Owner<'a>>,
    ) -> Key<'a> {
        let reference = image.image.as_str();
        let own = image.digest.as_deref().or(digest_of(reference));
        let owner = owners.get(reference).map(|o| o.digest);
        let digest = own.or(owner);
        let key = (reference, digest);
        let want = self.images.entry(key).or_insert_with(|| Want {
            digests: digest.into_iter().collect(),
            tagged: digest_of(reference).is_none() && (owner.is_none() || owner == digest),
            bytes: 0,
            priority: i32::MIN,
            pin: false,
            credentials: false,
            attempt: Duration::ZERO,
            no_progress: Duration::ZERO,
            retry: settings.retry.clone(),
            skippable: true,
            asked_at: Timestamp::MIN,
            claims: Vec::new(),
        });
        for manifest in &here.manifests {
            if !want.digests.contains(manifest) {
                want.digests.push(manifest);
            }
        }
        want.bytes = want.bytes.max(here.bytes);
        want.priority = want.priority.max(image.priority);
        want.pin |= settings.pin;
        want.credentials |= may_use_credentials(claim.into(), image);
        want.attempt = want.attempt.max(settings.timeouts.attempt.into());
        want.no_progress = want.no_progress.max(settings.timeouts.no_progress.into());
        let patience = |r: &RetrySpec| (Duration::from(r.max_delay), Duration::from(r.initial_delay));
        if patience(&settings.retry) < patience(&want.retry) {
            want.retry = settings.retry.clone();
        }
        want.skippable &= settings.on_missing_platform == OnMissingPlatform::Skip;
        want.asked_at = want.asked_at.max(asked_at(claim));
        want.claims.push(place);
        key
    }

    /// Digests and tags of all images that some claim wants pinned, whoever pulls them; a claim whose puller is Job keeps
    /// the agent's hands off.
    pub(super) fn pinned(&self) -> impl Iterator<Item = &'a RevisionImage> {
        self.claims
            .iter()
            .filter(|c| c.settings.pin && c.claim.puller != Puller::Job)
            .flat_map(|c| c.images.iter().map(|i| i.image))
    }
}

/// When the revision was assigned, or a refresh asked for later.
fn asked_at(claim: &CacheClaim) -> Timestamp {
    let verify = claim.verify_after.as_ref().map(|t| t.0);
    verify.map_or(claim.assigned_at.0, |v| v.max(claim.assigned_at.0))
}

/// The digest within a reference.
pub(super) fn digest_of(reference: &str) -> Option<&str> {
    reference.split_once('@').map(|(_, digest)| digest)
}

/// Which digest a tag is to mean.
struct Owner<'a> {
    since: (Timestamp, &'a str),
    digest: &'a str,
}

fn owners<'a>(read: &[(&'a CacheClaim, Option<&'a ImageCacheRevision>)]) -> BTreeMap<&'a str, Owner<'a>> {
    let mut owners: BTreeMap<&str, Owner<'_>> = BTreeMap::new();
    for (claim, revision) in read {
        let since = (claim.assigned_at.0, claim.uid.as_str());
        for image in revision.iter().flat_map(|r| &r.spec.spec.images) {
            let reference = image.image.as_str();
            let (Some(digest), None) = (image.digest.as_deref(), digest_of(reference)) else {
                continue;
            };
            let newer = owners.get(reference).is_none_or(|o| o.since < since);
            if newer {
                owners.insert(reference, Owner { since, digest });
            }
        }
    }
    owners
}

/// What an image is on this node's platform.
pub(super) struct Here<'a> {
    /// Its manifests; several where variants are known.
    pub(super) manifests: Vec<&'a str>,
    bytes: i64,
    /// It has manifests, and none of them is for this node.
    pub(super) missing: bool,
}

impl<'a> Here<'a> {
    pub(super) fn of(image: &'a RevisionImage, os: &str, architecture: &str) -> Self {
        let mut here = Self {
            manifests: Vec::new(),
            bytes: 0,
            missing: image.digest.is_some() && !image.platforms.is_empty(),
        };
        let fits = image
            .platforms
            .iter()
            .filter(|p| p.os == os && p.architecture == architecture);
        for platform in fits {
            here.manifests.push(&platform.digest);
            here.bytes = here.bytes.max(platform.size_bytes);
            here.missing = false;
        }
        here
    }
}
