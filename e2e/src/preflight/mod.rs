//! What a machine must have before a cluster is started on it, checked at once and told in full.
//!
//! Probes look at what works, not at how the kernel was configured: they try each thing in a network
//! namespace that ends with the probe. Nothing stays behind.

mod cgroups;
mod privilege;
mod probes;

use std::fmt;
use std::path::{Path, PathBuf};

/// Free disk for a first build of the binaries with Go's caches, and for the cluster after it.
const FIRST_BUILD_GIB: u64 = 12;
/// Free disk for a cluster whose binaries are there.
const CLUSTER_GIB: u64 = 4;

/// What depends on the cluster that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Whether binaries will be built: more free disk is wanted then.
    pub build: bool,
    /// Folder that the binaries go to.
    pub cache_folder: PathBuf,
    /// Folder that the cluster's state goes to.
    pub state_folder: PathBuf,
}

/// Everything that the machine lacks, one message each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Unfit(pub Vec<String>);

impl fmt::Display for Unfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a cluster cannot run on this machine yet:")?;
        self.0
            .iter()
            .try_for_each(|message| write!(formatter, "\n  - {message}"))
    }
}

/// Checks everything, and fails with all that is missing. Blocks for a fraction of a second.
pub fn check(needs: &Needs) -> Result<(), Unfit> {
    let mut messages = Vec::new();
    // Without these rights no probe below could tell anything.
    match privilege::missing() {
        Some(message) => messages.push(message),
        None => messages.extend(probes::failures()),
    }
    match read("/proc/mounts") {
        Ok(mounts) => messages.extend(cgroups::failure(&mounts, |path| {
            std::fs::read_to_string(path).ok()
        })),
        Err(message) => messages.push(message),
    }
    messages.extend(disk_failures(needs, free_bytes));
    messages.extend(inotify_failure());
    if messages.is_empty() {
        Ok(())
    } else {
        Err(Unfit(messages))
    }
}

/// inotify instances that kubelets, containerd and the control plane hold together; the usual 128 end
/// at the second node.
const INOTIFY_INSTANCES: u64 = 8192;
const INOTIFY_FILE: &str = "/proc/sys/fs/inotify/max_user_instances";

/// Raises the limit of inotify instances for the machine if it is too low for a cluster.
pub fn raise_inotify_limit() -> std::io::Result<()> {
    let limit = std::fs::read_to_string(INOTIFY_FILE)?;
    if limit.trim().parse().unwrap_or(0) < INOTIFY_INSTANCES {
        std::fs::write(INOTIFY_FILE, INOTIFY_INSTANCES.to_string())?;
    }
    Ok(())
}

fn inotify_failure() -> Option<String> {
    let limit: u64 = read(INOTIFY_FILE).ok()?.trim().parse().ok()?;
    let fixed = std::fs::OpenOptions::new()
        .write(true)
        .open(INOTIFY_FILE)
        .is_err();
    (limit < INOTIFY_INSTANCES && fixed).then(|| {
        format!(
            "fs.inotify.max_user_instances is {limit} and cannot be raised here; set it to {INOTIFY_INSTANCES}"
        )
    })
}

fn disk_failures(needs: &Needs, free: impl Fn(&Path) -> Option<u64>) -> Vec<String> {
    let wanted = if needs.build { FIRST_BUILD_GIB } else { CLUSTER_GIB };
    let mut folders = vec![(&needs.state_folder, CLUSTER_GIB)];
    if needs.build {
        folders.push((&needs.cache_folder, wanted));
    }
    folders
        .into_iter()
        .filter_map(|(folder, gib)| {
            let free = free(existing_part(folder))?;
            (free >> 30 < gib).then(|| {
                format!(
                    "{} has {:.1} GiB free and needs {gib} GiB{}",
                    folder.display(),
                    free as f64 / f64::from(1 << 30),
                    if gib == FIRST_BUILD_GIB {
                        " for the first build"
                    } else {
                        ""
                    }
                )
            })
        })
        .collect()
}

/// The nearest folder above that is already there, whose file system will hold the new one.
fn existing_part(folder: &Path) -> &Path {
    folder
        .ancestors()
        .find(|part| part.exists())
        .unwrap_or(Path::new("/"))
}

/// Bytes that the user may still write to the file system of an existing folder.
fn free_bytes(folder: &Path) -> Option<u64> {
    let facts = nix::sys::statvfs::statvfs(folder).ok()?;
    Some(facts.blocks_available() * facts.fragment_size())
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn needs(build: bool) -> Needs {
        Needs {
            build,
            cache_folder: "/cache".into(),
            state_folder: "/state".into(),
        }
    }

    #[test]
    fn a_first_build_wants_more_disk() {
        let six_gib = |_: &Path| Some(6 << 30);
        assert_eq!(disk_failures(&needs(false), six_gib), Vec::<String>::new());
        let failures = disk_failures(&needs(true), six_gib);
        assert_eq!(
            failures,
            ["/cache has 6.0 GiB free and needs 12 GiB for the first build"]
        );
    }

    #[test]
    fn each_full_disk_is_named() {
        let failures = disk_failures(&needs(true), |_| Some(1 << 30));
        assert_eq!(failures.len(), 2);
        assert!(
            failures[0].starts_with("/state has 1.0 GiB free and needs 4 GiB"),
            "{failures:?}"
        );
    }

    #[test]
    fn a_folder_to_be_made_counts_as_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(existing_part(&folder.path().join("a/b")), folder.path());
        assert!(free_bytes(folder.path()).unwrap() > 0);
    }

    #[test]
    fn all_messages_are_shown_at_once() {
        let text = Unfit(vec!["one".to_owned(), "two".to_owned()]).to_string();
        assert_eq!(
            text,
            "a cluster cannot run on this machine yet:\n  - one\n  - two"
        );
    }
}
