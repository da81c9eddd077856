//! What an image of a test shall hold, and how it is made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::image::{Document, media};
use super::layer::{Layer, noise};
use super::layout::explain;
use super::{Blob, Descriptor, Error, Image, Platform, Pushed, Registry};

/// Describes an image; [`ImageSpec::build`] makes it. Equal descriptions give equal digests.
///
/// None of these images has a shell or a libc: they hold random data, and a program if asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpec {
    seed: u64,
    layers: Vec<usize>,
    platforms: Vec<Platform>,
    index: bool,
    program: Option<(PathBuf, Vec<String>)>,
}

impl ImageSpec {
    /// An image for linux/amd64 with a single manifest and no layer yet; another seed gives other
    /// data and so another digest.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            layers: Vec::new(),
            platforms: vec![Platform::linux("amd64")],
            index: false,
            program: None,
        }
    }

    /// Adds `count` layers of `bytes` random bytes each.
    #[must_use]
    pub fn layers(mut self, count: usize, bytes: usize) -> Self {
        self.layers.extend(std::iter::repeat_n(bytes, count));
        self
    }

    /// Makes it an index with a manifest for each of these Linux architectures. Without the node's
    /// own among them the image cannot be pulled there.
    #[must_use]
    pub fn architectures(mut self, architectures: &[&str]) -> Self {
        self.platforms = architectures.iter().map(|name| Platform::linux(name)).collect();
        self.index = true;
        self
    }

    /// Makes it a single manifest, without an index, for this Linux architecture.
    #[must_use]
    pub fn only(mut self, architecture: &str) -> Self {
        self.platforms = vec![Platform::linux(architecture)];
        self.index = false;
        self
    }

    /// Adds a layer with a static program and makes it the entry point.
    #[must_use]
    pub fn runs(mut self, program: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self.program = Some((program.to_owned(), arguments));
        self
    }

    /// Makes the image, in memory. Takes about a second for each GiB; call it where blocking is fine.
    pub fn build(&self) -> Result<Image, Error> {
        let here = Path::new("the image described");
        let mut blobs = BTreeMap::new();
        let mut manifests = Vec::new();
        for (number, platform) in self.platforms.iter().enumerate() {
            let mut descriptor = self.build_manifest(platform, number, &mut blobs)?;
            descriptor.platform = self.index.then(|| platform.clone());
            manifests.push(descriptor);
        }
        let root = match manifests.pop() {
            Some(only) if !self.index => only,
            last => {
                manifests.extend(last);
                let index = Document {
                    schema_version: 2,
                    media_type: Some(media::INDEX.to_owned()),
                    manifests,
                    ..Document::default()
                };
                add(&mut blobs, media::INDEX, to_json(&index))
            }
        };
        Image::assemble(root, blobs).map_err(|missing| explain(here, missing))
    }

    fn build_manifest(
        &self,
        platform: &Platform,
        number: usize,
        blobs: &mut BTreeMap<String, Blob>,
    ) -> Result<Descriptor, Error> {
        let mut layers = Vec::new();
        for (layer, bytes) in self.layers.iter().enumerate() {
            // Spread, so that neighbouring seeds, platforms and layers never share a layer.
            let seed = self
                .seed
                .wrapping_mul(1_000_003)
                .wrapping_add((number as u64) << 32 | layer as u64);
            let name = format!("data/{layer}");
            layers.push(
                Layer::of_file(&name, 0o644, &noise(seed, *bytes)).map_err(Error::file(Path::new(&name)))?,
            );
        }
        let mut entrypoint = Vec::new();
        let mut command: &[String] = &[];
        if let Some((program, arguments)) = &self.program {
            let name = program
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            let content = std::fs::read(program).map_err(Error::file(program))?;
            layers.push(Layer::of_file(&name, 0o755, &content).map_err(Error::file(program))?);
            entrypoint.push(format!("/{name}"));
            command = arguments;
        }
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "os": platform.os,
            "architecture": platform.architecture,
            "config": { "Entrypoint": entrypoint, "Cmd": command, "Labels": { "seed": self.seed.to_string() } },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = add(blobs, media::CONFIG, to_json(&config));
        let mut descriptors = Vec::new();
        for layer in layers {
            let mut descriptor = Descriptor::of(media::LAYER, &[]);
            descriptor.size = layer.compressed.len() as u64;
            descriptor.digest.clone_from(&layer.digest);
            descriptors.push(descriptor);
            blobs.insert(layer.digest, Blob::Memory(layer.compressed));
        }
        let manifest = Document {
            schema_version: 2,
            media_type: Some(media::MANIFEST.to_owned()),
            config: Some(config),
            layers: descriptors,
            ..Document::default()
        };
        Ok(add(blobs, media::MANIFEST, to_json(&manifest)))
    }

    /// Makes the image and pushes it.
    pub async fn push(&self, registry: &Registry, repository: &str, tag: &str) -> Result<Pushed, Error> {
        let spec = self.clone();
        let image = tokio::task::spawn_blocking(move || spec.build())
            .await
            .map_err(Error::Stopped)??;
        registry.push(&image, repository, tag).await
    }
}

