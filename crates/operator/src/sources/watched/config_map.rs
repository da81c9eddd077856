//! A list of references in a key of a `ConfigMap`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::watcher;
use larder_core::sources::Problem;
use larder_registry::sources::lines;

use super::{Inner, Seen, What, follow};
use crate::sources::fetch;

/// Watches this one object; a list of others is not asked for.
pub(super) async fn watch(inner: &Inner, what: &What, namespace: &str, name: &str, key: &str) {
    let api: Api<ConfigMap> = Api::namespaced(inner.client.clone(), namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    follow::objects(
        api,
        config,
        |object| read(object, key),
        |kept| {
            let seen = kept.get(name).cloned();
            let gone = || failed("NotFound", format!("ConfigMap {name} does not exist"));
            inner.tell(
                what,
                Seen {
                    at: Some(Timestamp::now()),
                    ..seen.unwrap_or_else(gone)
                },
            );
        },
        |problem| inner.broken(what, problem),
    )
    .await;
}

/// What a `ConfigMap` says.
pub(super) fn read(object: &ConfigMap, key: &str) -> Seen {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let text = object
        .data
        .as_ref()
        .and_then(|d| d.get(key))
        .map(String::as_bytes);
    let bytes = object
        .binary_data
        .as_ref()
        .and_then(|d| d.get(key))
        .map(|b| b.0.as_slice());
    let Some(bytes) = text.or(bytes) else {
        return failed("NotFound", format!("ConfigMap {name} has no key {key}"));
    };
    match lines::parse(bytes) {
        Ok(found) => Seen {
            images: found.images.into_iter().map(|i| i.image).collect(),
            problem: fetch::flaw(&found.errors),
            incomplete: false,
            at: None,
        },
        Err(error) => Seen {
            problem: Some(fetch::problem(&error)),
            incomplete: true,
            ..Seen::default()
        },
    }
}

fn failed(reason: &str, message: String) -> Seen {
    Seen {
        problem: Some(Problem {
            reason: reason.into(),
            message,
        }),
        incomplete: true,
        ..Seen::default()
    }
}
