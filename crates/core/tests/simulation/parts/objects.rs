//! Objects that the simulated nodes work on.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use larder_api::ImageCacheRevision;
use larder_api::revision::{ImageCacheRevisionSpec, PlatformManifest, RevisionBody, RevisionImage};
use larder_core::plan::Revisions;

pub const MIB: i64 = 1 << 20;

/// The digest of something.
pub fn digest(of: &str) -> String {
    let hash = of.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("sha256:{hash:064x}")
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
