//! Reads what the node holds.

use std::collections::{BTreeMap, BTreeSet};

use larder_api::names::{PIN_LABEL, PINNED_LABEL};
use larder_core::removal::{HeldContainer, HeldImage, HeldRecord, NodeContents};
use larder_runtime::{Container, ContainerState, Image, Record, Runtime, RuntimeError};

/// Reads the node again and again.
#[derive(Debug, Default)]
pub(crate) struct Gatherer {
    /// Images mounted by each container. They never change, so each container is asked once.
    mounts: BTreeMap<String, Vec<String>>,
}

impl Gatherer {
    /// Reads names first and containers last, so that a container made meanwhile is seen.
    pub(crate) async fn gather(&mut self, runtime: &dyn Runtime) -> Result<NodeContents, RuntimeError> {
        let records = match runtime.records() {
            Some(records) => Some(records.list().await?),
            None => None,
        };
        let pins = records.as_deref().map(Pins::of);
        let records = records.map(|all| all.into_iter().map(record).collect());
        let images = runtime.images().await?.into_iter();
        let images = images.map(|i| image(i, pins.as_ref())).collect();
        let mut containers = Vec::new();
        // One in an unknown state may be at work.
        for container in runtime
            .containers()
            .await?
            .into_iter()
            .filter(|c| c.state != ContainerState::Exited)
        {
            for mounted in self.mounted(runtime, &container.id).await? {
                containers.push(HeldContainer {
                    id: container.id.clone(),
                    image: vec![mounted.clone()],
                });
            }
            containers.push(held(container));
        }
        Ok(NodeContents {
            images,
            records,
            containers,
        })
    }

    async fn mounted(&mut self, runtime: &dyn Runtime, container: &str) -> Result<&[String], RuntimeError> {
        if !self.mounts.contains_key(container) {
            let mounted = runtime.mounted_images(container).await?;
            self.mounts.insert(container.to_owned(), mounted);
        }
        Ok(self.mounts.get(container).map(Vec::as_slice).unwrap_or_default())
    }
}

fn record(record: Record) -> HeldRecord {
    HeldRecord {
        name: record.name,
        target: record.target,
        created_at: record.created_at,
    }
}

/// Pins as the records have them. CRI hears of a changed label a moment later, so that alone it is no proof.
struct Pins {
    /// Ids of the images that Larder pinned: that keeps nobody from removing what Larder may remove.
    ours: BTreeSet<String>,
    /// Every name with a pin.
    all: BTreeSet<String>,
}

impl Pins {
    fn of(records: &[Record]) -> Self {
        let labelled = |label: &'static str| {
            records
                .iter()
                .filter(move |r| r.labels.get(label).is_some_and(|v| !v.is_empty()))
                .map(|r| bare(&r.name).to_owned())
        };
        Self {
            ours: labelled(PINNED_LABEL).collect(),
            all: labelled(PIN_LABEL).collect(),
        }
    }

    /// Somebody else pinned the image.
    fn hold(&self, id: &str, names: &[String]) -> bool {
        let pinned = self.all.contains(bare(id)) || names.iter().any(|n| self.all.contains(n));
        pinned && !self.ours.contains(bare(id))
    }
}

fn image(image: Image, pins: Option<&Pins>) -> HeldImage {
    let names: Vec<String> = image.tags.into_iter().chain(image.digests).collect();
    HeldImage {
        pinned: image.pinned && pins.is_none_or(|pins| pins.hold(&image.id, &names)),
        names,
        id: image.id,
    }
}

fn bare(id: &str) -> &str {
    id.trim_start_matches("sha256:")
}

fn held(container: Container) -> HeldContainer {
    let names = [container.image_id, container.image_ref, container.image];
    HeldContainer {
        id: container.id,
        image: names.into_iter().filter(|n| !n.is_empty()).collect(),
    }
}
