//! Flags and environment of the operator, read once.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};
use larder_api::names::AGENTS_NAMESPACE;

use crate::network::NetworkArgs;

/// Keeps container images present on the nodes of a cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "larder-operator", version, about)]
pub struct Args {
    /// Address that serves /metrics.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub metrics_addr: SocketAddr,
    /// Address that serves /healthz and /readyz.
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub health_addr: SocketAddr,
    /// Registries and sources.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Pull and purge pods created per second, over the whole cluster.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub job_pods_per_second: u32,
    /// Images that an agent pulls at a time, over all caches.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(i32).range(1..=100))]
    pub pulls_per_node: i32,
    /// Namespace of the purge Jobs.
    #[arg(long, default_value = AGENTS_NAMESPACE)]
    pub agents_namespace: String,
    /// Form of the log lines.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// Log filter, as `info` or `larder_operator=debug,info`.
    #[arg(long, default_value = "info")]
    pub log_level: String,
    /// Image of the agent, which purge Jobs run.
    #[arg(long, env = "LARDER_AGENT_IMAGE")]
    pub agent_image: String,
    /// Image of the no-op program, which pull pods run in the place of each image's own. Nodes with an agent that
    /// needed no pull secret have it in the agent's image.
    #[arg(long, env = "LARDER_NOOP_IMAGE")]
    pub noop_image: String,
    /// Pull policy of the two.
    #[arg(long, env = "LARDER_IMAGE_PULL_POLICY", value_enum, default_value_t = PullPolicy::IfNotPresent)]
    pub image_pull_policy: PullPolicy,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// A kubelet's pull policy, spelt as in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// At each start.
    Always,
    /// Where it is not there.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// As a pod spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// What the pods that Larder makes are made of, beside what an `ImageCache` asks for.
#[derive(Clone, Debug)]
pub struct PodSettings {
    /// Image of the agent.
    pub agent_image: String,
    /// Image of the no-op program.
    pub noop_image: String,
    /// Pull policy of the two.
    pub image_pull_policy: PullPolicy,
    /// Namespace of the purge Jobs.
    pub agents_namespace: String,
}

/// The image from which a pull pod takes the no-op program, at `/larder-noop`.
#[derive(Clone, Copy, Debug)]
pub struct ProgramImage<'a> {
    /// Its reference.
    pub reference: &'a str,
    /// Its pull policy.
    pub pull_policy: PullPolicy,
}

impl PodSettings {
    /// For a node on which an agent runs from `agent_image`, or not: where one does, that image is there already and
    /// brings the program, too, so that nothing of ours is pulled before the images that are wanted.
    pub fn program(&self, agent: bool) -> ProgramImage<'_> {
        ProgramImage {
            reference: if agent {
                &self.agent_image
            } else {
                &self.noop_image
            },
            pull_policy: self.image_pull_policy,
        }
    }
}

impl From<&Args> for PodSettings {
    fn from(args: &Args) -> Self {
        Self {
            agent_image: args.agent_image.clone(),
            noop_image: args.noop_image.clone(),
            image_pull_policy: args.image_pull_policy,
            agents_namespace: args.agents_namespace.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn flags_are_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn ranges_are_repeated_flags() {
        let parse = |ranges: &[&str]| {
            let base = ["larder-operator", "--agent-image", "a", "--noop-image", "n"];
            let flags = ranges.iter().flat_map(|range| ["--deny-cidr", range]);
            let args = Args::try_parse_from(base.into_iter().chain(flags));
            args.map(|a| a.network.deny_cidrs.len()).ok()
        };
        assert_eq!(parse(&[]), Some(0));
        assert_eq!(parse(&["10.0.0.0/8", "fd00::/8"]), Some(2));
        assert_eq!(parse(&["10.0.0.1"]), None);
    }

    #[test]
    fn policies_are_spelt_as_in_a_pod() {
        let base = [
            "larder-operator",
            "--agent-image",
            "a",
            "--noop-image",
            "n",
            "--image-pull-policy",
        ];
        for policy in [PullPolicy::Always, PullPolicy::IfNotPresent, PullPolicy::Never] {
            let args =
                Args::try_parse_from(base.into_iter().chain([policy.as_str()])).map_err(|e| e.to_string());
            assert_eq!(args.map(|a| a.image_pull_policy), Ok(policy));
        }
        assert!(Args::try_parse_from(base.into_iter().chain(["Sometimes"])).is_err());
    }
}
