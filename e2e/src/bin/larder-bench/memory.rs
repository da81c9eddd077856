//! Memory of the operator and of the agents.

use anyhow::Context as _;
use larder_e2e::cluster::Cluster;
use larder_e2e::cluster::cgroup::Cgroups;

/// What the programs are called: as much of it as the kernel keeps (15 characters).
const OPERATOR: &str = "larder-operator";
const AGENT: &str = "larder-agent";

/// Resident memory of the operator in MiB.
pub fn of_operator(cluster: &Cluster) -> anyhow::Result<f64> {
    largest(cluster, OPERATOR)
}

/// Resident memory of the agent that takes most, in MiB.
pub fn of_agents(cluster: &Cluster) -> anyhow::Result<f64> {
    largest(cluster, AGENT)
}

fn largest(cluster: &Cluster, command: &str) -> anyhow::Result<f64> {
    let cgroups = Cgroups::detect()?;
    let mut largest: Option<f64> = None;
    for node in cluster.nodes()? {
        for pid in cgroups.processes(&cluster.name().node_cgroup(node.name())) {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if comm.trim() != command {
                continue;
            }
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            largest = largest.into_iter().chain(resident(&status)).reduce(f64::max);
        }
    }
    largest.with_context(|| format!("no {command} runs on a node of {}", cluster.name()))
}

/// `VmRSS` of /proc/PID/status in MiB; none for a process that has ended.
fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_and_a_zombie_has_none() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2560 kB\nThreads: 1\n"), Some(2.5));
        assert_eq!(resident("Name:\tx\nState:\tZ (zombie)\n"), None);
    }
}
