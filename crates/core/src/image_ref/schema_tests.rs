//! The parser against the pattern by which the API server checks the same references.

#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use kube::CustomResourceExt;
use larder_api::ImageCache;
use proptest::prelude::*;
use regex::Regex;

use super::{tests::near_references, *};

static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    let crd = serde_json::to_value(ImageCache::crd()).unwrap();
    let image =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/images/items/properties/image";
    Regex::new(crd.pointer(image).unwrap()["pattern"].as_str().unwrap()).unwrap()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn parser_and_schema_agree(text in near_references()) {
        match ImageRef::parse(&text) {
            Ok(_) => prop_assert!(PATTERN.is_match(&text), "{text} is refused by the schema alone"),
            // A pattern cannot count, and takes for a path what looks like a host.
            Err(
                ImageRefError::Host { .. }
                | ImageRefError::RepositoryTooLong { .. }
                | ImageRefError::TooLong { .. }
                | ImageRefError::ImageId,
            ) => {}
            Err(error) => prop_assert!(!PATTERN.is_match(&text), "{text} is refused by the parser alone: {error}"),
        }
    }
}
