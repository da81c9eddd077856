//! The cluster's subtree in the machine's cgroup hierarchies.
//!
//! Two layouts are known: hybrid v1 (one mount per controller, perhaps a `unified` one beside them) and v2 (one mount,
//! controllers enabled downwards). The second can be tested here in its pure parts only.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cluster::error::{Error, IoContext, Result};

/// Controllers that the kubelet needs in its subtree of a v2 hierarchy.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// The machine's cgroup hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// Version 1, with one mount point a controller.
    V1(Vec<PathBuf>),
    /// Version 2, mounted once.
    V2(PathBuf),
}

impl Cgroups {
    /// Reads the machine's mount table.
    pub fn detect() -> Result<Self> {
        let path = Path::new("/proc/self/mounts");
        let mounts = fs::read_to_string(path).context("read", path)?;
        Self::from_mounts(&mounts).ok_or_else(|| Error::Refused("no cgroup file system is mounted".into()))
    }

    /// The hierarchies in a mount table in the format of /proc/mounts.
    pub fn from_mounts(mounts: &str) -> Option<Self> {
        let of_type = |wanted: &str| -> BTreeSet<PathBuf> {
            mounts
                .lines()
                .filter_map(|line| {
                    let mut fields = line.split(' ');
                    let (_, target, kind) = (fields.next()?, fields.next()?, fields.next()?);
                    (kind == wanted && target.starts_with("/sys/fs/cgroup")).then(|| PathBuf::from(target))
                })
                .collect()
        };
        let (v1, v2) = (of_type("cgroup"), of_type("cgroup2"));
        if v1.is_empty() {
            v2.into_iter().next().map(Self::V2)
        } else {
            Some(Self::V1(v1.into_iter().chain(v2).collect()))
        }
    }

    /// The mount points.
    pub fn roots(&self) -> Vec<&Path> {
        match self {
            Self::V1(roots) => roots.iter().map(PathBuf::as_path).collect(),
            Self::V2(root) => vec![root],
        }
    }

    /// Makes the cgroup `path` (relative) in every hierarchy, ready for processes and for children with controllers.
    pub fn create(&self, path: &str) -> Result<()> {
        for root in self.roots() {
            let mut at = root.to_path_buf();
            for part in path.split('/') {
                if matches!(self, Self::V2(_)) {
                    enable_controllers(&at)?;
                }
                let parent = at.clone();
                at.push(part);
                match fs::create_dir(&at) {
                    Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                        return Err(error).context("make cgroup", &at);
                    }
                    _ => {}
                }
                copy_cpuset(&parent, &at)?;
            }
        }
        Ok(())
    }

    /// The files into which a process writes its id to join the cgroup `path`.
    pub fn join_files(&self, path: &str) -> Vec<PathBuf> {
        self.roots()
            .into_iter()
            .map(|root| root.join(path).join("cgroup.procs"))
            .collect()
    }

    /// The ids of all processes in the cgroup `path` and below, in any hierarchy.
    pub fn processes(&self, path: &str) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        for root in self.roots() {
            for folder in subtree(&root.join(path)) {
                let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            }
        }
        found
    }

    /// Removes the cgroup `path` and everything below. Its processes must be dead; as the kernel lets go of them a
    /// moment later, this waits for up to `patience`.
    pub fn remove(&self, path: &str, patience: Duration) -> Result<()> {
        let began = Instant::now();
        for root in self.roots() {
            let top = root.join(path);
            loop {
                let mut failed = None;
                for folder in subtree(&top) {
                    match fs::remove_dir(&folder) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            failed = Some((folder, error));
                        }
                        _ => {}
                    }
                }
                match failed {
                    None => break,
                    Some((folder, error)) if began.elapsed() >= patience => {
                        return Err(error).context("remove cgroup", &folder);
                    }
                    Some(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        }
        Ok(())
    }

    /// Whether the cgroup `path` is there in any hierarchy.
    pub fn exists(&self, path: &str) -> bool {
        self.roots().into_iter().any(|root| root.join(path).exists())
    }
}

/// The folder and all below, children before their parents. Empty if there is none.
fn subtree(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(top) else {
        return found;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(subtree(&entry.path()));
        }
    }
    found.push(top.to_owned());
    found
}

