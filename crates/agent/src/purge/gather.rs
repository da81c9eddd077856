//! Reads what the node holds.

use larder_core::removal::{HeldContainer, HeldImage, HeldRecord, NodeContents};
use larder_runtime::{Container, ContainerState, Image, Record, Runtime, RuntimeError};

/// Reads names first and containers last, so that a container made meanwhile is seen.
pub(crate) async fn gather(runtime: &dyn Runtime) -> Result<NodeContents, RuntimeError> {
    let records = match runtime.records() {
        Some(records) => Some(records.list().await?.into_iter().map(record).collect()),
        None => None,
    };
    let images = runtime.images().await?.into_iter().map(image).collect();
    let containers = runtime
        .containers()
        .await?
        .into_iter()
        .filter_map(container)
        .collect();
    Ok(NodeContents {
        images,
        records,
        containers,
    })
}

fn record(record: Record) -> HeldRecord {
    HeldRecord {
        name: record.name,
        target: record.target,
        created_at: record.created_at,
    }
}

fn image(image: Image) -> HeldImage {
    let names = image.tags.into_iter().chain(image.digests).collect();
    HeldImage {
        id: image.id,
        names,
        pinned: image.pinned,
    }
}

/// None for a container that has ended. One in an unknown state may be at work.
fn container(container: Container) -> Option<HeldContainer> {
    if container.state == ContainerState::Exited {
        return None;
    }
    let names = [container.image_id, container.image_ref, container.image];
    Some(HeldContainer {
        id: container.id,
        image: names.into_iter().filter(|n| !n.is_empty()).collect(),
    })
}
