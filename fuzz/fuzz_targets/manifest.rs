//! The manifest parser: sizes are never negative.
#![no_main]

use larder_core::manifest::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Manifest::Image(image)) = Manifest::parse(bytes) {
        assert!(image.size_bytes() >= 0);
    }
});
