//! Lists by lines, in JSON, and of tags.
#![no_main]

use larder_core::image_ref::ImageRef;
use larder_fuzz::{parts, text};
use larder_registry::sources::tags::{TagFilter, TagList};
use larder_registry::sources::{json, lines};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [rule, link, bytes] = parts(input);
    let (rule, link) = (text(rule), text(link));
    let mut found = vec![lines::parse(bytes)];
    if let Ok(path) = json::JsonPath::parse(&rule) {
        found.push(json::parse(bytes, &path));
    }
    for image in found.into_iter().flatten().flat_map(|found| found.images) {
        assert!(ImageRef::parse(&image.image).is_ok());
    }
    let mut list = TagList::default();
    let _ = list.take(bytes, Some(&link));
    for filter in [TagFilter::semver(&rule, 3), TagFilter::regex(&rule, 3)]
        .into_iter()
        .flatten()
    {
        assert!(filter.choose(list.tags()).len() <= 3);
    }
});
