//! `larder-agent run`: keeps the node as its `NodeImageCache` says.
//!
//! One loop looks at the runtime, lets `larder_core::agent` decide, acts, and reports. Beside it run the watch of the
//! node's object, the runtime's events, the pulls and removals at work, and the small HTTP side.

mod act;
mod attempts;
mod client;
mod connection;
mod keeper;
mod metrics;
mod object;
mod plugins;
mod progress;
mod pull;
mod pulls;
mod removals;
mod report;
mod revisions;
mod serve;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use crate::ProviderFiles;
use crate::credentials::ProviderFlags;
use crate::duration;
use crate::pull::socket_path;
use attempts::Attempts;
use keeper::Keeper;
use metrics::Metrics;
use object::Object;
use serve::Serving;
use watch::Health;

/// Keeps this node as its `NodeImageCache` says, until told to stop by SIGTERM.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name of this node.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: String,
    /// UID of the pod that this runs in: by it the operator knows that the agent is alive.
    #[arg(long, env = "POD_UID", value_name = "UID", default_value = "")]
    pod_uid: String,
    /// The runtime's socket, if it is none of the known ones; `unix://` may stand before it.
    #[arg(long, visible_alias = "cri-socket", value_name = "PATH")]
    socket: Option<String>,
    /// Where the node's /run is mounted; the runtime's socket is looked for at the known paths below. Repeat it for
    /// microk8s' /var/snap/microk8s/common/run.
    #[arg(long, value_name = "DIR", default_value = "/host/run")]
    host_run: Vec<PathBuf>,
    /// Address that serves /healthz, /readyz, /metrics and /attempts.
    #[arg(long, default_value = "0.0.0.0:8081")]
    listen: SocketAddr,
    /// How often the runtime is looked at when nothing is known to have happened.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    look_every: Duration,
    /// With these the agent pulls private images for caches with `privateImages: Agent`.
    #[command(flatten)]
    providers: ProviderFlags,
}

/// What an agent has to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the node, and of its object.
    pub node_name: String,
    /// UID of the agent's own pod; empty outside of a cluster.
    pub pod_uid: String,
    /// The runtime's socket; none to look below `host_run`.
    pub socket: Option<PathBuf>,
    /// Where the node's /run is.
    pub host_run: Vec<PathBuf>,
    /// How often the runtime is looked at when nothing is known to have happened.
    pub look_every: Duration,
    /// The kubelet's credential provider plugins; none: what needs credentials is not pulled.
    pub providers: Option<ProviderFiles>,
}

/// Runs the command until it is told to stop.
pub async fn run(arguments: Arguments) -> ExitCode {
    match work(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "the agent ends");
            ExitCode::FAILURE
        }
    }
}

async fn work(arguments: Arguments) -> Result<()> {
    // As the first process of a container it would not end by SIGTERM of itself.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    // Before anything speaks TLS: there is one cryptography in this program.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("cannot choose the cryptography of TLS")?;
    let settings = Settings {
        socket: arguments.socket.as_deref().map(socket_path).transpose()?,
        node_name: arguments.node_name,
        pod_uid: arguments.pod_uid,
        host_run: arguments.host_run,
        look_every: arguments.look_every.max(Duration::from_secs(1)),
        providers: arguments.providers.files(),
    };
    let client = client::client(client::config().await?)?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot serve {}", arguments.listen))?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node = settings.node_name,
        "started"
    );
    tokio::select! {
        ended = keep(client, settings, listener) => ended,
        // Dropping the work cancels pulls: the runtime is told, and throws away what is not whole.
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Keeps a node until dropped, and serves over `listener`. Ends only if the listener fails.
pub async fn keep(client: Client, settings: Settings, listener: TcpListener) -> Result<()> {
    let metrics = Arc::new(Metrics::new().context("metrics")?);
    let attempts = Arc::new(Attempts::default());
    let health = Arc::new(Health::default());
    let object = Arc::new(Object::default());
    let serving = serve::serve(
        listener,
        Serving {
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
            attempts: Arc::clone(&attempts),
        },
    );
    let watching = watch::watch(
        client.clone(),
        settings.node_name.clone(),
        Arc::clone(&object),
        Arc::clone(&health),
    );
    let mut keeper = Keeper::new(client, settings, object, health, metrics, attempts);
    tokio::select! {
        served = serving => served.context("cannot serve HTTP"),
        () = watching => Ok(()),
        () = keeper.keep() => Ok(()),
    }
}
