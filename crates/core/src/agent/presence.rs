//! Whether what is wanted is there.

use std::collections::BTreeMap;

use larder_api::node_image_cache::Capability;

use super::types::{ImageObserved, Observed};
use super::wanted::{Key, Want};

/// What the runtime holds, to be looked up.
pub(super) struct Store<'a> {
    by_target: BTreeMap<&'a str, Vec<&'a ImageObserved>>,
    by_tag: BTreeMap<&'a str, &'a ImageObserved>,
    /// Names can be pointed at content without a pull.
    can_tag: bool,
}

/// Whether a wanted image is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Presence<'a> {
    /// No, or not all of its content.
    Absent,
    /// Its content is, but its tag is missing or means something else.
    Untagged {
        image: &'a ImageObserved,
        /// What the tag is to point at.
        target: &'a str,
    },
    /// Yes.
    Whole(&'a ImageObserved),
}

impl<'a> Store<'a> {
    pub(super) fn of(observed: &'a Observed) -> Self {
        let mut images: Vec<&ImageObserved> = observed.images.iter().collect();
        // Of two images that could be meant the one with the lesser id is, whatever the order of the list.
        images.sort_by(|a, b| a.id.cmp(&b.id));
        let mut store = Self {
            by_target: BTreeMap::new(),
            by_tag: BTreeMap::new(),
            can_tag: observed.capabilities.contains(&Capability::Content),
        };
        for image in images {
            for target in &image.targets {
                store.by_target.entry(target).or_default().push(image);
            }
            for tag in image.tags.keys() {
                store.by_tag.entry(tag).or_insert(image);
            }
        }
        store
    }

    /// Every image under this digest, whole or not.
    pub(super) fn under(&self, digest: &str) -> &[&'a ImageObserved] {
        self.by_target.get(digest).map_or(&[], Vec::as_slice)
    }

    /// The image that has this tag, whole or not.
    pub(super) fn tagged(&self, tag: &str) -> Option<&'a ImageObserved> {
        self.by_tag.get(tag).copied()
    }

    /// A whole image under one of these digests, and the digest.
    pub(super) fn holds(&self, digests: &[&str]) -> Option<(&'a ImageObserved, &'a str)> {
        digests.iter().find_map(|digest| {
            let (target, images) = self.by_target.get_key_value::<str>(digest)?;
            let whole = images.iter().find(|i| i.complete)?;
            Some((*whole, *target))
        })
    }

    pub(super) fn presence(&self, key: Key<'_>, want: &Want<'_>) -> Presence<'a> {
        let (reference, digest) = key;
        let tagged = self.tagged(reference);
        if digest.is_none() {
            return match tagged {
                Some(image) if image.complete => Presence::Whole(image),
                _ => Presence::Absent,
            };
        }
        if want.tagged
            && let Some(image) = tagged.filter(|i| i.complete)
        {
            // Where nothing but a pull points a tag anywhere, the content counts, under whatever name.
            let points = match image.tags.get(reference) {
                Some(Some(target)) if self.can_tag => want.digests.contains(&target.as_str()),
                _ => want.digests.iter().any(|d| image.targets.contains(*d)),
            };
            if points {
                return Presence::Whole(image);
            }
        }
        match self.holds(&want.digests) {
            Some((image, _)) if !want.tagged => Presence::Whole(image),
            Some((image, target)) if self.can_tag => Presence::Untagged { image, target },
            _ => Presence::Absent,
        }
    }

    /// The digest behind a tag, where that can be told.
    pub(super) fn digest_behind(&self, tag: &str) -> Option<&'a str> {
        let image = self.tagged(tag)?;
        match image.tags.get(tag) {
            Some(Some(target)) => Some(target),
            _ => image
                .targets
                .first()
                .filter(|_| image.targets.len() == 1)
                .map(String::as_str),
        }
    }
}
