//! Who pulls an image on a node.

use larder_api::image_cache::Puller;
use larder_api::revision::{ImageCacheRevisionSpec, RevisionImage};

/// Whether an image of a claim is the agent's to pull, given that there is an agent.
///
/// What needs credentials is the kubelet's: it has the pull secrets and the node's credential providers, and remembers
/// for whom it pulled (KEP-2535). So is what nobody has looked up, unless the agent was asked for by name and the cache
/// names no secret that the kubelet could use.
pub fn is_for_agent(puller: Puller, revision: &ImageCacheRevisionSpec, image: &RevisionImage) -> bool {
    match puller {
        Puller::Job => false,
        Puller::Auto => !image.private,
        Puller::Agent => !image.private || (image.digest.is_none() && revision.pull_secrets.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use larder_api::image_cache::PullSecret;

    use super::*;

    #[test]
    fn what_needs_credentials_is_the_kubelets() {
        let image = |private: bool, resolved: bool| RevisionImage {
            private,
            digest: resolved.then(|| "sha256:1".to_owned()),
            ..RevisionImage::default()
        };
        let bare = ImageCacheRevisionSpec::default();
        let with_secret = ImageCacheRevisionSpec {
            pull_secrets: vec![PullSecret { name: "a".into() }],
            ..ImageCacheRevisionSpec::default()
        };
        let cases = [
            (Puller::Job, &bare, image(false, true), false),
            (Puller::Auto, &bare, image(false, true), true),
            (Puller::Auto, &bare, image(true, true), false),
            (Puller::Auto, &bare, image(true, false), false),
            (Puller::Agent, &bare, image(false, true), true),
            (Puller::Agent, &bare, image(true, true), false),
            (Puller::Agent, &bare, image(true, false), true),
            (Puller::Agent, &with_secret, image(true, false), false),
        ];
        for (puller, revision, image, expected) in cases {
            assert_eq!(
                is_for_agent(puller, revision, &image),
                expected,
                "{puller:?} {image:?}"
            );
        }
    }
}
