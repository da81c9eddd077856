//! What runs and what does not, for people.

use std::fmt;

use crate::cluster::Cluster;
use crate::cluster::control::components;
use crate::cluster::control::registry::RegistryKind;
use crate::cluster::control::supervise::{self, Forwards};
use crate::cluster::error::Result;
use crate::cluster::machine::process::Components;
use crate::cluster::machine::tail::tail_of;
use crate::cluster::{node, ready};

/// How much of a dead component's log is shown, in lines.
const TAIL_LINES: usize = 15;

/// The state of a cluster at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// The cluster's name.
    pub name: String,
    /// Its minor version of Kubernetes.
    pub kubernetes: String,
    /// Every component that should run.
    pub components: Vec<ComponentStatus>,
    /// Every node.
    pub nodes: Vec<NodeStatus>,
    /// Ports of 127.0.0.1; none while the supervisor is dead.
    pub forwards: Option<Forwards>,
}

/// A component at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentStatus {
    /// Such as `etcd` or `node-1/kubelet`.
    pub name: String,
    /// Its process; none if it was never started.
    pub pid: Option<i32>,
    /// Why it does not run: when it died, if that was seen, and the end of its log. None if it runs.
    pub dead: Option<String>,
}

/// A node at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// `Ready`, `NotReady`, `Stopped` (on purpose), or `Unknown` while the API server does not answer.
    pub state: &'static str,
}

impl Status {
    /// Whether everything runs that should.
    pub fn is_healthy(&self) -> bool {
        self.components.iter().all(|c| c.dead.is_none())
            && self.nodes.iter().all(|n| ["Ready", "Stopped"].contains(&n.state))
    }
}

impl Cluster {
    /// Looks at every component and node.
    pub async fn status(&self) -> Result<Status> {
        let state = self.state()?;
        let mut expected: Vec<String> = vec![supervise::COMPONENT.into()];
        expected.extend(components::COMPONENTS.map(str::to_owned));
        expected.extend(RegistryKind::ALL.map(RegistryKind::component));
        for node in state.nodes.iter().filter(|node| !node.stopped) {
            expected.extend(node::COMPONENTS.map(|component| format!("{}/{component}", node.name)));
        }
        let components: Vec<ComponentStatus> = expected
            .into_iter()
            .map(|name| self.component_status(name))
            .collect();
        let alive = components[0].dead.is_none();
        let listed = if alive { self.ready_nodes().await } else { None };
        let nodes = state.nodes.iter().map(|node| NodeStatus {
            name: node.name.clone(),
            address: crate::cluster::addresses::node(node.number).to_string(),
            state: match &listed {
                _ if node.stopped => "Stopped",
                None => "Unknown",
                Some(ready) if ready.contains(&node.name) => "Ready",
                Some(_) => "NotReady",
            },
        });
        Ok(Status {
            name: state.name.to_string(),
            kubernetes: state.kubernetes.clone(),
            nodes: nodes.collect(),
            components,
            forwards: Forwards::load(self.layout()).filter(|_| alive),
        })
    }

    /// The names of the Ready nodes; none if the API server does not answer within two seconds.
    async fn ready_nodes(&self) -> Option<Vec<String>> {
        let client = self.client().await.ok()?;
        let api: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(client);
        let all = kube::api::ListParams::default();
        let listed = tokio::time::timeout(std::time::Duration::from_secs(2), api.list(&all))
            .await
            .ok()?
            .ok()?;
        Some(
            listed
                .into_iter()
                .filter(ready::is_ready)
                .filter_map(|node| node.metadata.name)
                .collect(),
        )
    }

    fn component_status(&self, name: String) -> ComponentStatus {
        let record = Components::new(self.layout()).record(&name);
        let dead = match &record {
            Some(record) if record.process.is_alive() => None,
            None => Some("was never started".to_owned()),
            Some(record) => {
                let log = self.layout().log(&name);
                let seen = supervise::deaths(self.layout()).into_iter().rev();
                let seen = seen
                    .into_iter()
                    .find(|death| death.component == name && death.pid == record.process.pid);
                let when = seen.map(|death| format!(" at {}", death.at)).unwrap_or_default();
                Some(format!(
                    "died{when}; the end of {}:\n{}",
                    log.display(),
                    tail_of(&log, TAIL_LINES)
                ))
            }
        };
        ComponentStatus {
            name,
            pid: record.map(|record| record.process.pid),
            dead,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cluster {}, Kubernetes {}", self.name, self.kubernetes)?;
        if let Some(forwards) = &self.forwards {
            writeln!(f, "  API server          https://127.0.0.1:{}", forwards.api)?;
            for kind in RegistryKind::ALL {
                let url = format!("{}://127.0.0.1:{}", kind.scheme(), forwards.registry(kind));
                writeln!(f, "  registry {:<10} {url}, inside {}", kind.word(), kind.host())?;
            }
        }
        for node in &self.nodes {
            writeln!(f, "  {:<19} {}, {}", node.name, node.state, node.address)?;
        }
        let dead: Vec<&ComponentStatus> = self.components.iter().filter(|c| c.dead.is_some()).collect();
        writeln!(
            f,
            "  {} of {} components run",
            self.components.len() - dead.len(),
            self.components.len()
        )?;
        for component in dead {
            writeln!(
                f,
                "{} {}",
                component.name,
                component.dead.as_deref().unwrap_or_default()
            )?;
        }
        Ok(())
    }
}
