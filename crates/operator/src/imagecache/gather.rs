//! What the references of a cache mean: from what is known, and from registries for the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use larder_api::image_cache::Resolve;
use larder_api::image_cache_status::{RefreshResult, RefreshStatus};
use larder_api::names::{Reason, condition};
use larder_api::{ImageCache, ImageCacheRevision};
use larder_core::images::{WantedImage, WantedImages};
use larder_core::message::{redact, shorten};
use larder_core::report::ResolveFailure;
use larder_core::revise::{by_itself, known};
use larder_core::revision::Resolved;
use larder_registry::{Keyring, Platform};

use crate::api_error::is_not_found;
use crate::context::Context;
use crate::resolver::{Outcome, Request};
use crate::world::World;

/// A cache's report is not held up for longer by slow registries.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Secrets that a registry refuses are read again after this long.
const SECRETS_AGAIN: Duration = Duration::from_secs(30);
/// Characters of one failure's message.
const WORDS: usize = 256;

/// What is known of a cache's references now.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// By normalised reference. One that was never resolved, names no digest itself, and of which nobody knows whether
    /// it needs credentials has no entry.
    pub(super) resolved: BTreeMap<String, Resolved>,
    /// References that could not be resolved this time, also where an older digest stands in.
    pub(super) failures: Vec<ResolveFailure>,
    /// Some registry has not answered yet; the cache is marked when it has.
    pub(super) pending: bool,
    /// When a failed reference is to be asked for again.
    pub(super) retry_at: Option<Timestamp>,
}

/// Resolves what is not known. While a refresh runs everything is asked for anew, unless somebody has since it began; after
/// one that failed, what it could not learn.
pub(super) async fn gather(
    ctx: &Context,
    cache: &ImageCache,
    wanted: &WantedImages,
    newest: Option<&ImageCacheRevision>,
    refresh: Option<&RefreshStatus>,
) -> Gathered {
    let begun = |r: &RefreshStatus| r.requested_at.as_ref().map(|t| t.0);
    let running = refresh.filter(|r| r.finished_at.is_none()).and_then(begun);
    // One that failed only at nodes left nothing unknown: its tags are not asked for again, nor by a new operator.
    let failed = refresh
        .filter(|r| r.result == Some(RefreshResult::Failed) && !is_resolved(cache))
        .and_then(begun)
        // No answer is from a time to come, which only a clock that was ahead tells of.
        .filter(|at| *at <= Timestamp::now());
    let before = newest.map(|n| &n.spec.spec);
    let mut resolved = known(&cache.spec, wanted, before, running.is_some());
    let made_at = newest
        .and_then(|n| n.metadata.creation_timestamp.as_ref())
        .map_or(Timestamp::MIN, |t| t.0);
    let central = cache.spec.resolve == Resolve::Central;
    // What a registry told to others is no answer to this cache: that takes its own secrets to tell.
    let secrets = match failed.filter(|_| central) {
        Some(since) => Some((since, read_secrets(&ctx.client, cache).await)),
        None => None,
    };
    let unlearned = |image: &WantedImage| {
        let failed = secrets.as_ref();
        failed.is_some_and(|(since, own)| !ctx.resolver.answered(&image.reference, &own.keyring, *since))
    };
    let ask: Vec<(&WantedImage, Option<Timestamp>)> = wanted
        .images
        .iter()
        .filter(|_| central)
        .filter_map(|image| match ask(ctx, image, &resolved, made_at, unlearned)? {
            Ask::Anew => Some((image, running)),
            Ask::On => Some((image, failed)),
        })
        .collect();
    let mut gathered = Gathered::default();
    if !ask.is_empty() {
        let secrets = match secrets {
            Some((_, read)) => read,
            None => read_secrets(&ctx.client, cache).await,
        };
        let platforms = platforms(&ctx.world);
        let request = |not_before: Option<Timestamp>| Request {
            cache: (
                cache.metadata.namespace.clone().unwrap_or_default(),
                cache.metadata.name.clone().unwrap_or_default(),
            ),
            images: ask
                .iter()
                .filter(|(_, since)| *since == not_before)
                .map(|(image, _)| image.reference.clone())
                .collect(),
            keyring: &secrets.keyring,
            not_before,
            platforms: &platforms,
        };
        let moments: BTreeSet<Option<Timestamp>> = ask.iter().map(|(_, since)| *since).collect();
        let requests: Vec<Request<'_>> = moments.into_iter().map(request).collect();
        let answers = requests.iter().map(|r| ctx.resolver.resolve_within(r, PATIENCE));
        let outcomes: BTreeMap<String, Outcome> = join_all(answers).await.into_iter().flatten().collect();
        let last = known(&cache.spec, wanted, before, false);
        for (image, _) in ask {
            let reference = image.reference.normalized();
            let outcome = outcomes.get(reference).unwrap_or(&Outcome::Pending);
            match gathered.take(image, outcome, &secrets) {
                Some(found) => resolved.insert(reference.to_owned(), found),
                // What it meant last stands in, else the digest that it names itself.
                None => match last.get(reference) {
                    Some(last) => resolved.insert(reference.to_owned(), last.clone()),
                    // What needs no credentials, or is nowhere, is not for the kubelet alone to try.
                    None if is_public(outcome) => resolved.insert(
                        reference.to_owned(),
                        Resolved {
                            private: false,
                            ..by_itself(&image.reference)
                        },
                    ),
                    None if image.reference.digest().is_some() => {
                        resolved.insert(reference.to_owned(), by_itself(&image.reference))
                    }
                    None => None,
                },
            };
        }
        tell_others(ctx);
    }
    gathered.resolved = resolved;
    gathered
}

