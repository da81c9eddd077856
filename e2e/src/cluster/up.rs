//! Brings a cluster to where it should be: makes it, or repairs what is missing of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::task::JoinSet;

use crate::binaries;
use crate::cluster::control::components::Site;
use crate::cluster::control::pki::Subject;
use crate::cluster::control::registry::{self, RegistryKind};
use crate::cluster::control::supervise::{self, Forwards};
use crate::cluster::control::{components, kubeconfig};
use crate::cluster::error::{Error, IoContext, Result};
use crate::cluster::layout::Layout;
use crate::cluster::lock::Lock;
use crate::cluster::machine::cgroup::Cgroups;
use crate::cluster::machine::launch::Launch;
use crate::cluster::machine::netns;
use crate::cluster::machine::process::{Components, helper};
use crate::cluster::node::kubelet;
use crate::cluster::options::{NodeOptions, Options};
use crate::cluster::ready::{self, Awaited};
use crate::cluster::state::{ClusterState, NodeState};
use crate::cluster::{Cluster, node, reaper};
use crate::preflight::{self, Needs};
use crate::progress::Progress;

/// Says what has been reached, and after how long.
pub(super) struct Clock<'a> {
    began: Instant,
    progress: &'a dyn Progress,
}

impl<'a> Clock<'a> {
    /// Starts now.
    pub(super) fn new(progress: &'a dyn Progress) -> Self {
        Self {
            began: Instant::now(),
            progress,
        }
    }

    /// Shows a line.
    pub(super) fn line(&self, text: &str) {
        self.progress
            .line(&format!("[{:5.1} s] {text}", self.began.elapsed().as_secs_f64()));
    }
}

impl Cluster {
    /// Brings a cluster up, or repairs the one that is there, and returns when all of its nodes are Ready.
    ///
    /// Whatever a killed run left behind is fine. Builds the programs first if need be, which takes minutes. Fails with
    /// the end of its log when a component dies meanwhile.
    pub async fn up(options: &Options, progress: &dyn Progress) -> Result<Self> {
        let clock = Clock::new(progress);
        let layout = Layout::of_user(&options.name)?;
        let known = ClusterState::load(&layout)?;
        same_version(options, known.as_ref())?;
        check_machine(&layout, &options.kubernetes)?;
        // Before the lock: a first build takes minutes, and nobody need wait for it to take the cluster down.
        let binaries =
            binaries::ensure(&options.kubernetes, progress).map_err(|e| Error::Binaries(e.to_string()))?;
        let _lock = Lock::take(&layout)?;
        let state = wanted(options, binaries.dir.clone(), &layout)?;
        components::prepare(&layout)?;
        let cluster = Self::with_binaries(&options.name, layout, binaries.dir)?;
        cluster.bring_up(&state, &clock).await?;
        Ok(cluster)
    }

    async fn bring_up(&self, state: &ClusterState, clock: &Clock<'_>) -> Result<()> {
        let site = &self.site;
        // The one setting of the machine that a cluster changes.
        preflight::raise_inotify_limit().context("raise", Path::new("fs.inotify.max_user_instances"))?;
        Components::new(&site.layout).forget_dead()?;
        kill_strays(site, state);
        let namespace = netns::path(&site.name.control_netns()).exists();
        site.cgroups.create(&site.name.control_cgroup())?;
        netns::ensure_control(&site.name)?;
        if !namespace {
            // Whatever still runs does so in a namespace that has lost its name.
            Components::new(&site.layout).stop(supervise::COMPONENT)?;
        }
        if start_control_plane(site, state)? {
            clock.line("etcd, API server and registries started");
        }
        let mut boots = JoinSet::new();
        for node in state.nodes.iter().filter(|node| !node.stopped) {
            boot(&mut boots, site, node);
        }
        let client = self.wait_for_api(clock).await?;
        if start_controllers(site)? {
            clock.line("controller manager and scheduler started");
        }
        let mut joined = Vec::new();
        while let Some(booted) = boots.join_next().await {
            let node = booted.map_err(|e| Error::Worker(e.to_string()))??;
            let since = node::join(site, state, &node).await?;
            if since.is_some() {
                clock.line(&format!("{}: containerd answers, kubelet started", node.name));
            }
            joined.push((node, since));
        }
        self.finish(&client, &joined, clock).await
    }

    /// Waits for nodes whose kubelets have been started, and gives them the labels that they may not give themselves.
    pub(super) async fn finish(
        &self,
        client: &Client,
        joined: &[(NodeState, Option<Timestamp>)],
        clock: &Clock<'_>,
    ) -> Result<()> {
        let awaited: Vec<Awaited> = joined
            .iter()
            .map(|(node, since)| Awaited {
                name: node.name.clone(),
                since: *since,
            })
            .collect();
        ready::nodes(&self.site.layout, client, &awaited).await?;
        ready::service_account(&self.site.layout, client).await?;
        let api: Api<k8s_openapi::api::core::v1::Node> = Api::all(client.clone());
        for (node, _) in joined {
            let labels = kubelet::labels_for_others(node);
            if !labels.is_empty() {
                let patch = json!({"metadata": {"labels": labels}});
                api.patch(&node.name, &PatchParams::default(), &Patch::Merge(patch))
                    .await?;
            }
        }
        let names: Vec<&str> = awaited.iter().map(|node| node.name.as_str()).collect();
        let noun = if names.len() == 1 { "node" } else { "nodes" };
        clock.line(&format!("{} {noun} ready: {}", names.len(), names.join(", ")));
        Ok(())
    }

