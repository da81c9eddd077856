//! Whether a cache needs a new revision, an old one back, or none.

use std::collections::BTreeMap;

use larder_api::image_cache::{ImageCacheSpec, Resolve};
use larder_api::{ImageCacheRevision, ImageCacheRevisionSpec};

use crate::image_ref::ImageRef;
use crate::images::WantedImages;
use crate::revision::{self, Resolved};

/// What to do about a cache's revisions.
#[derive(Clone, Debug, PartialEq)]
pub enum Revise {
    /// The newest one is right.
    Keep {
        /// Its name.
        name: String,
    },
    /// An older one is right again: it gets the highest number.
    Raise {
        /// Its name.
        name: String,
        /// Its new number.
        number: i64,
        /// References whose digest differs from the newest revision so far.
        changed: i32,
    },
    /// None is right.
    Create {
        /// Its name.
        name: String,
        /// Its number.
        number: i64,
        /// Its content.
        spec: ImageCacheRevisionSpec,
        /// References whose digest differs from the newest revision so far.
        changed: i32,
    },
}

/// Decides. `all` are all revisions of the cache's namespace whose name begins with the cache's name; `uid` is the
/// cache's. A name that is taken by a revision of another owner, by one that is being deleted, or by other content is
/// passed over for one with a number at its end.
pub fn revise(cache: &str, uid: &str, next: ImageCacheRevisionSpec, all: &[&ImageCacheRevision]) -> Revise {
    let ours: Vec<&ImageCacheRevision> = all.iter().copied().filter(|r| owned(r, uid)).collect();
    let newest = revision::newest(&ours);
    let changed = newest.map_or(0, |n| revision::changed(&n.spec.spec, &next));
    if let Some(newest) = newest
        && revision::same_identity(&newest.spec.spec, &next)
    {
        return Revise::Keep {
            name: name_of(newest),
        };
    }
    let number = ours.iter().map(|r| r.spec.number).max().unwrap_or(0) + 1;
    let alive = |r: &&&ImageCacheRevision| r.metadata.deletion_timestamp.is_none();
    if let Some(old) = ours
        .iter()
        .filter(alive)
        .find(|r| revision::same_identity(&r.spec.spec, &next))
    {
        return Revise::Raise {
            name: name_of(old),
            number,
            changed,
        };
    }
    let hash = revision::hash(&next);
    let taken = |name: &str| all.iter().any(|r| r.metadata.name.as_deref() == Some(name));
    let mut collision = 0;
    while taken(&revision::name(cache, &hash, collision)) {
        collision += 1;
    }
    Revise::Create {
        name: revision::name(cache, &hash, collision),
        number,
        spec: next,
        changed,
    }
}

/// What is known of each wanted image without asking anybody: what its own digest says, and, unless `afresh`, what the
/// newest revision says. References that are missing from the result have to be resolved.
pub fn known(
    spec: &ImageCacheSpec,
    wanted: &WantedImages,
    newest: Option<&ImageCacheRevisionSpec>,
    afresh: bool,
) -> BTreeMap<String, Resolved> {
    let mut known = BTreeMap::new();
    for image in &wanted.images {
        let name = image.reference.normalized();
        let before = newest.and_then(|n| n.images.iter().find(|i| i.image == name));
        if spec.resolve == Resolve::OnNode {
            known.insert(name.to_owned(), by_itself(&image.reference));
        } else if let Some(before) = before.filter(|b| b.digest.is_some() && !afresh) {
            let resolved = Resolved {
                digest: before.digest.clone(),
                platforms: before.platforms.clone(),
                private: before.private,
            };
            known.insert(name.to_owned(), resolved);
        }
    }
    known
}

/// What a reference says by itself: its digest, if it has one.
pub fn by_itself(reference: &ImageRef) -> Resolved {
    // Until an anonymous request says otherwise an image counts as private.
    Resolved {
        digest: reference.digest().map(str::to_owned),
        platforms: Vec::new(),
        private: true,
    }
}

/// Whether the revision belongs to the cache with this UID.
pub fn owned(revision: &ImageCacheRevision, uid: &str) -> bool {
    revision
        .metadata
        .owner_references
        .iter()
        .flatten()
        .any(|o| o.uid == uid)
}

fn name_of(revision: &ImageCacheRevision) -> String {
    revision.metadata.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
    use larder_api::revision::{RevisionBody, RevisionImage};

    use super::*;

    fn content(digest: &str) -> ImageCacheRevisionSpec {
        let image = RevisionImage {
            image: "docker.io/library/a:1".into(),
            digest: Some(digest.into()),
            ..RevisionImage::default()
        };
        ImageCacheRevisionSpec {
            images: vec![image],
            pull_secrets: vec![],
        }
    }

    fn object(name: &str, uid: &str, number: i64, spec: ImageCacheRevisionSpec) -> ImageCacheRevision {
        let owner = OwnerReference {
            uid: uid.into(),
            ..OwnerReference::default()
        };
        ImageCacheRevision {
            metadata: ObjectMeta {
                name: Some(name.into()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            spec: RevisionBody { number, spec },
        }
    }

    #[test]
    fn to_b_and_back_to_a_ends_on_the_revision_of_a() {
        let Revise::Create {
            name: a,
            number: 1,
            changed: 0,
            ..
        } = revise("web", "u", content("sha256:a"), &[])
        else {
            panic!("the first revision is created")
        };
        let first = object(&a, "u", 1, content("sha256:a"));
        assert_eq!(
            revise("web", "u", content("sha256:a"), &[&first]),
            Revise::Keep { name: a.clone() }
        );
        let Revise::Create {
            name: b,
            number: 2,
            changed: 1,
            ..
        } = revise("web", "u", content("sha256:b"), &[&first])
        else {
            panic!("the second revision is created")
        };
        let second = object(&b, "u", 2, content("sha256:b"));
        assert_eq!(
            revise("web", "u", content("sha256:a"), &[&first, &second]),
            Revise::Raise {
                name: a,
                number: 3,
                changed: 1
            }
        );
    }

    #[test]
    fn a_name_that_is_taken_is_passed_over() {
        let Revise::Create { name, .. } = revise("web", "u", content("sha256:a"), &[]) else {
            unreachable!()
        };
        let others = object(&name, "someone else", 7, content("sha256:a"));
        let Revise::Create {
            name: second, number, ..
        } = revise("web", "u", content("sha256:a"), &[&others])
        else {
            panic!("a revision of another owner is not ours to use")
        };
        assert_eq!((second, number), (format!("{name}-1"), 1));
        let mut going = object(&name, "u", 7, content("sha256:a"));
        going.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let Revise::Create {
            name: second, number, ..
        } = revise("web", "u", content("sha256:a"), &[&going])
        else {
            panic!("a revision that is being deleted is not used again")
        };
        assert_eq!((second, number), (format!("{name}-1"), 8));
    }
}
