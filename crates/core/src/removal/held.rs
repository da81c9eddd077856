//! What a node holds, put together by image: one config, all its names.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::image_ref::{ImageRef, is_digest};

/// What a node's runtime reports at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeContents {
    /// Images as CRI lists them.
    pub images: Vec<HeldImage>,
    /// containerd's records; none where the runtime has no such API.
    pub records: Option<Vec<HeldRecord>>,
    /// Containers that are or may be at work.
    pub containers: Vec<HeldContainer>,
}

/// An image as CRI lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldImage {
    /// Digest of its configuration, with or without `sha256:`.
    pub id: String,
    /// Names with a tag or a digest.
    pub names: Vec<String>,
    /// The runtime was told to keep it.
    pub pinned: bool,
}

/// A record of containerd's images service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldRecord {
    /// A name with a tag or a digest, or an image id.
    pub name: String,
    /// Digest of the index or manifest it points at.
    pub target: String,
    /// When a record of this name was first made.
    pub created_at: Option<Timestamp>,
}

/// A container that is created, running or in an unknown state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldContainer {
    /// Its id.
    pub id: String,
    /// Id of its image, then the image's other names as far as the runtime gives them.
    pub image: Vec<String>,
}

/// One image with everything that matters for its removal.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// Image id as the runtime spells it; none if the runtime knows the name but not the image behind it.
    pub id: Option<String>,
    /// Its names, the id among them where that is a record of its own.
    pub names: Vec<Name>,
    /// When the image came: time of the record named like its id.
    pub created_at: Option<Timestamp>,
    /// Why it cannot go.
    pub used: Option<String>,
}

/// One name of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// As the runtime spells it.
    pub raw: String,
    pub kind: Kind,
    /// What it points at, where the runtime says.
    pub target: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `normalized` names a tag of `repository`.
    Tag { repository: String, normalized: String },
    /// A digest of `repository`.
    Digest { repository: String, digest: String },
    /// The image id.
    Id,
    /// Nothing that a reference could mean.
    Opaque,
}

impl Held {
    pub(super) fn holds(&self, digest: &str) -> bool {
        self.names.iter().any(|name| {
            name.target.as_deref() == Some(digest)
                || matches!(&name.kind, Kind::Digest { digest: d, .. } if d == digest)
        })
    }

    pub(super) fn has_tag(&self, normalized: &str) -> bool {
        self.names
            .iter()
            .any(|n| matches!(&n.kind, Kind::Tag { normalized: t, .. } if t == normalized))
    }

    /// Whether one of its names is in this repository.
    pub(super) fn is_in(&self, repository: &str) -> bool {
        self.names.iter().any(|n| match &n.kind {
            Kind::Tag { repository: r, .. } | Kind::Digest { repository: r, .. } => r == repository,
            Kind::Id | Kind::Opaque => false,
        })
    }

    /// Whether nothing but its id is left.
    pub(super) fn is_unnamed(&self) -> bool {
        self.names.iter().all(|n| n.kind == Kind::Id)
    }

    fn is_called(&self, name: &str) -> bool {
        let normalized = ImageRef::parse(name).ok();
        self.names.iter().any(|n| {
            n.raw == name
                || match (&n.kind, &normalized) {
                    (Kind::Tag { normalized: mine, .. }, Some(other)) => mine == other.normalized(),
                    (Kind::Digest { repository, digest }, Some(other)) => {
                        repository == other.name() && other.digest() == Some(digest)
                    }
                    _ => false,
                }
        })
    }
}

/// Puts names together by the image that they mean, sorted, whatever the order of the lists.
pub(super) fn group(state: &NodeContents) -> Vec<Held> {
    let mut groups = match &state.records {
        Some(records) => by_records(&state.images, records),
        None => by_images(&state.images),
    };
    for held in &mut groups {
        held.names.sort_by(|a, b| a.raw.cmp(&b.raw));
    }
    mark_used(&mut groups, &state.containers);
    groups
}

