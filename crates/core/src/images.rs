//! The images that a spec asks for: parsed, two spellings of one image folded into one.

use std::collections::BTreeMap;

use larder_api::ImageCacheSpec;

use crate::hash;
use crate::image_ref::ImageRef;

/// An image that a cache wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedImage {
    /// The reference.
    pub reference: ImageRef,
    /// The first spelling in the spec: what messages name.
    pub written: String,
    /// The highest priority of its spellings.
    pub priority: i32,
}

/// What came of a spec's list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedImages {
    /// One entry an image, sorted by normalised reference.
    pub images: Vec<WantedImage>,
    /// Spellings of images that the list has already: the one kept, the one folded into it; in the order of the spec.
    pub folded: Vec<(String, String)>,
    /// What is no reference, and why; in the order of the spec.
    pub invalid: Vec<(String, String)>,
}

impl WantedImages {
    /// The user's spelling of a normalised reference; the normalised one if the cache does not want it.
    pub fn written<'a>(&'a self, normalized: &'a str) -> &'a str {
        self.get(normalized).map_or(normalized, |image| &image.written)
    }

    /// The image with this normalised reference.
    pub fn get(&self, normalized: &str) -> Option<&WantedImage> {
        let index = self
            .images
            .binary_search_by(|image| image.reference.normalized().cmp(normalized))
            .ok()?;
        self.images.get(index)
    }
}

/// Reads the images of a spec. What cannot be parsed is listed apart and leaves the rest as it is.
pub fn wanted(spec: &ImageCacheSpec) -> WantedImages {
    let mut images: BTreeMap<String, WantedImage> = BTreeMap::new();
    let mut result = WantedImages::default();
    for entry in &spec.images {
        let reference = match ImageRef::parse(&entry.image) {
            Ok(reference) => reference,
            Err(error) => {
                result.invalid.push((entry.image.clone(), error.to_string()));
                continue;
            }
        };
        if let Some(kept) = images.get_mut(reference.normalized()) {
            kept.priority = kept.priority.max(entry.priority);
            result.folded.push((kept.written.clone(), entry.image.clone()));
        } else {
            let normalized = reference.normalized().to_owned();
            let image = WantedImage {
                reference,
                written: entry.image.clone(),
                priority: entry.priority,
            };
            images.insert(normalized, image);
        }
    }
    result.images = images.into_values().collect();
    result
}

