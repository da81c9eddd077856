//! Puts names, content and users together by image.

use std::collections::{BTreeMap, BTreeSet};

use larder_core::image_ref::{ImageRef, is_digest};

use super::store::{Checked, Store};
use super::{ImageContents, TargetContents};
use crate::types::{Image, Record, Target};

/// Without a store, what CRI says is believed.
pub(super) fn images(
    listed: Vec<Image>,
    records: Vec<Record>,
    users: &[Vec<String>],
    store: Option<&Store>,
) -> Vec<ImageContents> {
    let mut node = Node::default();
    for image in listed {
        node.add_listed(image, store.is_some());
    }
    node.add_records(records, store);
    for names in users {
        node.mark_used(names);
    }
    let mut images: Vec<ImageContents> = node.images.into_values().collect();
    for image in &mut images {
        check(image, store);
    }
    images
}

#[derive(Default)]
struct Node {
    images: BTreeMap<String, ImageContents>,
    /// Image ids by every name that CRI gives, and by the targets of ids' own records.
    ids: BTreeMap<String, String>,
}

impl Node {
    fn add_listed(&mut self, image: Image, has_records: bool) {
        let id = with_algorithm(&image.id);
        for name in image.tags.iter().chain(&image.digests) {
            self.ids.insert(name.clone(), id.clone());
        }
        let entry = entry(&mut self.images, &id);
        entry.listed = true;
        entry.pinned |= image.pinned;
        if has_records {
            return;
        }
        let digests = image.digests.iter().filter_map(|name| name.split_once('@'));
        for (_, digest) in digests {
            entry
                .targets
                .entry(digest.to_owned())
                .or_insert_with(|| target(digest));
        }
        let tags = image.tags.iter().filter_map(|tag| ImageRef::parse(tag).ok());
        for tag in tags {
            let digest = digest_behind(&tag, &image.digests);
            entry.tags.insert(tag.normalized().to_owned(), digest);
        }
    }

    fn add_records(&mut self, records: Vec<Record>, store: Option<&Store>) {
        let (ids, names): (Vec<Record>, Vec<Record>) = records.into_iter().partition(|r| is_digest(&r.name));
        for record in ids {
            self.ids.insert(record.target.clone(), record.name.clone());
            let entry = entry(&mut self.images, &record.name);
            entry.labels.clone_from(&record.labels);
            add_target(entry, &record);
        }
        for record in names {
            let Some(id) = self.id_of(&record, store) else {
                continue;
            };
            let entry = entry(&mut self.images, &id);
            add_target(entry, &record);
            let tag = ImageRef::parse(&record.name).ok();
            // Others are no names that a pod could use: CRI normalises first.
            if tag.is_some_and(|tag| tag.digest().is_none() && tag.normalized() == record.name) {
                entry.tags.insert(record.name, Some(record.target));
            }
        }
    }

    /// The image behind a record: as CRI says, else by what it points at. None for what is no image of CRI's.
    fn id_of(&self, record: &Record, store: Option<&Store>) -> Option<String> {
        let by_name = self
            .ids
            .get(&record.name)
            .or_else(|| self.ids.get(&record.target));
        if let Some(id) = by_name {
            return Some(id.clone());
        }
        let store = store?;
        self.images
            .keys()
            .find(|id| store.leads_to(&record.target, id))
            .cloned()
    }

    /// The first name that means an image decides.
    fn mark_used(&mut self, names: &[String]) {
        let id = names.iter().find_map(|name| self.id_named(name));
        if let Some(image) = id.and_then(|id| self.images.get_mut(&id)) {
            image.used = true;
        }
    }

    /// The image behind an id or a name in any spelling.
    fn id_named(&self, name: &str) -> Option<String> {
        let id = with_algorithm(name);
        if self.images.contains_key(&id) {
            return Some(id);
        }
        let parsed = ImageRef::parse(name).ok()?;
        let stored = match parsed.digest() {
            Some(digest) => format!("{}@{digest}", parsed.name()),
            None => parsed.normalized().to_owned(),
        };
        self.ids.get(name).or_else(|| self.ids.get(&stored)).cloned()
    }
}

/// The digest that a tag points at, by the names with a digest that CRI gives to the image. Of several in the tag's own
/// repository, such as an index and its manifest or what the tag meant before, CRI does not say which one it is.
fn digest_behind(tag: &ImageRef, names: &[String]) -> Option<String> {
    let names = || names.iter().filter_map(|name| name.split_once('@'));
    let own: BTreeSet<&str> = names()
        .filter(|(n, _)| *n == tag.name())
        .map(|(_, d)| d)
        .collect();
    let all = || names().map(|(_, d)| d).collect();
    let digests = if own.is_empty() { all() } else { own };
    match digests.first() {
        Some(only) if digests.len() == 1 => Some((*only).to_owned()),
        _ => None,
    }
}

/// What CRI does not list cannot be used by its names, whole or not.
fn check(image: &mut ImageContents, store: Option<&Store>) {
    for (digest, target) in &mut image.targets {
        let checked = match store {
            Some(store) => store.check(&image.id, digest),
            None => Checked {
                whole: true,
                layers: Vec::new(),
            },
        };
        target.whole = checked.whole && image.listed;
        target.layers = checked.layers;
    }
}

fn add_target(image: &mut ImageContents, record: &Record) {
    let entry = image.targets.entry(record.target.clone()).or_default();
    entry.target = record.to_target();
}

fn entry<'a>(images: &'a mut BTreeMap<String, ImageContents>, id: &str) -> &'a mut ImageContents {
    images.entry(id.to_owned()).or_insert_with(|| ImageContents {
        id: id.to_owned(),
        ..ImageContents::default()
    })
}

fn target(digest: &str) -> TargetContents {
    TargetContents {
        target: Target {
            digest: digest.to_owned(),
            ..Target::default()
        },
        ..TargetContents::default()
    }
}

/// CRI-O leaves the algorithm out of an image id.
fn with_algorithm(id: &str) -> String {
    let is_hash = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hash {
        format!("sha256:{id}")
    } else {
        id.to_owned()
    }
}
