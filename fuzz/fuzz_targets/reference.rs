//! The reference parser: what it accepts parses to itself, and globs can be held against it.
#![no_main]

use larder_core::exclude::Exclude;
use larder_core::image_ref::ImageRef;
use larder_fuzz::{parts, text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [reference, pattern] = parts(input).map(text);
    if let Ok(image) = ImageRef::parse(&reference) {
        let again = ImageRef::parse(image.normalized());
        assert!(again.is_ok_and(|again| again.normalized() == image.normalized()));
        if let Ok(exclude) = Exclude::parse([&*pattern]) {
            exclude.fits(&image);
        }
        assert!(Exclude::parse(["*"]).is_ok_and(|all| all.fits(&image)));
    }
});