/// Documents of this module always have a JSON form: their keys are strings.
fn to_json(document: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

fn add(blobs: &mut BTreeMap<String, Blob>, media_type: &str, bytes: Vec<u8>) -> Descriptor {
    let descriptor = Descriptor::of(media_type, &bytes);
    blobs.insert(descriptor.digest.clone(), Blob::Memory(bytes.into()));
    descriptor
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn document(image: &Image, digest: &str) -> serde_json::Value {
        serde_json::from_slice(&image.blobs[digest].read().unwrap()).unwrap()
    }

    #[test]
    fn equal_specs_give_equal_digests_and_other_seeds_others() {
        let spec = ImageSpec::new(1).layers(2, 1000);
        assert_eq!(spec.build().unwrap().digest(), spec.build().unwrap().digest());
        assert_ne!(
            spec.build().unwrap().digest(),
            ImageSpec::new(2).layers(2, 1000).build().unwrap().digest()
        );
    }

    #[test]
    fn no_two_layers_are_the_same() {
        let image = ImageSpec::new(1)
            .layers(3, 100)
            .architectures(&["amd64", "arm64"])
            .build()
            .unwrap();
        let layers = image
            .content
            .iter()
            .filter(|part| part.media_type == media::LAYER)
            .count();
        assert_eq!(layers, 6);
    }

    #[test]
    fn size_counts_configs_and_compressed_layers() {
        let image = ImageSpec::new(1).layers(2, 1_000_000).build().unwrap();
        assert!((2_000_000..2_020_000).contains(&image.size()), "{}", image.size());
    }

    #[test]
    fn an_index_names_each_platform() {
        let image = ImageSpec::new(1)
            .layers(1, 10)
            .architectures(&["amd64", "arm64"])
            .build()
            .unwrap();
        let index = document(&image, image.digest());
        assert_eq!(index["mediaType"], media::INDEX);
        assert_eq!(index["manifests"][1]["platform"]["architecture"], "arm64");
        let platforms: Vec<String> = image
            .platforms()
            .iter()
            .map(|(platform, _)| platform.to_string())
            .collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
        assert!(
            image
                .platforms()
                .iter()
                .all(|(_, digest)| digest != image.digest())
        );
    }

    #[test]
    fn an_index_may_have_a_single_platform() {
        let image = ImageSpec::new(1)
            .layers(1, 10)
            .architectures(&["arm64"])
            .build()
            .unwrap();
        assert_eq!(
            document(&image, image.digest())["manifests"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn a_single_manifest_is_its_own_root() {
        let image = ImageSpec::new(1).only("arm64").layers(1, 10).build().unwrap();
        assert!(!image.root.is_index());
        let manifest = document(&image, image.digest());
        let config = document(&image, manifest["config"]["digest"].as_str().unwrap());
        assert_eq!(config["architecture"], "arm64");
    }

    #[test]
    fn a_program_becomes_the_entry_point() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("noop");
        std::fs::write(&program, "binary").unwrap();
        let image = ImageSpec::new(1)
            .layers(1, 10)
            .runs(&program, &["hold"])
            .build()
            .unwrap();
        let manifest = document(&image, image.digest());
        let config = document(&image, manifest["config"]["digest"].as_str().unwrap());
        assert_eq!(config["config"]["Entrypoint"], json!(["/noop"]));
        assert_eq!(config["config"]["Cmd"], json!(["hold"]));
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = ImageSpec::new(1)
            .runs(Path::new("/nowhere/noop"), &[])
            .build()
            .unwrap_err();
        assert!(error.to_string().contains("/nowhere/noop"), "{error}");
    }
}