/// A new v1 cpuset has no cpus and no memory, and then takes no process: copy the parent's.
fn copy_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(file), child.join(file));
        // In v2 an empty value means the parent's, and the root has no such file.
        let (Ok(given), Ok(own)) = (fs::read_to_string(&from), fs::read_to_string(&to)) else {
            continue;
        };
        if own.trim().is_empty() && !given.trim().is_empty() {
            fs::write(&to, given.trim()).context("write", &to)?;
        }
    }
    Ok(())
}

/// Hands every controller that a v2 cgroup has on to its children.
fn enable_controllers(folder: &Path) -> Result<()> {
    let file = folder.join("cgroup.controllers");
    let available = fs::read_to_string(&file).context("read", &file)?;
    let request = controllers_to_enable(&available);
    let file = folder.join("cgroup.subtree_control");
    fs::write(&file, request).context("write", &file)
}

/// The request that enables those of [`CONTROLLERS`] that are available.
fn controllers_to_enable(available: &str) -> String {
    let available: BTreeSet<&str> = available.split_whitespace().collect();
    CONTROLLERS
        .iter()
        .filter(|c| available.contains(*c))
        .map(|c| format!("+{c}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0\n\
        cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n\
        cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n\
        cgroup /mnt/elsewhere/memory cgroup rw,relatime,memory 0 0\n";
    const UNIFIED: &str = "/dev/vda / ext4 rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";

    #[test]
    fn both_layouts_are_told_apart() {
        let paths = [
            "/sys/fs/cgroup/cpu",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/unified",
        ];
        assert_eq!(
            Cgroups::from_mounts(HYBRID),
            Some(Cgroups::V1(paths.map(PathBuf::from).to_vec()))
        );
        assert_eq!(
            Cgroups::from_mounts(UNIFIED),
            Some(Cgroups::V2("/sys/fs/cgroup".into()))
        );
        assert_eq!(Cgroups::from_mounts("/dev/vda / ext4 rw 0 0\n"), None);
    }

    #[test]
    fn only_controllers_that_exist_are_asked_for() {
        assert_eq!(
            controllers_to_enable("cpuset cpu io memory hugetlb pids rdma"),
            "+cpu +cpuset +io +memory +pids"
        );
        assert_eq!(controllers_to_enable("memory\n"), "+memory");
    }

    #[test]
    fn a_v2_tree_is_made_with_controllers_on_every_level_but_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for level in ["", "a", "a/b"] {
            let at = root.join(level);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("cgroup.controllers"), "cpu memory").unwrap();
        }
        Cgroups::V2(root.into()).create("a/b").unwrap();
        assert_eq!(
            fs::read_to_string(root.join("cgroup.subtree_control")).unwrap(),
            "+cpu +memory"
        );
        assert_eq!(
            fs::read_to_string(root.join("a/cgroup.subtree_control")).unwrap(),
            "+cpu +memory"
        );
        assert!(!root.join("a/b/cgroup.subtree_control").exists());
    }

    #[test]
    fn a_v1_cpuset_takes_over_its_parents_cpus() {
        let folder = tempfile::tempdir().unwrap();
        let (parent, child) = (folder.path(), folder.path().join("a"));
        fs::create_dir(&child).unwrap();
        fs::write(parent.join("cpuset.cpus"), "0-3\n").unwrap();
        fs::write(child.join("cpuset.cpus"), "\n").unwrap();
        Cgroups::V1(vec![parent.into()]).create("a").unwrap();
        assert_eq!(fs::read_to_string(child.join("cpuset.cpus")).unwrap(), "0-3");
    }

    #[test]
    fn processes_are_found_at_every_depth_and_trees_removed_from_below() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x/y/z");
        fs::create_dir_all(&deep).unwrap();
        let groups = Cgroups::V1(vec![folder.path().into()]);
        assert!(groups.exists("x"));
        groups.remove("x", Duration::ZERO).unwrap();
        assert!(!groups.exists("x"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("cgroup.procs"), "12\n34\n").unwrap();
        assert_eq!(groups.processes("x"), BTreeSet::from([12, 34]));
        assert_eq!(groups.processes("nothing"), BTreeSet::new());
    }
}
