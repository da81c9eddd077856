//! Records what annotations ask for, then removes them. A crash in between asks again: at least once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Api;
use kube::api::{Patch, PatchParams};
use larder_api::ImageCache;
use larder_api::names::condition;
use larder_core::requests::Requests;
use serde_json::json;

use super::{Error, named, report};
use crate::context::Context;

/// Writes the records, with Ready False in the same write, and removes the annotations whose values are still those
/// that were read.
pub(super) async fn accept(
    ctx: &Context,
    mut cache: ImageCache,
    asked: &Requests,
) -> Result<ImageCache, Error> {
    let generation = cache.metadata.generation;
    let status = cache.status.get_or_insert_default();
    status.last_refresh.clone_from(&asked.last_refresh);
    status.last_purge.clone_from(&asked.last_purge);
    let purging = asked.last_purge.as_ref().is_some_and(|p| p.in_force);
    let (reason, message) = if purging {
        ("Purging", "a purge was asked for")
    } else {
        ("Refreshing", "a refresh was asked for")
    };
    let now = jiff::Timestamp::now();
    let was = status.conditions.iter().position(|c| c.type_ == condition::READY);
    let ready = Condition {
        type_: condition::READY.into(),
        status: "False".into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: was
            .and_then(|i| status.conditions.get(i))
            .filter(|c| c.status == "False")
            .map_or(Time(now), |c| c.last_transition_time.clone()),
    };
    match was {
        Some(i) => status.conditions[i] = ready,
        None => status.conditions.push(ready),
    }
    let mut cache = report::write(ctx, &cache).await?;
    for (key, value) in &asked.annotations {
        let path = format!(
            "/metadata/annotations/{}",
            key.replace('~', "~0").replace('/', "~1")
        );
        let operations = json!([
            {"op": "test", "path": path, "value": value},
            {"op": "remove", "path": path},
        ]);
        let Ok(removal) = serde_json::from_value(operations) else {
            continue;
        };
        let namespace = cache.metadata.namespace.clone().unwrap_or_default();
        let api: Api<ImageCache> = Api::namespaced(ctx.client.clone(), &namespace);
        let name = cache.metadata.name.clone().unwrap_or_default();
        let params = PatchParams {
            field_manager: Some(larder_api::names::FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        match api.patch(&name, &params, &Patch::Json::<()>(removal)).await {
            Ok(written) => {
                ctx.wrote_cache(written.clone());
                cache.metadata = written.metadata;
            }
            // The value is another by now, or the annotation is gone: what it says next is seen by its own change.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 422) => {}
            Err(error) => return Err(Error::Annotation(named(&cache), key.clone(), error)),
        }
    }
    Ok(cache)
}
