//! The reader of app registries: three documents of anything.
#![no_main]

use async_trait::async_trait;
use larder_core::image_ref::ImageRef;
use larder_fuzz::parts;
use larder_registry::sources::MAX_IMAGES;
use larder_registry::sources::app_registry::{Document, Documents, FetchError, read};
use libfuzzer_sys::fuzz_target;

struct Registry<'a> {
    registry: &'a [u8],
    defaults: &'a [u8],
    compose: &'a [u8],
}

#[async_trait]
impl Documents for Registry<'_> {
    async fn get(&self, url: &str, _: usize) -> Result<Document, FetchError> {
        let body = match url {
            "https://example.com/app-registry.yaml" => self.registry,
            "https://example.com/app-defaults.yaml" => self.defaults,
            _ => self.compose,
        };
        Ok(Document { body: body.to_vec() })
    }
}

fuzz_target!(|input: &[u8]| {
    let [registry, defaults, compose] = parts(input);
    let registry = Registry {
        registry,
        defaults,
        compose,
    };
    let read = read(&registry, "https://example.com", "brand");
    if let Ok(found) = futures::executor::block_on(read) {
        assert!(found.images.len() <= MAX_IMAGES);
        assert!(
            found
                .images
                .iter()
                .all(|image| ImageRef::parse(&image.image).is_ok())
        );
    }
});
