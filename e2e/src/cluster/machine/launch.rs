//! What happens between fork and exec of a component: its cgroup, its session, its namespaces.
//!
//! `larder-cluster launch SPEC` does this and then becomes the component, so that the id of the process that was
//! started is the component's own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use nix::unistd::{Pid, getpid, setsid};
use serde::{Deserialize, Serialize};

use crate::cluster::error::{Error, IoContext, Result};
use crate::cluster::machine::mounts::NodeMounts;

/// How to start a component.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Files into which the process writes its id.
    pub cgroup: Vec<PathBuf>,
    /// The network namespace to enter; none: the machine's own.
    pub netns: Option<PathBuf>,
    /// The process whose mount and host name namespaces to enter.
    pub beside: Option<i32>,
    /// New mount and host name namespaces to make.
    pub mounts: Option<NodeMounts>,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables added to the environment.
    pub env: BTreeMap<String, String>,
}

impl Launch {
    /// Starts `program` with `args`, nothing else set yet.
    pub fn new(program: impl Into<PathBuf>, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Does what is asked and becomes the program. Returns only what went wrong.
    ///
    /// Must be called while the process has one thread: the kernel refuses to change the mount namespace of more.
    pub fn exec(&self) -> Error {
        match self.prepare() {
            Ok(()) => {
                let error = Command::new(&self.program)
                    .args(&self.args)
                    .envs(&self.env)
                    .exec();
                Error::Io {
                    what: "execute",
                    path: self.program.clone(),
                    source: error,
                }
            }
            Err(error) => error,
        }
    }

    fn prepare(&self) -> Result<()> {
        // First of all, so that a cleaner finds this process whatever happens next.
        join_cgroups(&self.cgroup, getpid())?;
        setsid().context("begin a session for", &self.program)?;
        if let Some(path) = &self.netns {
            enter(path, CloneFlags::CLONE_NEWNET)?;
        }
        if let Some(pid) = self.beside {
            enter(
                Path::new(&format!("/proc/{pid}/ns/uts")),
                CloneFlags::CLONE_NEWUTS,
            )?;
            enter(Path::new(&format!("/proc/{pid}/ns/mnt")), CloneFlags::CLONE_NEWNS)?;
        }
        if let Some(mounts) = &self.mounts {
            mounts.set_up()?;
        }
        Ok(())
    }
}

/// Writes `pid` into each of the files.
fn join_cgroups(files: &[PathBuf], pid: Pid) -> Result<()> {
    for file in files {
        fs::write(file, pid.to_string()).context("join", file)?;
    }
    Ok(())
}

/// Enters the namespace behind a file.
pub fn enter(path: &Path, kind: CloneFlags) -> Result<()> {
    let file = File::open(path).context("open", path)?;
    setns(file, kind).context("enter", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_survives_the_command_line() {
        let mut launch = Launch::new("/bin/x", ["--a=b c", "\"quoted\""]);
        launch.env.insert("PATH".into(), "/y".into());
        launch.netns = Some("/run/netns/larder.control".into());
        let text = serde_json::to_string(&launch).unwrap();
        assert_eq!(serde_json::from_str::<Launch>(&text).unwrap(), launch);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = join_cgroups(&["/nonexistent/cgroup.procs".into()], getpid())
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/cgroup.procs"), "{error}");
    }
}
