//! Counts of images and sums of their sizes.

use std::collections::BTreeMap;

use larder_api::image_cache_status::ImageCounts;
use larder_api::revision::RevisionImage;

use super::ReportInput;
use crate::facts::NodeFacts;

pub(super) fn count(input: &ReportInput<'_>) -> ImageCounts {
    let images = images(input);
    let digests: BTreeMap<&str, bool> = images
        .iter()
        .map(|i| (i.image.as_str(), i.digest.is_some()))
        .collect();
    let resolved = |normalized: &str, own: bool| own || digests.get(normalized).copied().unwrap_or(false);
    let unresolved = input
        .wanted
        .images
        .iter()
        .filter(|i| !resolved(i.reference.normalized(), i.reference.digest().is_some()))
        .count();
    ImageCounts {
        total: input.wanted.images.len() as i32,
        unresolved: unresolved as i32,
        bytes: largest_platform(images),
    }
}

/// Images of the newest revision.
pub(super) fn images<'a>(input: &ReportInput<'a>) -> &'a [RevisionImage] {
    input
        .revision
        .map(|r| r.spec.spec.images.as_slice())
        .unwrap_or_default()
}

/// Bytes that a node of this platform needs; of an image's variants, the largest.
pub(super) fn bytes_on(images: &[RevisionImage], node: &NodeFacts) -> i64 {
    images
        .iter()
        .filter_map(|image| {
            let fitting = image
                .platforms
                .iter()
                .filter(|p| p.os == node.os && p.architecture == node.architecture);
            fitting.map(|p| p.size_bytes).max()
        })
        .fold(0, i64::saturating_add)
}

fn largest_platform(images: &[RevisionImage]) -> i64 {
    let mut sums: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for image in images {
        let mut sizes: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for p in &image.platforms {
            let size = sizes.entry((&p.os, &p.architecture)).or_default();
            *size = (*size).max(p.size_bytes);
        }
        for (platform, size) in sizes {
            let sum = sums.entry(platform).or_default();
            *sum = sum.saturating_add(size);
        }
    }
    sums.into_values().max().unwrap_or_default()
}
