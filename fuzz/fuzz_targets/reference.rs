//! The reference parser: what it accepts parses to itself, and globs can be held against it.
#![no_main]

use larder_core::exclude::Exclude;
use larder_core::image_ref::ImageRef;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (text, pattern) = input;
    if let Ok(image) = ImageRef::parse(text) {
        let again = ImageRef::parse(image.normalized());
        assert!(again.is_ok_and(|again| again.normalized() == image.normalized()));
        if let Ok(exclude) = Exclude::parse([pattern]) {
            exclude.fits(&image);
        }
        assert!(Exclude::parse(["*"]).is_ok_and(|all| all.fits(&image)));
    }
});
