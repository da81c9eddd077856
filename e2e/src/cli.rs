//! The command line of `larder-cluster`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use larder_e2e::cluster::layout::Layout;
use larder_e2e::cluster::machine::launch::Launch;
use larder_e2e::cluster::machine::tail::tail_of;
use larder_e2e::cluster::name::ClusterName;
use larder_e2e::cluster::state::parse_size;
use larder_e2e::cluster::{Cluster, DEFAULT_KUBERNETES, NODE_COMPONENTS, NodeOptions, Options, supervise};
use larder_e2e::progress::Stderr;

/// A real Kubernetes cluster on this machine: control plane, nodes with a kubelet and a containerd each, registries.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// Which cluster; several can run side by side.
    #[arg(long, global = true, default_value = "larder")]
    name: ClusterName,
    #[command(subcommand)]
    command: Do,
}

#[derive(Debug, Subcommand)]
enum Do {
    /// Starts the cluster, or repairs it; returns when all nodes are Ready.
    Up {
        /// How many nodes it has at least.
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// Minor version of Kubernetes.
        #[arg(long, default_value = DEFAULT_KUBERNETES)]
        kubernetes: String,
        /// Size of each new node's image disk; only what is written takes space.
        #[arg(long, default_value = "8GiB", value_parser = parse_size)]
        image_disk: u64,
        /// Let the kubelets pull one image at a time, as is Kubernetes' default.
        #[arg(long)]
        serialize_image_pulls: bool,
    },
    /// Removes the cluster and everything of it from the machine.
    Down,
    /// Says what runs; ends with 1 if something should and does not.
    Status,
    /// Runs kubectl against the cluster.
    Kubectl {
        /// kubectl's own arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Pushes an image into a registry of the cluster.
    Load {
        /// A folder in OCI layout, or an archive of `docker save` or OCI.
        source: PathBuf,
        /// The name under which pods find it; without one, the one that the image carries, or that of the file.
        reference: Option<String>,
    },
    /// Shows the end of the log of a component (such as etcd, registry-open, node-1/kubelet) or of all of a node's.
    Logs {
        /// A component or a node.
        what: String,
        /// How many lines of each.
        #[arg(long, default_value_t = 100)]
        tail: usize,
    },
    /// Changes the nodes.
    Node {
        #[command(subcommand)]
        command: NodeDo,
    },
    /// Forwards ports and watches; started by `up`.
    #[command(hide = true)]
    Supervise,
    /// Becomes a component; started by `up`.
    #[command(hide = true)]
    Launch {
        /// How, as JSON.
        spec: String,
    },
}

#[derive(Debug, Subcommand)]
enum NodeDo {
    /// Adds a node and waits until it is Ready.
    Add {
        /// Its name; without one, the first free node-N.
        node: Option<String>,
        /// A label, as key=value; may be repeated.
        #[arg(long = "label", value_parser = parse_label)]
        labels: Vec<(String, String)>,
        /// A taint, as key=value:Effect; may be repeated.
        #[arg(long = "taint")]
        taints: Vec<String>,
        /// Size of its image disk; without one, the cluster's.
        #[arg(long, value_parser = parse_size)]
        image_disk: Option<u64>,
    },
    /// Removes a node and everything of it.
    Remove {
        /// Its name.
        node: String,
    },
    /// Cuts a node's power: everything on it is killed, its disk stays.
    Stop {
        /// Its name.
        node: String,
    },
    /// Starts a stopped node and waits until it is Ready.
    Start {
        /// Its name.
        node: String,
    },
}

/// Does what the arguments ask for.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.name;
    // These two must stay free of the threads of a runtime.
    match &arguments.command {
        Do::Launch { spec } => {
            let launch: Launch = serde_json::from_str(spec).context("the description of a component")?;
            return Err(launch.exec().into());
        }
        Do::Supervise => {
            supervise::run(&name, &Layout::of_user(&name)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(act(&name, arguments.command))
}

async fn act(name: &ClusterName, command: Do) -> anyhow::Result<ExitCode> {
    match command {
        Do::Up {
            nodes,
            kubernetes,
            image_disk,
            serialize_image_pulls,
        } => {
            let options = Options {
                name: name.clone(),
                nodes,
                kubernetes,
                image_disk,
                serialize_image_pulls,
            };
            let cluster = Cluster::up(&options, &Stderr).await?;
            println!("export KUBECONFIG={}", cluster.kubeconfig().display());
        }
        Do::Down => Cluster::down(name)?,
        Do::Status => {
            let status = Cluster::attach(name)?.status().await?;
            print!("{status}");
            return Ok(if status.is_healthy() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        Do::Kubectl { args } => {
            let cluster = Cluster::attach(name)?;
            let mut kubectl = Command::new(cluster.binaries().join("kubectl"));
            return Err(kubectl
                .args(args)
                .env("KUBECONFIG", cluster.kubeconfig())
                .exec()
                .into());
        }
        Do::Load { source, reference } => {
            let name = Cluster::attach(name)?.load(&source, reference.as_deref()).await?;
            println!("{name}");
        }
        Do::Logs { what, tail } => logs(&Cluster::attach(name)?, &what, tail)?,
        Do::Node { command } => change_nodes(&Cluster::attach(name)?, command).await?,
        Do::Supervise | Do::Launch { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn change_nodes(cluster: &Cluster, command: NodeDo) -> anyhow::Result<()> {
    match command {
        NodeDo::Add {
            node,
            labels,
            taints,
            image_disk,
        } => {
            let labels = BTreeMap::from_iter(labels);
            let options = NodeOptions {
                name: node,
                labels,
                taints,
                image_disk,
                kubelet: serde_json::Value::Null,
            };
            let node = cluster.node_add(options, &Stderr).await?;
            println!("{}", node.name());
        }
        NodeDo::Remove { node } => cluster.node_remove(&node).await?,
        NodeDo::Stop { node } => cluster.node_stop(&node).await?,
        NodeDo::Start { node } => {
            cluster.node_start(&node, &Stderr).await?;
        }
    }
    Ok(())
}

fn logs(cluster: &Cluster, what: &str, tail: usize) -> anyhow::Result<()> {
    let components: Vec<String> = if cluster.node(what).is_ok() {
        NODE_COMPONENTS
            .iter()
            .map(|component| format!("{what}/{component}"))
            .collect()
    } else {
        vec![what.to_owned()]
    };
    let mut out = std::io::stdout().lock();
    let mut found = false;
    for component in &components {
        let log = cluster.layout().log(component);
        if !log.is_file() {
            continue;
        }
        found = true;
        if components.len() > 1 {
            writeln!(out, "==> {component} <==")?;
        }
        writeln!(out, "{}", tail_of(&log, tail))?;
    }
    if !found {
        bail!("the cluster has neither a component nor a node {what:?}; `larder-cluster status` lists them");
    }
    Ok(())
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not key=value"))?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn kubectl_gets_its_own_flags() {
        let arguments = Arguments::parse_from([
            "larder-cluster",
            "--name",
            "x",
            "kubectl",
            "get",
            "pods",
            "-A",
            "--name",
            "y",
        ]);
        assert_eq!(arguments.name.as_str(), "x");
        assert!(
            matches!(arguments.command, Do::Kubectl { args } if args == ["get", "pods", "-A", "--name", "y"])
        );
    }

    #[test]
    fn sizes_and_labels_are_read() {
        let line = [
            "larder-cluster",
            "node",
            "add",
            "n",
            "--label",
            "a=b",
            "--image-disk",
            "1GiB",
            "--name",
            "x",
        ];
        let Do::Node {
            command: NodeDo::Add {
                labels, image_disk, ..
            },
        } = Arguments::parse_from(line).command
        else {
            unreachable!("it is a node add")
        };
        assert_eq!(
            (labels, image_disk),
            (vec![("a".into(), "b".into())], Some(1 << 30))
        );
        assert!(Arguments::try_parse_from(["larder-cluster", "node", "add", "--label", "a"]).is_err());
    }
}
