//! From what the runtime holds to what the agent decides from.

use larder_api::names::{PINNED_LABEL, PULLED_LABEL};
use larder_api::node_image_cache::{Capability, RuntimeOnNode};
use larder_core::agent::{Disk, ImageObserved, Observed};

use crate::presence::{Contents, ImageContents};
use crate::types::Version;

/// Puts it in the words of the decision. Targets that are not whole, and tags that point at them, count as absent where
/// another target of the image is whole: they have to be pulled again, the image itself has not.
pub fn observed(contents: &Contents, disk: Option<Disk>) -> Observed {
    Observed {
        runtime: RuntimeOnNode {
            name: contents.version.runtime.clone(),
            version: contents.version.version.clone(),
        },
        capabilities: capabilities(contents),
        images: contents.images.iter().map(image).collect(),
        disk,
    }
}

fn capabilities(contents: &Contents) -> Vec<Capability> {
    if !contents.has_content {
        return Vec::new();
    }
    let mut capabilities = vec![Capability::Content, Capability::Progress];
    if pins(&contents.version) {
        capabilities.push(Capability::Pin);
    }
    capabilities.sort();
    capabilities
}

/// CRI in containerd 1.6 keeps the label and does not look at it.
fn pins(version: &Version) -> bool {
    !version.version.trim_start_matches('v').starts_with("1.6.")
}

fn image(image: &ImageContents) -> ImageObserved {
    let complete = image.targets.is_empty() || image.targets.values().any(|t| t.whole);
    let counts = |digest: &str| !complete || image.targets.get(digest).is_none_or(|t| t.whole);
    ImageObserved {
        id: image.id.clone(),
        tags: image
            .tags
            .iter()
            .filter(|(_, digest)| digest.as_deref().is_none_or(counts))
            .map(|(tag, digest)| (tag.clone(), digest.clone()))
            .collect(),
        targets: image
            .targets
            .keys()
            .filter(|digest| counts(digest))
            .cloned()
            .collect(),
        complete: complete && image.listed,
        pinned: image.pinned,
        pinned_by_us: image.labels.get(PINNED_LABEL).is_some_and(|v| !v.is_empty()),
        pulled_by_us: image.labels.get(PULLED_LABEL).is_some_and(|v| !v.is_empty()),
        used: image.used,
    }
}
