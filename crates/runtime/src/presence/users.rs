//! Which images containers use.

use std::collections::BTreeMap;

use super::store::Manifests;
use crate::error::RuntimeError;
use crate::runtime::Runtime;
use crate::types::ContainerState;

/// The images of the containers that have not ended, and those that they mount: each under the names that the runtime
/// gives it, the surest first.
pub(super) async fn look(
    runtime: &dyn Runtime,
    known: &mut Manifests,
) -> Result<Vec<Vec<String>>, RuntimeError> {
    let mut used = Vec::new();
    let mut mounts = BTreeMap::new();
    for container in runtime.containers().await? {
        // One in an unknown state may be at work.
        if container.state == ContainerState::Exited {
            continue;
        }
        let mounted = match known.mounts.remove(&container.id) {
            Some(mounted) => mounted,
            None => runtime.mounted_images(&container.id).await?,
        };
        used.extend(mounted.iter().map(|image| vec![image.clone()]));
        used.push(vec![container.image_id, container.image_ref, container.image]);
        mounts.insert(container.id, mounted);
    }
    known.mounts = mounts;
    Ok(used)
}