/// Names what the spec asks for, whatever the order and the spelling: 13 lower-case letters and digits.
pub fn images_hash(spec: &ImageCacheSpec) -> String {
    let wanted = wanted(spec);
    let priorities: Vec<String> = wanted
        .images
        .iter()
        .map(|image| image.priority.to_string())
        .collect();
    hash::short(
        wanted
            .images
            .iter()
            .zip(&priorities)
            .flat_map(|(image, priority)| [image.reference.normalized(), priority]),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use larder_api::ImageCacheSpec;
    use larder_api::image_cache::ImageEntry;
    use proptest::prelude::*;
    use serde_json::json;

    use super::{images_hash, wanted};
    use crate::mutate::mutations;
    use crate::revision::{self, build, matches_spec};

    fn spec(images: &[(&str, i32)]) -> ImageCacheSpec {
        let images = images
            .iter()
            .map(|(image, priority)| ImageEntry {
                image: (*image).to_owned(),
                priority: *priority,
            })
            .collect();
        ImageCacheSpec {
            images,
            ..ImageCacheSpec::default()
        }
    }

    #[test]
    fn spellings_are_folded_into_the_first_with_the_highest_priority() {
        let all = wanted(&spec(&[
            ("nginx", 1),
            ("r.example/app:2", 0),
            ("docker.io/library/nginx:latest", 7),
            ("docker.io/nginx", -3),
        ]));
        let images: Vec<_> = all
            .images
            .iter()
            .map(|i| (i.reference.normalized(), i.written.as_str(), i.priority))
            .collect();
        assert_eq!(
            images,
            [
                ("docker.io/library/nginx:latest", "nginx", 7),
                ("r.example/app:2", "r.example/app:2", 0)
            ]
        );
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            all.folded,
            [
                pair("nginx", "docker.io/library/nginx:latest"),
                pair("nginx", "docker.io/nginx")
            ]
        );
        assert!(all.invalid.is_empty());
        assert_eq!(all.written("docker.io/library/nginx:latest"), "nginx");
        assert_eq!(
            all.written("docker.io/library/other:1"),
            "docker.io/library/other:1"
        );
    }

    #[test]
    fn what_is_no_reference_is_named_and_leaves_the_rest() {
        let all = wanted(&spec(&[("x; rm -rf /", 0), ("nginx", 0), ("", 0)]));
        assert_eq!(all.images.len(), 1);
        let names: Vec<_> = all.invalid.iter().map(|(image, _)| image.as_str()).collect();
        assert_eq!(names, ["x; rm -rf /", ""]);
        assert!(all.invalid.iter().all(|(_, error)| !error.is_empty()));
    }

    #[test]
    fn the_hash_names_images_and_priorities_only() {
        let base = spec(&[("nginx", 1), ("redis:7", 0)]);
        let hash = images_hash(&base);
        assert_eq!(
            hash,
            images_hash(&spec(&[
                ("docker.io/library/redis:7", 0),
                ("docker.io/nginx:latest", 1)
            ]))
        );
        assert_ne!(hash, images_hash(&spec(&[("nginx", 2), ("redis:7", 0)])));
        assert_ne!(hash, images_hash(&spec(&[("nginx", 1)])));
        assert_ne!(hash, images_hash(&spec(&[("nginx", 1), ("redis:8", 0)])));
        assert_eq!(
            hash,
            images_hash(&ImageCacheSpec {
                suspend: true,
                ..base
            })
        );
    }

    #[test]
    fn of_all_fields_only_images_and_secrets_make_a_revision() {
        let full = json!({
            "images": [{"image": "nginx", "priority": 1}, {"image": "r.example/app:2", "priority": 0}],
            "nodes": {
                "selector": {"matchLabels": {"pool": "web"}},
                "affinity": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "includeUnschedulable": false,
            },
            "puller": "Job",
            "pullSecrets": [{"name": "regcred"}],
            "resolve": "Central",
            "onMissingPlatform": "Skip",
            "refresh": {"interval": "1h"},
            "rollout": {"maxConcurrentNodes": "25%", "imagesPerNode": 3},
            "timeouts": {"noProgress": "2m", "attempt": "1h", "overall": "2h"},
            "retry": {"initialDelay": "1s", "maxDelay": "10m"},
            "protect": {"pin": true, "minFreeDisk": "20%"},
            "removal": "Retain",
            "podTemplate": {
                "serviceAccountName": "default",
                "priorityClassName": "low",
                "labels": {"a": "b"},
                "annotations": {"c": "d"},
                "resources": {"limits": {"memory": "64Mi"}},
            },
            "suspend": false,
        });
        let read = |value: serde_json::Value| serde_json::from_value::<ImageCacheSpec>(value).unwrap();
        let base = read(full.clone());
        // Whoever adds a field adds it here too.
        let fields = serde_json::to_value(&base).unwrap().as_object().unwrap().len();
        assert_eq!(full.as_object().unwrap().len(), fields);
        let made = build(&wanted(&base), &BTreeMap::new(), &base.pull_secrets);
        let mutations = mutations(&full);
        assert!(mutations.len() > 25);
        for (path, changed) in mutations {
            let spec = read(changed);
            assert_ne!(spec, base, "{path}");
            let images = path.starts_with("images");
            let identity = images || path.starts_with("pullSecrets");
            assert_eq!(images_hash(&spec) != images_hash(&base), images, "{path}");
            let other = build(&wanted(&spec), &BTreeMap::new(), &spec.pull_secrets);
            assert_eq!(
                revision::hash(&other) != revision::hash(&made),
                identity,
                "{path}"
            );
            assert_eq!(
                matches_spec(&made, &wanted(&spec), &spec.pull_secrets),
                !identity,
                "{path}"
            );
        }
    }

    proptest! {
        #[test]
        fn order_is_of_no_account(
            entries in prop::collection::vec(("(docker.io/)?(library/)?[a-c](:[12])?", -2..3_i32), 0..8),
            seed in any::<prop::sample::Index>(),
        ) {
            let as_spec = |entries: &[(String, i32)]| {
                spec(&entries.iter().map(|(image, priority)| (image.as_str(), *priority)).collect::<Vec<_>>())
            };
            let mut turned = entries.clone();
            if !turned.is_empty() {
                let by = seed.index(turned.len());
                turned.rotate_left(by);
            }
            prop_assert_eq!(images_hash(&as_spec(&entries)), images_hash(&as_spec(&turned)));
            let all = wanted(&as_spec(&entries));
            prop_assert_eq!(all.images.len() + all.folded.len() + all.invalid.len(), entries.len());
            prop_assert!(all.images.windows(2).all(|w| w[0].reference.normalized() < w[1].reference.normalized()));
            for image in &all.images {
                prop_assert_eq!(all.get(image.reference.normalized()), Some(image));
            }
        }
    }
}