fn by_images(images: &[HeldImage]) -> Vec<Held> {
    let mut images: Vec<&HeldImage> = images.iter().collect();
    images.sort_by(|a, b| a.id.cmp(&b.id));
    images
        .into_iter()
        .map(|image| Held {
            id: Some(image.id.clone()),
            // CRI may give familiar names (cri-dockerd: nginx:1.27).
            names: image.names.iter().map(|raw| name(raw, None, true)).collect(),
            created_at: None,
            used: pinned(image),
        })
        .collect()
}

/// A name belongs to the image that CRI lists it under; a name that CRI does not list (its content was broken when the
/// runtime started) to the image that shares its target.
fn by_records(images: &[HeldImage], records: &[HeldRecord]) -> Vec<Held> {
    let mut id_of_name: BTreeMap<&str, &str> = BTreeMap::new();
    for image in images {
        id_of_name.insert(&image.id, &image.id);
        id_of_name.extend(image.names.iter().map(|n| (n.as_str(), image.id.as_str())));
    }
    let mut id_of_target: BTreeMap<&str, &str> = BTreeMap::new();
    for record in records.iter().filter(|r| is_digest(&r.name)) {
        id_of_target.insert(&record.target, &record.name);
    }
    for record in records {
        if let Some(id) = id_of_name.get(record.name.as_str()) {
            id_of_target.insert(&record.target, id);
        }
    }
    let mut groups: BTreeMap<(bool, &str), Held> = BTreeMap::new();
    for record in records {
        let id = id_of_name.get(record.name.as_str()).copied();
        let id = id.or_else(|| is_digest(&record.name).then_some(record.name.as_str()));
        let id = id.or_else(|| id_of_target.get(record.target.as_str()).copied());
        let key = (id.is_none(), id.unwrap_or(&record.target));
        let held = groups.entry(key).or_insert_with(|| Held {
            id: id.map(str::to_owned),
            names: Vec::new(),
            created_at: None,
            used: images.iter().find(|i| Some(i.id.as_str()) == id).and_then(pinned),
        });
        held.names.push(name(&record.name, Some(&record.target), false));
        if id == Some(record.name.as_str()) {
            held.created_at = record.created_at;
        }
    }
    groups.into_values().collect()
}

/// `familiar`: a short spelling means the normalised one. A record of containerd means just what it says.
fn name(raw: &str, target: Option<&str>, familiar: bool) -> Name {
    let kind = if is_digest(raw) {
        Kind::Id
    } else {
        match ImageRef::parse(raw) {
            Ok(parsed) if familiar || parsed.normalized() == raw => match parsed.digest() {
                Some(digest) => Kind::Digest {
                    repository: parsed.name().to_owned(),
                    digest: digest.to_owned(),
                },
                None => Kind::Tag {
                    repository: parsed.name().to_owned(),
                    normalized: parsed.normalized().to_owned(),
                },
            },
            _ => Kind::Opaque,
        }
    };
    Name {
        raw: raw.to_owned(),
        kind,
        target: target.map(str::to_owned),
    }
}

fn pinned(image: &HeldImage) -> Option<String> {
    image
        .pinned
        .then(|| "the runtime was told to keep it (pinned)".to_owned())
}

/// An id decides; only where a container carries no known id do its image's other names count. A name alone could by now
/// mean another image.
fn mark_used(groups: &mut [Held], containers: &[HeldContainer]) {
    for container in containers {
        let by_id = |held: &Held| {
            held.id
                .as_deref()
                .is_some_and(|id| container.image.iter().any(|i| bare(i) == bare(id)))
        };
        let known = groups.iter().any(by_id);
        for held in groups.iter_mut() {
            let uses = if known {
                by_id(held)
            } else {
                container.image.iter().any(|name| held.is_called(name))
            };
            if uses {
                let short: String = container.id.chars().take(12).collect();
                held.used
                    .get_or_insert_with(|| format!("container {short} uses it"));
            }
        }
    }
}

fn bare(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}
