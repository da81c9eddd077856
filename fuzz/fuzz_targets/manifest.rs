//! The manifest parser: sizes are never negative.
#![no_main]

use larder_registry::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Manifest::Image { size_bytes, .. }) = Manifest::parse(bytes) {
        assert!(size_bytes >= 0);
    }
});
