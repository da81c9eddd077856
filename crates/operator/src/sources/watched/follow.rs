//! The events of one watch, turned into what its objects name.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::{Stream, StreamExt, pin_mut};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_kind};
use kube::{Api, Resource, ResourceExt};
use larder_core::message::redact;
use larder_core::sources::{Problem, reason};
use serde::de::DeserializeOwned;

/// Objects of a page: few, since all that a page holds is in memory at once.
const PAGE: u32 = 100;

/// What is made of each object, by name.
pub(super) type Kept<T> = BTreeMap<String, T>;

/// Watches for ever. `keep` says what of an object is worth keeping; `tell` is called with all of it whenever a list has
/// ended or something changed, `broken` when the API server refuses.
pub(super) async fn objects<K, T>(
    api: Api<K>,
    config: watcher::Config,
    keep: impl Fn(&K) -> T,
    tell: impl FnMut(&Kept<T>),
    broken: impl Fn(Problem),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = watch_kind(api, config.page_size(PAGE)).default_backoff();
    events_of(events, keep, tell, broken).await;
}

pub(super) async fn events_of<K: Resource, T>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    keep: impl Fn(&K) -> T,
    mut tell: impl FnMut(&Kept<T>),
    broken: impl Fn(Problem),
) {
    let mut kept = Kept::new();
    let mut listed = Kept::new();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = Kept::new(),
            Ok(Event::InitApply(object)) => {
                listed.insert(object.name_any(), keep(&object));
            }
            Ok(Event::InitDone) => {
                kept = std::mem::take(&mut listed);
                tell(&kept);
            }
            Ok(Event::Apply(object)) => {
                kept.insert(object.name_any(), keep(&object));
                tell(&kept);
            }
            Ok(Event::Delete(object)) => {
                kept.remove(&object.name_any());
                tell(&kept);
            }
            Err(error) => {
                if let Some(problem) = refused(&error) {
                    broken(problem);
                }
            }
        }
    }
}

/// A watch that breaks off is begun again, and nobody need know; one that may not be had is news.
fn refused(error: &watcher::Error) -> Option<Problem> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status)) = error
    else {
        return None;
    };
    // 410: the version is too old, and a new list is on its way.
    if status.code == 410 {
        return None;
    }
    let reason = match status.code {
        401 | 403 => "Unauthorized",
        404 => "NotFound",
        429 => "RateLimited",
        _ => reason::UNREACHABLE,
    };
    Some(Problem {
        reason: reason.into(),
        message: redact(&status.message),
    })
}
