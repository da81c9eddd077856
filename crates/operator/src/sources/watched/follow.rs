//! The events of one watch, turned into what its objects name.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use futures::{Stream, StreamExt, pin_mut};
use kube::core::Status;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_kind};
use kube::{Api, Resource, ResourceExt};
use larder_core::message::redact;
use larder_core::sources::{Problem, reason};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

/// Objects of a page: few, since all that a page holds is in memory at once.
const PAGE: u32 = 100;

/// A watch that has not been refused for this long stands.
const STANDS: Duration = Duration::from_secs(2);
/// Between two attempts.
const LONGEST: Duration = Duration::from_secs(30);
/// A version that the API server no longer knows.
const EXPIRED: u16 = 410;

/// What is made of each object, by name.
pub(super) type Kept<T> = BTreeMap<String, T>;

/// The API server said no.
struct Refusal {
    problem: Problem,
    may_pass: bool,
}

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
    let config = config.page_size(PAGE);
    let begin = || watch_kind(api.clone(), config.clone()).default_backoff();
    begun_anew(begin, keep, tell, broken).await;
}

/// Begins anew with a list after each refusal: a watcher that was refused goes on where it was, and says nothing when it
/// is served again.
///
/// A single refusal for the moment (an API server that restarts, or has too much to do) is no news.
pub(super) async fn begun_anew<K, T, S>(
    mut begin: impl FnMut() -> S,
    keep: impl Fn(&K) -> T,
    mut tell: impl FnMut(&Kept<T>),
    broken: impl Fn(Problem),
) where
    K: Resource,
    S: Stream<Item = watcher::Result<Event<K>>>,
{
    let mut backoff = DefaultBackoff::default();
    let mut refusals = 0_u32;
    loop {
        let refusal = events_of(begin(), &keep, &mut tell, &mut refusals).await;
        if let Some(Refusal { problem, may_pass }) = refusal {
            refusals = refusals.saturating_add(1);
            if refusals > 1 || !may_pass {
                broken(problem);
            }
        }
        tokio::time::sleep(backoff.next().unwrap_or(LONGEST)).await;
    }
}

/// Until the API server refuses: why, but for a version that is too old. A list that is had after `refusals` is believed,
/// and these are over, when the watch that follows it stands: who may list need not be allowed to watch.
async fn events_of<K: Resource, T>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    keep: &impl Fn(&K) -> T,
    tell: &mut impl FnMut(&Kept<T>),
    refusals: &mut u32,
) -> Option<Refusal> {
    let mut kept = Kept::new();
    let mut listed = Kept::new();
    let mut stands_at = None;
    pin_mut!(events);
    loop {
        let next = match stands_at {
            None => Some(events.next().await),
            Some(at) => timeout_at(at, events.next()).await.ok(),
        };
        let Some(next) = next else {
            (*refusals, stands_at) = (0, None);
            tell(&kept);
            continue;
        };
        match next? {
            Ok(Event::Init) => (listed, stands_at) = (Kept::new(), None),
            Ok(Event::InitApply(object)) => {
                listed.insert(object.name_any(), keep(&object));
            }
            Ok(Event::InitDone) => {
                kept = std::mem::take(&mut listed);
                if *refusals == 0 {
                    tell(&kept);
                } else {
                    stands_at = Some(Instant::now() + STANDS);
                }
            }
            Ok(Event::Apply(object)) => {
                kept.insert(object.name_any(), keep(&object));
                (*refusals, stands_at) = (0, None);
                tell(&kept);
            }
            Ok(Event::Delete(object)) => {
                kept.remove(&object.name_any());
                (*refusals, stands_at) = (0, None);
                tell(&kept);
            }
            // Too old a version: the watcher lists anew.
            Err(watcher::Error::WatchError(status)) if status.code == EXPIRED => {}
            Err(
                watcher::Error::InitialListFailed(kube::Error::Api(status))
                | watcher::Error::WatchStartFailed(kube::Error::Api(status))
                | watcher::Error::WatchError(status),
            ) => return refusal(&status),
            // A connection that broke off: the watcher tries again.
            Err(_) => {}
        }
    }
}

/// None for a version that is too old.
fn refusal(status: &Status) -> Option<Refusal> {
    let (reason, may_pass) = match status.code {
        EXPIRED => return None,
        401 | 403 => ("Unauthorized", false),
        404 => ("NotFound", false),
        429 => ("RateLimited", true),
        _ => (reason::UNREACHABLE, true),
    };
    Some(Refusal {
        problem: Problem {
            reason: reason.into(),
            message: redact(&status.message),
        },
        may_pass,
    })
}
