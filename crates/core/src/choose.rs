//! Who pulls an image on a node.

use larder_api::image_cache::{PrivateImages, Puller};
use larder_api::node_image_cache::CacheClaim;
use larder_api::revision::{ImageCacheRevisionSpec, RevisionImage};

use crate::plan::Revisions;

/// What a cache says about who pulls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// `spec.puller`.
    pub puller: Puller,
    /// `spec.privateImages`.
    pub private_images: PrivateImages,
    /// `spec.podTemplate.serviceAccountName` is set: that account may bring pull secrets along.
    pub service_account: bool,
}

impl From<&CacheClaim> for Who {
    fn from(claim: &CacheClaim) -> Self {
        Self {
            puller: claim.puller,
            private_images: claim.private_images,
            service_account: claim.service_account,
        }
    }
}

/// Whether an image of a claim is the agent's to pull, given that there is an agent.
///
/// What needs credentials is the kubelet's, unless the cache says otherwise: it has the pull secrets and the node's
/// credential providers, and remembers for whom it pulled (KEP-2535). So is what nobody has looked up, unless the agent
/// was asked for by name and the cache names nothing that the kubelet could use: no pull secret, and no service account,
/// whose own nobody but the kubelet looks at.
pub fn is_for_agent(who: Who, revision: &ImageCacheRevisionSpec, image: &RevisionImage) -> bool {
    let private = || !image.private || may_use_credentials(who, image);
    let without_secrets = || revision.pull_secrets.is_empty() && !who.service_account;
    match who.puller {
        Puller::Job => false,
        Puller::Auto => private(),
        Puller::Agent => private() || (image.digest.is_none() && without_secrets()),
    }
}

/// Whether some image of the claimed revision is the kubelet's to pull even where there is an agent; false where the
/// revision cannot be read.
pub fn kubelet_takes_part(claim: &CacheClaim, revisions: &Revisions<'_>) -> bool {
    let key = (claim.namespace.as_str(), claim.revision.as_str());
    let revision = revisions.get(&key).map(|r| &r.spec.spec);
    revision.is_some_and(|r| r.images.iter().any(|i| !is_for_agent(claim.into(), r, i)))
}

/// Whether the agent may ask the credential providers of its node for an image. What can be had without is had without.
pub fn may_use_credentials(who: Who, image: &RevisionImage) -> bool {
    image.private && who.private_images == PrivateImages::Agent
}

#[cfg(test)]
mod tests {
    use larder_api::image_cache::PullSecret;

    use super::PrivateImages::{Agent, Kubelet};
    use super::*;

    fn image(private: bool, resolved: bool) -> RevisionImage {
        RevisionImage {
            private,
            digest: resolved.then(|| "sha256:1".to_owned()),
            ..RevisionImage::default()
        }
    }

    #[test]
    fn what_needs_credentials_is_the_kubelets_unless_the_cache_says_otherwise() {
        let bare = ImageCacheRevisionSpec::default();
        let with_secret = ImageCacheRevisionSpec {
            pull_secrets: vec![PullSecret { name: "a".into() }],
            ..ImageCacheRevisionSpec::default()
        };
        let cases = [
            (Puller::Job, Kubelet, &bare, image(false, true), false),
            (Puller::Job, Agent, &bare, image(true, true), false),
            (Puller::Auto, Kubelet, &bare, image(false, true), true),
            (Puller::Auto, Kubelet, &bare, image(true, true), false),
            (Puller::Auto, Kubelet, &bare, image(true, false), false),
            (Puller::Auto, Agent, &bare, image(false, true), true),
            (Puller::Auto, Agent, &with_secret, image(true, true), true),
            (Puller::Auto, Agent, &with_secret, image(true, false), true),
            (Puller::Agent, Kubelet, &bare, image(false, true), true),
            (Puller::Agent, Kubelet, &bare, image(true, true), false),
            (Puller::Agent, Kubelet, &bare, image(true, false), true),
            (Puller::Agent, Kubelet, &with_secret, image(true, false), false),
            (Puller::Agent, Agent, &with_secret, image(true, false), true),
        ];
        for (puller, private_images, revision, image, expected) in cases {
            let who = Who {
                puller,
                private_images,
                service_account: false,
            };
            assert_eq!(is_for_agent(who, revision, &image), expected, "{who:?} {image:?}");
            let credentials = may_use_credentials(who, &image);
            assert_eq!(
                credentials,
                image.private && private_images == Agent,
                "{who:?} {image:?}"
            );
        }
    }

    #[test]
    fn a_service_account_counts_like_a_pull_secret() {
        let cases = [
            (Puller::Agent, Kubelet, image(true, false), false),
            (Puller::Agent, Kubelet, image(true, true), false),
            (Puller::Agent, Kubelet, image(false, true), true),
            (Puller::Agent, Agent, image(true, false), true),
            (Puller::Auto, Kubelet, image(false, true), true),
            (Puller::Auto, Kubelet, image(true, false), false),
        ];
        let bare = ImageCacheRevisionSpec::default();
        for (puller, private_images, image, expected) in cases {
            let who = Who {
                puller,
                private_images,
                service_account: true,
            };
            assert_eq!(is_for_agent(who, &bare, &image), expected, "{who:?} {image:?}");
        }
    }
}
