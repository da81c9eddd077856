//! A node's own view of the file system: made in a mount namespace of its own, gone with its last process.
//!
//! Nothing of this appears in the machine's mount table. The loop device behind /var/lib/containerd frees itself when
//! the namespace goes.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;
use serde::{Deserialize, Serialize};

use crate::cluster::error::{IoContext, Result};
use crate::cluster::machine::command::run;

/// Where a node sees its own folder of the cluster's state.
pub const NODE_FOLDER: &str = "/run/node";

/// What to mount for a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMounts {
    /// The node's host name.
    pub hostname: String,
    /// The node's machine id: 32 hexadecimal digits.
    pub machine_id: String,
    /// The node's folder, with `disk.img`, `kubelet/`, `log/`, `containerd/` and `cni/` in it.
    pub folder: PathBuf,
}

impl NodeMounts {
    /// Leaves the machine's mount and host name namespaces and builds the node's.
    pub fn set_up(&self) -> Result<()> {
        let root = Path::new("/");
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
            .context("leave the namespaces of", root)?;
        sethostname(&self.hostname).context("set the host name of", root)?;
        change(root, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;

        let_go_of_namespaces()?;

        let run_folder = Path::new("/run");
        mount(
            Some("tmpfs"),
            run_folder,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=755"),
        )
        .context("mount tmpfs on", run_folder)?;
        // What is deleted takes no space on the machine any more. By its path on the machine, so that a list of loop devices tells whose they are.
        let disk = Path::new("/run/disk");
        make(disk)?;
        let file = self.folder.join("disk.img");
        run(
            "mount",
            &[
                "-t",
                "ext4",
                "-o",
                "loop,noatime,discard",
                &file.to_string_lossy(),
                "/run/disk",
            ],
        )?;
        change(run_folder, MsFlags::MS_SHARED)?;
        for folder in ["netns", "containerd", "lock"] {
            make(&run_folder.join(folder))?;
        }
        let own = Path::new(NODE_FOLDER);
        bind(&self.folder, own)?;

        // Mount points are made, and files changed, in a layer of the node's own: the machine keeps its /etc and /var.
        overlay(Path::new("/etc"))?;
        overlay(Path::new("/var"))?;
        self.write_identity()?;
        bind(&own.join("containerd"), Path::new("/etc/containerd"))?;
        bind(&own.join("cni"), Path::new("/etc/cni/net.d"))?;
        bind(&own.join("log"), Path::new("/var/log"))?;

        let kubelet = Path::new("/var/lib/kubelet");
        bind(&own.join("kubelet"), kubelet)?;
        change(kubelet, MsFlags::MS_REC | MsFlags::MS_SHARED)?;

        let images = Path::new("/var/lib/containerd");
        bind(disk, images)?;
        change(images, MsFlags::MS_SHARED)
    }

    /// The files of /etc in which a node differs from the machine. No name server: names never leave the machine.
    fn write_identity(&self) -> Result<()> {
        let files = [
            ("/etc/machine-id", format!("{}\n", self.machine_id)),
            ("/etc/hostname", format!("{}\n", self.hostname)),
            (
                "/etc/hosts",
                format!("127.0.0.1 localhost\n127.0.1.1 {}\n", self.hostname),
            ),
            ("/etc/resolv.conf", String::new()),
        ];
        for (path, text) in files {
            let path = Path::new(path);
            // It may be a link into /run, which is another one here.
            if path.symlink_metadata().is_ok() {
                fs::remove_file(path).context("replace", path)?;
            }
            fs::write(path, text).context("write", path)?;
        }
        Ok(())
    }
}

/// The names of network namespaces are mounts, and a copy of them here would keep those namespaces, other clusters'
/// too, for as long as this node runs.
fn let_go_of_namespaces() -> Result<()> {
    let table = Path::new("/proc/self/mounts");
    let mounts = fs::read_to_string(table).context("read", table)?;
    let targets = mounts.lines().rev().filter_map(|line| line.split(' ').nth(1));
    for target in targets
        .map(Path::new)
        .filter(|target| target.starts_with("/run/netns"))
    {
        umount2(target, MntFlags::MNT_DETACH).context("unmount", target)?;
    }
    Ok(())
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).context("make", folder)
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    make(to)?;
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("bind a folder to", to)
}

fn change(at: &Path, propagation: MsFlags) -> Result<()> {
    mount(None::<&str>, at, None::<&str>, propagation, None::<&str>).context("change the propagation of", at)
}

/// Puts a layer of the node's own, in memory, over a folder of the machine.
fn overlay(folder: &Path) -> Result<()> {
    let name = folder.file_name().unwrap_or_default();
    let (upper, work) = (
        Path::new("/run/layers").join(name).join("upper"),
        Path::new("/run/layers").join(name).join("work"),
    );
    make(&upper)?;
    make(&work)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        folder.display(),
        upper.display(),
        work.display()
    );
    mount(
        Some("overlay"),
        folder,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .context("mount a layer over", folder)
}
