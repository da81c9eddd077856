//! The pull secrets' parsers, and the matching of their entries.
#![no_main]

use larder_core::image_ref::ImageRef;
use larder_fuzz::{parts, text};
use larder_registry::{Credential, Keyring, location_fits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [location, image, secret] = parts(input);
    let (location, image) = (text(location), text(image));
    let mut keyring = Keyring::default();
    for kind in ["kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"] {
        let _ = keyring.add_secret(kind, |_| Some(secret));
    }
    let password = "hunter2-of-the-fuzzer".to_owned();
    keyring.add(
        &location,
        Credential::Basic {
            username: "fuzzer".into(),
            password: password.clone(),
        },
    );
    if let Ok(image) = ImageRef::parse(&image) {
        keyring.credentials(&image);
        location_fits(&location, &image);
    }
    assert!(!format!("{keyring:?}").contains(&password));
});
