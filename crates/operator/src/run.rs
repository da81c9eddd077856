//! Wires the parts together and runs them until the process is told to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use larder_registry::HttpRegistry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::api_server::Lookout;
use crate::attempts::Collector;
use crate::config::Args;
use crate::context::Context;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::resolver::Resolver;
use crate::route::Queues;
use crate::sources::Sources;
use crate::sources::fetch::Network;
use crate::world::World;
use crate::{client, health, imagecache, node, pullers, revision, watch as watching};

/// `ImageCaches` worked on at a time.
const CACHES: usize = 8;
/// Nodes worked on at a time.
const NODES: usize = 16;
/// Revisions worked on at a time.
const REVISIONS: usize = 4;
/// How often the resolver forgets what nobody names.
const TIDY: Duration = Duration::from_mins(1);

/// Runs the operator. Returns when it has been told to stop and what was under way has ended.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new().context("metrics")?);
    metrics.started.set(jiff::Timestamp::now().as_second() as f64);
    let (options, registries) = (args.network.options(), args.network.registries()?);
    let registry =
        Arc::new(HttpRegistry::new(registries.clone(), &options).context("cannot make a registry client")?);
    metrics
        .count_budgets_of(Arc::clone(&registry))
        .context("metrics")?;
    let config = client::config().await?;
    let api_host = config.cluster_url.host().map(str::to_owned);
    let client = client::client(config, &metrics)?;
    let mut lookout = Lookout::new(
        client.clone(),
        std::env::var("KUBERNETES_SERVICE_HOST").ok(),
        api_host.as_deref(),
        options.http.policy.clone(),
    );
    // Before anything is resolved for anybody.
    if let Err(error) = lookout.look().await {
        tracing::warn!(%error, "only the API server's service is kept from tenants");
    }
    tokio::spawn(lookout.keep_looking());
    let world = Arc::new(World::default());
    let queues = Queues::default();
    let network = Network::new(options.http, registries, Arc::<HttpRegistry>::clone(&registry))
        .context("cannot make a client for sources")?;
    let (events, send_events) = Events::new(client.clone(), Arc::clone(&metrics));
    let ctx = Arc::new(Context {
        client: client.clone(),
        world: Arc::clone(&world),
        queues: queues.clone(),
        resolver: Resolver::new(registry, Arc::clone(&metrics), queues.caches.clone()),
        sources: Sources::new(client.clone(), Arc::new(network), queues.caches.clone()),
        pods: (&args).into(),
        pulls_per_node: args.pulls_per_node,
        pod_pace: Pace::per_second(args.job_pods_per_second),
        metrics: Arc::clone(&metrics),
        events,
        memory: Mutex::new(BTreeMap::new()),
    });

    let stop = watch::Sender::new(false);
    let ready = watch::Sender::new(false);
    let health = tokio::spawn(health::serve_health(
        args.health_addr,
        ready.subscribe(),
        stop.subscribe(),
    ));
    let serve = tokio::spawn(health::serve_metrics(
        args.metrics_addr,
        Arc::clone(&metrics),
        Arc::clone(&world),
        Collector::new().context("cannot make a client for agents")?,
        stop.subscribe(),
    ));
    tokio::spawn(send_events);
    let listed = ready.subscribe();
    tokio::spawn(watching::watch(client, world, queues, metrics, ready));
    let work = tokio::spawn(work(Arc::clone(&ctx), listed, stop.subscribe()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");

    let told = told_to_stop();
    tokio::pin!(told);
    let ended = tokio::select! {
        told = &mut told => told.context("signals"),
        // These two end by themselves only if their address cannot be had.
        end = health => end.context("health")?.with_context(|| format!("cannot serve {}", args.health_addr)),
        end = serve => end.context("metrics")?.with_context(|| format!("cannot serve {}", args.metrics_addr)),
    };
    tracing::info!("stopping");
    stop.send_replace(true);
    work.await.context("work")?;
    ended
}

/// Works on the queues once everything has been listed.
async fn work(ctx: Arc<Context>, mut ready: watch::Receiver<bool>, stop: watch::Receiver<bool>) {
    let mut stopped = stop.clone();
    tokio::select! {
        _ = ready.wait_for(|ready| *ready) => {}
        _ = stopped.wait_for(|stop| *stop) => return,
    }
    tidy(&ctx);
    let (c, p, n) = (Arc::clone(&ctx), Arc::clone(&ctx), Arc::clone(&ctx));
    let metrics = || Arc::clone(&ctx.metrics);
    let queues = &ctx.queues;
    let caches = queues
        .caches
        .clone()
        .run(CACHES, metrics(), stop.clone(), move |key| {
            imagecache::reconcile(Arc::clone(&c), key)
        });
    let plan = queues.plan.clone().run(1, metrics(), stop.clone(), move |()| {
        node::reconcile(Arc::clone(&p))
    });
    let nodes = queues
        .nodes
        .clone()
        .run(NODES, metrics(), stop.clone(), move |node| {
            pullers::reconcile(Arc::clone(&n), node)
        });
    let r = Arc::clone(&ctx);
    let revisions = queues
        .revisions
        .clone()
        .run(REVISIONS, metrics(), stop.clone(), move |key| {
            revision::reconcile(Arc::clone(&r), key)
        });
    let tidying = async {
        let mut stop = stop.clone();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(TIDY) => tidy(&ctx),
            }
        }
    };
    futures::join!(caches, plan, nodes, revisions, tidying);
}

/// Tells the resolver what revisions know, and what it may forget.
fn tidy(ctx: &Context) {
    let mut references = BTreeSet::new();
    let caches = ctx.world.caches.all();
    ctx.metrics
        .caches
        .set(i64::try_from(caches.len()).unwrap_or(i64::MAX));
    for cache in caches {
        let wanted = ctx.wanted(&cache).images;
        references.extend(wanted.iter().map(|image| image.reference.normalized().to_owned()));
    }
    let mut digests = BTreeSet::new();
    for revision in ctx.world.revisions.all() {
        for image in &revision.spec.spec.images {
            if let Some(digest) = &image.digest {
                ctx.resolver.seed(digest, &image.platforms);
                digests.insert(digest.clone());
            }
        }
    }
    ctx.resolver.retain(&references, &digests);
}

async fn told_to_stop() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
