//! The reader of app registries: three documents of anything.
#![no_main]

use async_trait::async_trait;
use larder_core::image_ref::ImageRef;
use larder_registry::sources::MAX_IMAGES;
use larder_registry::sources::app_registry::{Document, Documents, FetchError, read};
use libfuzzer_sys::{arbitrary::Arbitrary, fuzz_target};

#[derive(Arbitrary, Debug)]
struct Registry {
    brand: String,
    registry: Vec<u8>,
    defaults: Vec<u8>,
    compose: Vec<u8>,
}

#[async_trait]
impl Documents for Registry {
    async fn get(&self, url: &str, _: usize) -> Result<Document, FetchError> {
        let body = match url {
            "https://example.com/app-registry.yaml" => &self.registry,
            "https://example.com/app-defaults.yaml" => &self.defaults,
            _ => &self.compose,
        };
        Ok(Document { body: body.clone() })
    }
}

fuzz_target!(|registry: Registry| {
    let read = read(&registry, "https://example.com", &registry.brand);
    if let Ok(found) = futures::executor::block_on(read) {
        assert!(found.images.len() <= MAX_IMAGES);
        assert!(found.images.iter().all(|image| ImageRef::parse(&image.image).is_ok()));
    }
});