    /// Waits for the forwarder and the API server, and writes the user's kubeconfig.
    async fn wait_for_api(&self, clock: &Clock<'_>) -> Result<Client> {
        let layout = &self.site.layout;
        let forwards = wait_for_forwards(layout).await?;
        let subject = Subject {
            common_name: "larder-cluster-admin",
            organizations: &["system:masters"],
            ..Subject::default()
        };
        let identity = self.site.ca.issue("admin", &subject)?;
        let server = format!("https://127.0.0.1:{}", forwards.api);
        kubeconfig::write(
            &layout.kubeconfig(),
            self.site.name.as_str(),
            &server,
            self.site.ca.cert(),
            &identity,
        )?;
        let client = ready::client(layout).await?;
        ready::api_server(layout, &client).await?;
        clock.line(&format!("API server ready at {server}"));
        Ok(client)
    }
}

/// Checks that the machine will do; this takes a fraction of a second.
fn check_machine(layout: &Layout, kubernetes: &str) -> Result<()> {
    let failed = |error: binaries::Error| Error::Binaries(error.to_string());
    let needs = Needs {
        build: !binaries::present(kubernetes).map_err(failed)?,
        cache_folder: binaries::cache_folder().map_err(failed)?,
        state_folder: layout.root().to_owned(),
    };
    preflight::check(&needs).map_err(|unfit| Error::Refused(unfit.to_string()))
}

/// Refuses to turn a cluster into one of another version.
fn same_version(options: &Options, known: Option<&ClusterState>) -> Result<()> {
    match known {
        Some(state) if state.kubernetes != options.kubernetes => Err(Error::Refused(format!(
            "cluster {} runs Kubernetes {}, not {}: take it down first",
            state.name, state.kubernetes, options.kubernetes
        ))),
        _ => Ok(()),
    }
}

/// The state that the options and what is there ask for, written before anything of it is made.
fn wanted(options: &Options, binaries: PathBuf, layout: &Layout) -> Result<ClusterState> {
    let known = ClusterState::load(layout)?;
    same_version(options, known.as_ref())?;
    let mut state = if let Some(state) = known {
        state
    } else {
        reaper::reap(&options.name, layout, &Cgroups::detect()?)?;
        ClusterState::new(options)
    };
    state.binaries = binaries;
    while state.nodes.len() < usize::from(options.nodes) {
        let node = NodeOptions {
            image_disk: Some(options.image_disk),
            ..NodeOptions::default()
        }
        .check(&state)?;
        state.nodes.push(node);
    }
    state.save(layout)?;
    Ok(state)
}

/// Starts a node's first half on a thread of its own.
fn boot(tasks: &mut JoinSet<Result<NodeState>>, site: &Arc<Site>, node: &NodeState) {
    let (site, node) = (Arc::clone(site), node.clone());
    tasks.spawn_blocking(move || node::boot(&site, &node).map(|()| node));
}

/// Starts what needs nothing else; says whether anything had to be.
fn start_control_plane(site: &Site, state: &ClusterState) -> Result<bool> {
    let components = Components::new(&site.layout);
    let mut started = components.ensure(supervise::COMPONENT, || {
        let args = ["--name", site.name.as_str(), "supervise"];
        let mut launch = Launch::new(helper()?, args);
        launch.cgroup = site.cgroups.join_files(&site.name.control_cgroup());
        Ok(launch)
    })?;
    for component in ["etcd", "kube-apiserver"] {
        started |= components.ensure(component, || components::launch(site, component))?;
    }
    for kind in RegistryKind::ALL {
        started |= components.ensure(&kind.component(), || registry::launch(site, state, kind))?;
    }
    Ok(started)
}

/// Ends components that a killed run started and did not come to record.
fn kill_strays(site: &Site, state: &ClusterState) {
    let components = Components::new(&site.layout);
    components.kill_strays(&site.cgroups.processes(&site.name.control_cgroup()), &[]);
    for node in &state.nodes {
        // Shims and what they hold belong to no record and stay.
        let own = ["containerd", "kubelet", "kube-proxy"];
        components.kill_strays(&site.cgroups.processes(&site.name.node_cgroup(&node.name)), &own);
    }
}

/// Starts the controllers, which give up if the API server takes long to answer; says whether it had to.
fn start_controllers(site: &Site) -> Result<bool> {
    let components = Components::new(&site.layout);
    let mut started = false;
    for component in ["kube-controller-manager", "kube-scheduler"] {
        started |= components.ensure(component, || components::launch(site, component))?;
    }
    Ok(started)
}

async fn wait_for_forwards(layout: &Layout) -> Result<Forwards> {
    let components = Components::new(layout);
    let patience = Duration::from_secs(30);
    let began = Instant::now();
    loop {
        let supervisor = components
            .record(supervise::COMPONENT)
            .map(|record| record.process.pid);
        match Forwards::load(layout) {
            Some(forwards) if i32::try_from(forwards.pid).ok() == supervisor => return Ok(forwards),
            _ => components.check(&[])?,
        }
        if began.elapsed() > patience {
            return Err(Error::Timeout {
                what: "the forwarding of ports".into(),
                after: patience,
                detail: None,
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