/// Whether the status, as it was last written, says that every reference is known. It does not while answers are due.
fn is_resolved(cache: &ImageCache) -> bool {
    let conditions = cache.status.iter().flat_map(|s| &s.conditions);
    conditions
        .filter(|c| c.type_ == condition::RESOLVED)
        .any(|c| c.status == "True")
}

fn is_public(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(failure) if failure.public)
}

/// Why a reference is asked for.
enum Ask {
    /// What it means is not known, or in doubt: recent answers do.
    Anew,
    /// A refresh that failed did not learn it: every answer since then does.
    On,
}

/// Whether the registry, or what others learned from it, has to be asked. `unlearned`: a refresh that failed asked for it,
/// and it has not been answered since.
fn ask(
    ctx: &Context,
    image: &WantedImage,
    resolved: &BTreeMap<String, Resolved>,
    made_at: Timestamp,
    unlearned: impl Fn(&WantedImage) -> bool,
) -> Option<Ask> {
    let reference = image.reference.normalized();
    let Some(digest) = resolved.get(reference).and_then(|r| r.digest.as_deref()) else {
        return Some(Ask::Anew);
    };
    if unlearned(image) {
        return Some(Ask::On);
    }
    let doubted = ctx.resolver.differs(reference, digest, made_at) || ctx.resolver.in_doubt(reference);
    doubted.then_some(Ask::Anew)
}

impl Gathered {
    /// Takes up the outcome for one image; what was found, if it was.
    fn take(&mut self, image: &WantedImage, outcome: &Outcome, secrets: &Secrets) -> Option<Resolved> {
        match outcome {
            Outcome::Known(found) => {
                return Some(Resolved {
                    digest: Some(found.digest.clone()),
                    platforms: found.platforms.clone(),
                    private: found.private,
                });
            }
            Outcome::Pending => self.pending = true,
            Outcome::Failed(failure) => {
                let refused = matches!(failure.reason, Reason::Unauthorized | Reason::CredentialsMissing);
                // Nobody says when a secret is mended; other credentials are tried without delay.
                let look = secrets.look_again_at.filter(|_| refused);
                self.retry_at = [self.retry_at, Some(failure.retry_at), look]
                    .into_iter()
                    .flatten()
                    .min();
                let (reason, message) = if refused && !secrets.problems.is_empty() {
                    (
                        Reason::CredentialsMissing,
                        format!("{}; {}", secrets.problems.join("; "), failure.message),
                    )
                } else {
                    (failure.reason, failure.message.clone())
                };
                let message = shorten(&message, WORDS);
                self.failures.push(ResolveFailure {
                    image: image.written.clone(),
                    reason,
                    message,
                });
            }
        }
        None
    }
}

/// References that came to mean something new concern every cache that names them.
fn tell_others(ctx: &Context) {
    let changed = ctx.resolver.take_changed();
    if changed.is_empty() {
        return;
    }
    for cache in ctx.world.caches.all() {
        if ctx
            .wanted(&cache)
            .images
            .iter()
            .any(|image| changed.contains(image.reference.normalized()))
        {
            ctx.queues.caches.mark((
                cache.metadata.namespace.clone().unwrap_or_default(),
                cache.metadata.name.clone().unwrap_or_default(),
            ));
        }
    }
}

/// The platforms of the cluster's nodes.
fn platforms(world: &World) -> Vec<Platform> {
    let nodes = world.nodes.all();
    let known = nodes
        .iter()
        .filter(|n| !n.os.is_empty() && !n.architecture.is_empty());
    let all: BTreeSet<Platform> = known
        .map(|n| Platform::new(n.os.clone(), n.architecture.clone()))
        .collect();
    all.into_iter().collect()
}

/// A cache's pull secrets.
#[derive(Default)]
pub(crate) struct Secrets {
    pub(crate) keyring: Keyring,
    /// What is wrong with some of them, in words that name them.
    problems: Vec<String>,
    /// When to read them again if a registry refuses them.
    look_again_at: Option<Timestamp>,
}

/// Reads each secret by itself: the operator may not list them. Nothing of them is kept.
pub(crate) async fn read_secrets(client: &Client, cache: &ImageCache) -> Secrets {
    let namespace = cache.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let names: Vec<&str> = cache.spec.pull_secrets.iter().map(|s| s.name.as_str()).collect();
    let read = join_all(names.iter().map(|name| api.get(name))).await;
    let mut secrets = Secrets::default();
    if !names.is_empty() {
        secrets.look_again_at = Timestamp::now().checked_add(SECRETS_AGAIN).ok();
    }
    for (name, result) in names.into_iter().zip(read) {
        match result {
            Ok(secret) => {
                if let Err(words) = add(&mut secrets.keyring, &secret) {
                    secrets
                        .problems
                        .push(format!("secret {name} cannot be used: {words}"));
                }
            }
            Err(error) if is_not_found(&error) => {
                secrets.problems.push(format!("secret {name} does not exist"));
            }
            Err(kube::Error::Api(status)) => {
                secrets.problems.push(format!(
                    "secret {name} cannot be read: {}",
                    redact(&status.message)
                ));
            }
            Err(_) => secrets.problems.push(format!(
                "secret {name} cannot be read: no answer from the API server"
            )),
        }
    }
    secrets
}

fn add(keyring: &mut Keyring, secret: &Secret) -> Result<(), String> {
    let kind = secret.type_.as_deref().unwrap_or_default();
    let data = secret.data.as_ref();
    keyring
        .add_secret(kind, |key| data?.get(key).map(|bytes| bytes.0.as_slice()))
        .map_err(|e| e.to_string())
}
