//! The images that a spec and its sources ask for: parsed, two spellings of one image folded into one.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use larder_api::ImageCacheSpec;
use serde_json::json;

use crate::exclude::Exclude;
use crate::hash;
use crate::image_ref::ImageRef;

/// Images of a cache in all: what a revision may list.
pub const MAX_IMAGES: usize = 500;

/// An image that a cache wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedImage {
    /// The reference.
    pub reference: ImageRef,
    /// The first spelling in the spec: what messages name.
    pub written: String,
    /// The highest priority of its spellings.
    pub priority: i32,
    /// The sources that name it.
    pub sources: BTreeSet<String>,
}

/// What a source names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// The source.
    pub source: String,
    /// References as the source spells them.
    pub images: Vec<String>,
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
    /// The same for sources, by their names. They concern nothing but themselves.
    pub broken: BTreeMap<String, Vec<(String, String)>>,
    /// Images of sources beyond [`MAX_IMAGES`], by the names of the sources.
    pub beyond: BTreeMap<String, usize>,
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

/// Reads the images of a spec's own list.
pub fn wanted(spec: &ImageCacheSpec) -> WantedImages {
    wanted_with(spec, &[])
}

/// Reads the images of a spec and of its sources. What cannot be parsed is listed apart and leaves the rest as it is.
/// What `exclude` names is left out of the sources; an image of the spec's own list is not a source's to spell or to
/// leave out. Beyond [`MAX_IMAGES`] what comes last in a source is left out, of the last source first.
pub fn wanted_with(spec: &ImageCacheSpec, brought: &[Brought]) -> WantedImages {
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
                sources: BTreeSet::new(),
            };
            images.insert(normalized, image);
        }
    }
    let exclude = exclude(spec);
    for Brought { source, images: list } in brought {
        for written in list {
            let reference = match ImageRef::parse(written) {
                Ok(reference) => reference,
                Err(error) => {
                    let broken = result.broken.entry(source.clone()).or_default();
                    broken.push((written.clone(), error.to_string()));
                    continue;
                }
            };
            if exclude.fits(&reference) {
                continue;
            }
            let full = images.len() >= MAX_IMAGES;
            match images.entry(reference.normalized().to_owned()) {
                Entry::Vacant(_) if full => *result.beyond.entry(source.clone()).or_default() += 1,
                Entry::Vacant(entry) => {
                    entry.insert(WantedImage {
                        reference,
                        written: written.clone(),
                        priority: 0,
                        sources: [source.clone()].into(),
                    });
                }
                Entry::Occupied(mut entry) => {
                    entry.get_mut().sources.insert(source.clone());
                }
            }
        }
    }
    result.images = images.into_values().collect();
    result
}

/// What is left out of the sources. A pattern that is none could fit nothing.
pub fn exclude(spec: &ImageCacheSpec) -> Exclude {
    let patterns = spec.exclude.iter().map(String::as_str);
    Exclude::parse(patterns.filter(|p| Exclude::parse([*p]).is_ok())).unwrap_or_default()
}

/// Names what the spec asks for, whatever the order and the spelling of images: 13 lower-case letters and digits. Of
/// sources it is what the spec says of them, not what they give.
pub fn images_hash(spec: &ImageCacheSpec) -> String {
    let wanted = wanted(spec);
    let mut parts: Vec<String> = Vec::new();
    for image in &wanted.images {
        parts.extend([
            image.reference.normalized().to_owned(),
            image.priority.to_string(),
        ]);
    }
    // Without sources the hash is what it was before there were any.
    if !spec.sources.is_empty() {
        parts.push(format!("sources {}", json!(spec.sources)));
        parts.push(format!("exclude {}", json!(spec.exclude)));
    }
    hash::short(parts.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use larder_api::ImageCacheSpec;
    use larder_api::image_cache::ImageEntry;
    use proptest::prelude::*;
    use serde_json::json;

    use super::{Brought, MAX_IMAGES, images_hash, wanted, wanted_with};
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
    fn sources_bring_what_is_not_excluded_and_say_who_named_it() {
        let mut spec = spec(&[("nginx:1", 3), ("r.example/own:debug", 0)]);
        spec.exclude = ["*:debug", "docker.io/library/*", "no {pattern}"]
            .map(String::from)
            .into();
        let brought = |source: &str, images: &[&str]| Brought {
            source: source.into(),
            images: images.iter().map(|i| (*i).to_owned()).collect(),
        };
        let all = wanted_with(
            &spec,
            &[
                brought("b", &["r.example/a:1", "busybox", "r.example/own:debug", "A B"]),
                brought("a", &["r.example/a:1", "r.example/x:debug", "r.example/b"]),
            ],
        );
        let images: Vec<_> = all
            .images
            .iter()
            .map(|i| {
                let sources: Vec<&str> = i.sources.iter().map(String::as_str).collect();
                (i.written.as_str(), i.priority, sources.join(","))
            })
            .collect();
        assert_eq!(
            images,
            [
                ("nginx:1", 3, String::new()),
                ("r.example/a:1", 0, "a,b".into()),
                ("r.example/b", 0, "a".into()),
                ("r.example/own:debug", 0, String::new()),
            ]
        );
        assert_eq!(all.broken["b"][0].0, "A B");
        assert!(all.invalid.is_empty() && all.folded.is_empty() && all.beyond.is_empty());
    }

    #[test]
    fn what_is_too_much_is_counted_and_the_spec_comes_first() {
        let own: Vec<(String, i32)> = (0..10).map(|i| (format!("own/{i}:1"), 0)).collect();
        let own: Vec<(&str, i32)> = own.iter().map(|(image, p)| (image.as_str(), *p)).collect();
        let many = |source: &str, n: usize| Brought {
            source: source.into(),
            images: (0..n).map(|i| format!("{source}/{i}:1")).collect(),
        };
        let all = wanted_with(&spec(&own), &[many("a", 450), many("b", 100)]);
        assert_eq!(all.images.len(), MAX_IMAGES);
        assert_eq!(all.beyond, [("b".to_owned(), 60)].into());
        assert!(all.get("docker.io/own/9:1").is_some());
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
            "sources": [
                {"name": "list", "configMap": {"name": "images", "key": "list"}},
                {"name": "page", "http": {"url": "http://a/b", "format": "Json", "jsonPath": "{.a}"}},
                {"name": "apps", "appRegistry": {"url": "http://a/c", "brand": "x"}},
                {"name": "pods", "workloads": {"namespaces": ["team"], "kinds": ["Pod"]}},
                {"name": "tags", "registryTags": {"repository": "redis", "semver": "7", "newest": 2}},
            ],
            "exclude": ["*:debug"],
            "nodes": {
                "selector": {"matchLabels": {"pool": "web"}},
                "affinity": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "includeUnschedulable": false,
            },
            "puller": "Job",
            "privateImages": "Kubelet",
            "pullSecrets": [{"name": "regcred"}],
            "resolve": "Central",
            "onMissingPlatform": "Skip",
            "refresh": {"interval": "1h", "schedule": "0 3 * * *", "timeZone": "Europe/Berlin"},
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
            let asked = images || path.starts_with("sources") || path.starts_with("exclude");
            assert_eq!(images_hash(&spec) != images_hash(&base), asked, "{path}");
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
