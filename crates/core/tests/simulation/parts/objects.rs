//! Objects that the simulated nodes work on.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use larder_api::image_cache::{ImageEntry, PrivateImages, Puller, Removal};
use larder_api::node_image_cache::{CacheClaim, Desired};
use larder_api::revision::{ImageCacheRevisionSpec, PlatformManifest, RevisionBody, RevisionImage};
use larder_api::{ImageCache, ImageCacheRevision, ImageCacheSpec};
use larder_core::facts::NodeFacts;
use larder_core::image_ref::ImageRef;
use larder_core::plan::Revisions;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub const MIB: i64 = 1 << 20;

/// What the API server gives back of what was written: moments have whole seconds.
pub fn stored<T: Serialize + DeserializeOwned>(written: &T) -> T {
    serde_json::from_value(serde_json::to_value(written).unwrap()).unwrap()
}

/// The digest of something.
pub fn digest(of: &str) -> String {
    let hash = of.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("sha256:{hash:064x}")
}

/// What a reference leads to at the registry: the digest that it names, or one of its own.
pub fn digest_at(reference: &str) -> String {
    let parsed = ImageRef::parse(reference).unwrap();
    parsed.digest().map_or_else(|| digest(reference), str::to_owned)
}

/// The id of the image with this digest.
pub fn id_of(digest_: &str) -> String {
    digest(&format!("config of {digest_}"))
}

/// An image for the node's platform, with content named by `content`.
pub fn image(reference: &str, content: &str, bytes: i64) -> RevisionImage {
    RevisionImage {
        image: reference.to_owned(),
        digest: Some(digest(content)),
        platforms: vec![PlatformManifest {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: None,
            digest: digest(content),
            size_bytes: bytes,
        }],
        ..RevisionImage::default()
    }
}

pub fn revision(name: &str, images: Vec<RevisionImage>) -> ImageCacheRevision {
    ImageCacheRevision {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some("ns".into()),
            ..ObjectMeta::default()
        },
        spec: RevisionBody {
            number: 1,
            spec: ImageCacheRevisionSpec {
                images,
                pull_secrets: vec![],
            },
        },
    }
}

pub fn by_name(revisions: &[ImageCacheRevision]) -> Revisions<'_> {
    let named = revisions.iter().map(|r| (("ns", name_of(r)), r));
    named.collect()
}

pub fn name_of(revision: &ImageCacheRevision) -> &str {
    revision.metadata.name.as_deref().unwrap()
}

/// A node that pods may run on.
pub fn facts(uid: &str) -> NodeFacts {
    NodeFacts {
        name: "n".into(),
        uid: uid.into(),
        ready: true,
        os: "linux".into(),
        architecture: "amd64".into(),
        ..NodeFacts::default()
    }
}

pub fn cache(uid: &str, name: &str, removal: Removal) -> ImageCache {
    ImageCache {
        metadata: ObjectMeta {
            uid: Some(uid.into()),
            name: Some(name.into()),
            namespace: Some("ns".into()),
            ..ObjectMeta::default()
        },
        spec: ImageCacheSpec {
            images: vec![ImageEntry::default()],
            removal,
            ..ImageCacheSpec::default()
        },
        status: None,
    }
}

/// A claim of a cache whose UID is its name.
pub fn claim(now: Timestamp, cache: &str, revision: &str) -> CacheClaim {
    stored(&CacheClaim {
        namespace: "ns".into(),
        name: cache.into(),
        uid: cache.into(),
        revision: revision.into(),
        desired: Desired::Present,
        remove_revisions: vec![],
        claimed_at: Time(now),
        assigned_at: Time(now),
        removal: Removal::Purge,
        verify_after: None,
        puller: Puller::Auto,
        private_images: PrivateImages::Kubelet,
        service_account: false,
        overrides: None,
    })
}
