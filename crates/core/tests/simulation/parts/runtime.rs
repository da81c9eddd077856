//! A container runtime: images, each under all of its names.

use std::collections::BTreeMap;

use jiff::Timestamp;
use larder_api::node_image_cache::{Capability, RuntimeOnNode};
use larder_api::revision::RevisionImage;
use larder_core::agent::{Disk, ImageObserved, Observed};
use larder_core::image_ref::ImageRef;
use larder_core::removal::{HeldContainer, HeldImage, HeldRecord, NodeContents, RemovalAct, RemovalStep};

use super::objects::id_of;

/// An image in the runtime.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Stored {
    /// What the record of its id points at.
    pub target: String,
    /// Name to target.
    pub names: BTreeMap<String, String>,
    pub complete: bool,
    pub pinned: bool,
    pub pinned_by_us: bool,
    pub pulled_by_us: bool,
    pub used: bool,
    pub created_at: Timestamp,
    pub bytes: i64,
}

#[derive(Debug)]
pub struct Runtime {
    /// By image id.
    pub images: BTreeMap<String, Stored>,
    pub capabilities: Vec<Capability>,
    pub disk_total: u64,
}

impl Runtime {
    pub fn new() -> Self {
        Self {
            images: BTreeMap::new(),
            capabilities: vec![Capability::Content, Capability::Pin, Capability::Progress],
            disk_total: 1 << 40,
        }
    }

    fn knows_content(&self) -> bool {
        self.capabilities.contains(&Capability::Content)
    }

    /// Somebody brings an image; `tag` says whether its reference names it from now on, or only its digest.
    pub fn arrive(
        &mut self,
        now: Timestamp,
        reference: &str,
        digest: &str,
        tag: bool,
        bytes: i64,
        by_us: bool,
    ) {
        let parsed = ImageRef::parse(reference).unwrap();
        let stored = self.images.entry(id_of(digest)).or_insert_with(|| Stored {
            target: digest.to_owned(),
            created_at: now,
            pulled_by_us: by_us,
            ..Stored::default()
        });
        stored
            .names
            .insert(format!("{}@{digest}", parsed.name()), digest.to_owned());
        stored.complete = true;
        stored.bytes = stored.bytes.max(bytes);
        if tag && parsed.digest().is_none() {
            self.point(parsed.normalized(), digest);
        }
    }

    pub fn point(&mut self, tag: &str, digest: &str) {
        for stored in self.images.values_mut() {
            stored.names.remove(tag);
        }
        let stored = self.images.get_mut(&id_of(digest)).unwrap();
        stored.names.insert(tag.to_owned(), digest.to_owned());
    }

    /// Whether something has this digest, be it by one of its names alone.
    pub fn has_target(&self, target: &str) -> bool {
        let mut images = self.images.values();
        images.any(|s| s.target == target || s.names.values().any(|t| t == target))
    }

    /// Whether something has this name, which need not be normalised.
    pub fn holds(&self, reference: &str) -> bool {
        let parsed = ImageRef::parse(reference).unwrap();
        self.images
            .values()
            .any(|s| s.names.contains_key(parsed.normalized()))
    }

    /// Whether the image of a revision is there, under its name and with its digest.
    pub fn has(&self, image: &RevisionImage) -> bool {
        let parsed = ImageRef::parse(&image.image).unwrap();
        let mut named = self
            .images
            .values()
            .filter_map(|s| s.names.get(parsed.normalized()));
        named.any(|target| image.digest.as_ref().is_none_or(|d| d == target))
    }

    /// What a look shows while so many bytes are arriving.
    pub fn observe(&self, arriving: i64) -> Observed {
        let knows = self.knows_content();
        let images = self.images.iter().map(|(id, stored)| ImageObserved {
            id: id.clone(),
            tags: stored
                .names
                .iter()
                .filter(|(name, _)| !name.contains('@'))
                .map(|(name, target)| (name.clone(), knows.then(|| target.clone())))
                .collect(),
            targets: stored.names.values().chain([&stored.target]).cloned().collect(),
            complete: stored.complete || !knows,
            pinned: stored.pinned,
            pinned_by_us: stored.pinned_by_us,
            pulled_by_us: stored.pulled_by_us && knows,
            used: stored.used,
        });
        let used: i64 = self.images.values().map(|s| s.bytes * 22 / 10).sum();
        Observed {
            runtime: RuntimeOnNode {
                name: "fake".into(),
                version: "1".into(),
            },
            capabilities: self.capabilities.clone(),
            images: images.collect(),
            disk: Some(Disk {
                total: self.disk_total,
                free: self.disk_total.saturating_sub((used + arriving) as u64),
            }),
        }
    }

    /// The same for a removal.
    pub fn contents(&self) -> NodeContents {
        let mut contents = NodeContents {
            records: self.knows_content().then(Vec::new),
            ..NodeContents::default()
        };
        for (id, stored) in &self.images {
            contents.images.push(HeldImage {
                id: id.clone(),
                names: stored.names.keys().cloned().collect(),
                pinned: stored.pinned && !stored.pinned_by_us,
            });
            if stored.used {
                contents.containers.push(HeldContainer {
                    id: "c".into(),
                    image: vec![id.clone()],
                });
            }
            let Some(records) = &mut contents.records else {
                continue;
            };
            records.extend(stored.names.iter().map(|(name, target)| HeldRecord {
                name: name.clone(),
                target: target.clone(),
                created_at: Some(stored.created_at),
            }));
            records.push(HeldRecord {
                name: id.clone(),
                target: stored.target.clone(),
                created_at: Some(stored.created_at),
            });
        }
        contents
    }

    /// Removes an image or some of its names. Returns the names that went.
    pub fn carry_out(&mut self, step: &RemovalStep) -> Vec<String> {
        let stored = self.images.get_mut(&step.image).unwrap();
        assert!(!stored.used, "a container uses {}", step.image);
        let before: Vec<String> = stored.names.keys().cloned().collect();
        match &step.act {
            RemovalAct::RemoveImage => stored.names.clear(),
            RemovalAct::DeleteRecords { records, .. } => {
                for (name, _) in records {
                    stored.names.remove(name);
                }
            }
        }
        let went = before.into_iter().filter(|n| !stored.names.contains_key(n));
        let went: Vec<String> = went.collect();
        if stored.names.is_empty() {
            self.images.remove(&step.image);
        }
        went
    }
}
