//! Refreshes and purges that are asked for: by annotation, by interval or schedule, and what ends them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use larder_api::image_cache_status::{PurgeStatus, RefreshResult, RefreshStatus, RefreshTrigger};
use larder_api::names::{
    KUBEFLEDGED_PURGE_ANNOTATION, KUBEFLEDGED_REFRESH_ANNOTATION, PURGE_ANNOTATION, REFRESH_ANNOTATION,
};
use larder_api::{ImageCache, ImageCacheSpec};

use crate::plan::signed;
use crate::schedule::{Next, Runs, Schedule, ScheduleError};

/// What was asked for and is to be recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests {
    /// The new record of the last refresh.
    pub last_refresh: Option<RefreshStatus>,
    /// The new record of the last purge.
    pub last_purge: Option<PurgeStatus>,
    /// Annotations to remove, with the value each had, once the records are written.
    pub annotations: BTreeMap<String, String>,
    /// An annotation was accepted: the records must be written before anything else is done.
    pub accepted: bool,
    /// When time alone asks for a refresh.
    pub wake_at: Option<Timestamp>,
}

/// Reads what is asked for. `images_hash` is that of the present spec.
///
/// Both at once: the purge happens, the refresh is finished as Superseded. A suspended cache accepts a purge and lets
/// the refresh wait. A purge stays in force until a refresh by annotation or a change of the images.
pub fn read(cache: &ImageCache, images_hash: &str, now: Timestamp) -> Requests {
    let status = cache.status.clone().unwrap_or_default();
    let mut requests = Requests {
        last_refresh: status.last_refresh,
        last_purge: status.last_purge,
        ..Requests::default()
    };
    if let Some(refresh) = requests.last_refresh.as_mut().filter(|r| r.finished_at.is_none()) {
        not_ahead(refresh, now);
    }
    let deleting = cache.metadata.deletion_timestamp.is_some();
    if let Some(purge) = &mut requests.last_purge
        && purge.in_force
        && purge.images_hash != images_hash
    {
        end_purge(purge, now);
    }
    let purge = asked(cache, &[PURGE_ANNOTATION, KUBEFLEDGED_PURGE_ANNOTATION]);
    let refresh = asked(cache, &[REFRESH_ANNOTATION, KUBEFLEDGED_REFRESH_ANNOTATION]);
    if !refresh.is_empty() && (!cache.spec.suspend || !purge.is_empty()) && !deleting {
        let superseded = !purge.is_empty();
        requests.last_refresh = Some(begin(token(&refresh, now), RefreshTrigger::Annotation, now));
        if superseded {
            supersede(requests.last_refresh.as_mut(), now);
        } else if let Some(purge) = requests.last_purge.as_mut().filter(|p| p.in_force) {
            end_purge(purge, now);
        }
        requests.annotations.extend(refresh);
        requests.accepted = true;
    }
    if !purge.is_empty() && !deleting {
        supersede(requests.last_refresh.as_mut(), now);
        requests.last_purge = Some(PurgeStatus {
            token: token(&purge, now),
            requested_at: Some(Time(now)),
            in_force: true,
            images_hash: images_hash.to_owned(),
            ..PurgeStatus::default()
        });
        requests.annotations.extend(purge);
        requests.accepted = true;
    }
    if !deleting {
        by_time(cache, &mut requests, now);
    }
    requests
}

/// When the spec asks for refreshes by itself; none where it does not.
pub fn schedule(spec: &ImageCacheSpec) -> Option<Result<Schedule, ScheduleError>> {
    let refresh = spec.refresh.as_ref()?;
    match (&refresh.schedule, refresh.interval) {
        (Some(expression), _) => Some(Schedule::cron(expression, refresh.time_zone.as_deref())),
        (None, Some(interval)) => Some(Schedule::every(signed(interval).unsigned_abs())),
        (None, None) => None,
    }
}

fn by_time(cache: &ImageCache, requests: &mut Requests, now: Timestamp) {
    // One that cannot be read asks for nothing; the condition Accepted says so.
    let Some(Ok(schedule)) = schedule(&cache.spec) else {
        return;
    };
    let purged = requests.last_purge.as_ref().is_some_and(|p| p.in_force);
    if cache.spec.suspend || purged || requests.accepted {
        return;
    }
    let last = requests.last_refresh.as_ref();
    let begun = last.and_then(|r| r.requested_at.as_ref()).map(|at| at.0);
    let created = || cache.metadata.creation_timestamp.as_ref().map(|at| at.0);
    let Some(base) = begun.or_else(created) else {
        return;
    };
    let runs = Runs {
        uid: cache.metadata.uid.as_deref().unwrap_or_default(),
        last: base,
        running: last.is_some_and(|r| r.finished_at.is_none()),
    };
    match schedule.next(runs, now) {
        Next::At(due) => requests.wake_at = Some(due),
        Next::Now => {
            let by_schedule = cache.spec.refresh.as_ref().is_some_and(|r| r.schedule.is_some());
            let trigger = if by_schedule {
                RefreshTrigger::Schedule
            } else {
                RefreshTrigger::Interval
            };
            requests.last_refresh = Some(begin(now.to_string(), trigger, now));
        }
        // The end of the one that runs is a change of the object.
        Next::AfterRunning | Next::Never => {}
    }
}

fn asked(cache: &ImageCache, keys: &[&str]) -> BTreeMap<String, String> {
    let all = cache.metadata.annotations.as_ref();
    keys.iter()
        .filter_map(|k| Some(((*k).to_owned(), all?.get(*k)?.clone())))
        .collect()
}

/// The first of the values that says something, else the moment.
fn token(asked: &BTreeMap<String, String>, now: Timestamp) -> String {
    // Larder's own annotation sorts after kube-fledged's, and wins.
    let written = asked.values().rev().find(|v| !v.is_empty());
    written.map_or_else(|| now.to_string(), |v| v.chars().take(256).collect())
}

fn begin(token: String, trigger: RefreshTrigger, now: Timestamp) -> RefreshStatus {
    RefreshStatus {
        token,
        trigger,
        requested_at: Some(MicroTime(now)),
        ..RefreshStatus::default()
    }
}

/// A moment to come, from an operator whose clock was ahead, is not waited for: no answer could be as late.
fn not_ahead(refresh: &mut RefreshStatus, now: Timestamp) {
    if let Some(at) = refresh.requested_at.as_mut().filter(|at| at.0 > now) {
        at.0 = now;
    }
}

fn supersede(refresh: Option<&mut RefreshStatus>, now: Timestamp) {
    if let Some(refresh) = refresh.filter(|r| r.finished_at.is_none()) {
        refresh.finished_at = Some(MicroTime(now));
        refresh.finished_token = Some(refresh.token.clone());
        refresh.result = Some(RefreshResult::Superseded);
    }
}

/// Ends a purge's force; one that was still at work counts as finished, so that nobody waits for ever.
fn end_purge(purge: &mut PurgeStatus, now: Timestamp) {
    purge.in_force = false;
    if purge.finished_at.is_none() {
        purge.finished_at = Some(Time(now));
        purge.finished_token = Some(purge.token.clone());
    }
}

#[cfg(test)]
mod tests;
