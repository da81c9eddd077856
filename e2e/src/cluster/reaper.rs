//! Removes everything that a cluster of a name left on the machine, in whatever state it is.
//!
//! It trusts no record: what belongs to the cluster is found by its cgroups and network namespaces. Run twice, or
//! after a kill at any line, it ends the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};

use crate::cluster::error::{Error, IoContext, Result};
use crate::cluster::layout::Layout;
use crate::cluster::machine::cgroup::Cgroups;
use crate::cluster::machine::loops::{attached, release};
use crate::cluster::machine::netns;
use crate::cluster::machine::process::{Components, Process};
use crate::cluster::name::ClusterName;
use crate::cluster::node::kill_all;

/// How long it may take until nothing is left, on a machine that is busy with builds.
const PATIENCE: Duration = Duration::from_mins(1);

/// Removes processes, namespaces, cgroups, mounts, loop devices and the cluster's folder.
pub fn reap(name: &ClusterName, layout: &Layout, cgroups: &Cgroups) -> Result<()> {
    let began = Instant::now();
    loop {
        let swept = sweep(name, layout, cgroups);
        // A component that a killed run had just started may have come to life behind the broom.
        let left = leftovers(name, layout, cgroups);
        if left.is_empty() {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            swept?;
            let what = format!("the end of cluster {name}");
            return Err(Error::Timeout {
                what,
                after: PATIENCE,
                detail: Some(left.join(", ")),
            });
        }
    }
}

/// Goes once through all that a cluster can have. Order matters: what a process holds goes after it.
fn sweep(name: &ClusterName, layout: &Layout, cgroups: &Cgroups) -> Result<()> {
    let recorded = Components::new(layout).records();
    kill_all(&format!("the processes of cluster {name}"), || {
        let alive = recorded
            .iter()
            .filter(|record| record.process.is_alive())
            .map(|record| record.process.pid);
        processes(name, cgroups).into_iter().chain(alive).collect()
    })?;
    for namespace in netns::of_cluster(name) {
        netns::delete(&namespace)?;
    }
    cgroups.remove(&name.cgroup(), Duration::from_secs(5))?;
    for target in mounts_below(layout.root()) {
        let target = Path::new(&target);
        umount2(target, MntFlags::MNT_DETACH).context("unmount", target)?;
    }
    release(layout.root())?;
    match fs::remove_dir_all(layout.root()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("remove", layout.root())
        }
        _ => Ok(()),
    }
}

/// What a cluster has on the machine now, one line each; empty after [`reap`].
pub fn leftovers(name: &ClusterName, layout: &Layout, cgroups: &Cgroups) -> Vec<String> {
    let mut left: Vec<String> = processes(name, cgroups)
        .into_iter()
        .map(|pid| format!("process {pid}"))
        .collect();
    left.extend(
        netns::of_cluster(name)
            .into_iter()
            .map(|n| format!("network namespace {n}")),
    );
    if cgroups.exists(&name.cgroup()) {
        left.push(format!("cgroup {}", name.cgroup()));
    }
    left.extend(
        mounts_below(layout.root())
            .into_iter()
            .map(|target| format!("mount {target}")),
    );
    left.extend(
        attached(layout.root())
            .into_iter()
            .map(|device| format!("loop device {device}")),
    );
    if layout.root().exists() {
        left.push(format!("folder {}", layout.root().display()));
    }
    left
}

/// Every live process in the cluster's cgroups or network namespaces, whoever started it.
fn processes(name: &ClusterName, cgroups: &Cgroups) -> BTreeSet<i32> {
    let namespaces: BTreeSet<u64> = netns::of_cluster(name)
        .iter()
        .filter_map(|n| netns::inode(n))
        .collect();
    let mut found = cgroups.processes(&name.cgroup());
    if !namespaces.is_empty() {
        let Ok(entries) = fs::read_dir("/proc") else {
            return found;
        };
        let pids = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        found.extend(
            pids.filter(|pid| netns::inode_of_process(*pid).is_some_and(|inode| namespaces.contains(&inode))),
        );
    }
    // A zombie is its parent's to bury; it holds nothing.
    found.retain(|pid| Process::find(*pid).is_some());
    // A thread of this very program may be inside for a moment.
    found.remove(&i32::try_from(std::process::id()).unwrap_or(0));
    found
}

/// The mount points below a folder in the machine's mount table, the latest first.
fn mounts_below(folder: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    below(&table, folder)
}

fn below(table: &str, folder: &Path) -> Vec<String> {
    let targets = table.lines().rev().filter_map(|line| line.split(' ').nth(1));
    targets
        .filter(|target| Path::new(target).starts_with(folder))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_mounts_are_unmounted_first_and_other_clusters_left_alone() {
        let table = "a /s/larder ext4 rw 0 0\nb /s/larder/x ext4 rw 0 0\nc /s/larder-test/x ext4 rw 0 0\n";
        assert_eq!(below(table, Path::new("/s/larder")), ["/s/larder/x", "/s/larder"]);
    }
}
