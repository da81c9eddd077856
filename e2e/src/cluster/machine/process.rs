//! Components as processes: started so that they outlive the command, remembered by id and start time.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cluster::error::{Error, IoContext, Result};
use crate::cluster::layout::Layout;
use crate::cluster::machine::launch::Launch;
use crate::cluster::machine::tail::tail_of;
use crate::cluster::state::write_atomically;

/// The end of a log that goes into messages, in lines.
const TAIL_LINES: usize = 15;

/// A process that cannot be confused with a later one of the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// When it began, in clock ticks since the machine's start (field 22 of /proc/PID/stat).
    pub started: u64,
}

impl Process {
    /// The live process of this id, if there is one. A zombie is not alive.
    pub fn find(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        parse_stat(&stat)
            .filter(|(state, _)| !matches!(state, 'Z' | 'X'))
            .map(|(_, started)| Self { pid, started })
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        Self::find(self.pid) == Some(*self)
    }

    /// Kills it if it still runs. Returns at once.
    pub fn kill(&self) {
        if self.is_alive() {
            kill_pid(self.pid);
        }
    }

    /// The name of the program that it runs now (at most 15 characters).
    pub fn program(&self) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/comm", self.pid))
            .ok()
            .map(|name| name.trim().to_owned())
    }
}

/// Sends SIGKILL. That the process is gone already is fine.
pub fn kill_pid(pid: i32) {
    // The only other error is EPERM, which root does not meet.
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// State and start time from the text of /proc/PID/stat. The name in it may hold blanks and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

/// The record of a component that should be running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Such as `etcd` or `node-1/kubelet`.
    pub component: String,
    /// Its process.
    #[serde(flatten)]
    pub process: Process,
}

/// The components of one cluster that should be running.
#[derive(Debug, Clone)]
pub struct Components {
    layout: Layout,
}

impl Components {
    /// Those of the cluster with this folder.
    pub fn new(layout: &Layout) -> Self {
        Self {
            layout: layout.clone(),
        }
    }

    /// The records on disk, sorted by name. Those that cannot be read are left out.
    pub fn records(&self) -> Vec<Record> {
        let Ok(entries) = fs::read_dir(self.layout.run()) else {
            return Vec::new();
        };
        let mut records: Vec<Record> = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(".pid.json"))
            .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
            .collect();
        records.sort_by(|a, b| a.component.cmp(&b.component));
        records
    }

    /// The record of one component.
    pub fn record(&self, component: &str) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.file(component)).ok()?).ok()
    }

    /// Whether a component runs.
    pub fn is_alive(&self, component: &str) -> bool {
        self.record(component)
            .is_some_and(|record| record.process.is_alive())
    }

    /// Kills those of these processes that run one of these programs and are not recorded: a run that was killed between
    /// starting a component and recording it left them, and they hold its port or its lock. No programs: any.
    pub fn kill_strays(&self, pids: &std::collections::BTreeSet<i32>, programs: &[&str]) {
        let recorded: Vec<i32> = self.records().iter().map(|record| record.process.pid).collect();
        for pid in pids.iter().filter(|pid| !recorded.contains(pid)) {
            let Some(process) = Process::find(*pid) else {
                continue;
            };
            let program = process.program().unwrap_or_default();
            if programs.is_empty() || programs.contains(&program.as_str()) {
                process.kill();
            }
        }
    }

    /// Starts a component unless it runs; says whether it had to.
    pub fn ensure(&self, component: &str, launch: impl FnOnce() -> Result<Launch>) -> Result<bool> {
        if self.is_alive(component) {
            return Ok(false);
        }
        self.start(component, &launch()?)?;
        Ok(true)
    }

    /// Starts a component in the background and records it.
    pub fn start(&self, component: &str, launch: &Launch) -> Result<Process> {
        let log = self.layout.log(component);
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder).context("make", folder)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .context("open", &log)?;
        let errors = file.try_clone().context("open", &log)?;
        let helper = helper()?;
        let spec = serde_json::to_string(launch).map_err(|e| Error::Worker(e.to_string()))?;
        let mut child = Command::new(&helper)
            .arg("launch")
            .arg(spec)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .context("start", &helper)?;
        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
        let process = Process::find(pid).ok_or_else(|| self.died(component))?;
        let record = Record {
            component: component.to_owned(),
            process,
        };
        write_atomically(
            &self.file(component),
            &serde_json::to_vec(&record).unwrap_or_default(),
        )?;
        // Somebody has to collect the child while this program lives, or it stays as a zombie when it ends.
        std::thread::spawn(move || child.wait());
        Ok(process)
    }

    /// Kills a component and forgets it, so that nobody takes it for dead by accident.
    pub fn stop(&self, component: &str) -> Result<()> {
        if let Some(record) = self.record(component) {
            self.forget(component)?;
            record.process.kill();
        }
        Ok(())
    }

    /// Forgets a component without touching its process.
    pub fn forget(&self, component: &str) -> Result<()> {
        let file = self.file(component);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("remove", &file),
            _ => Ok(()),
        }
    }

    /// Forgets the components that died, as when they are to be started again.
    pub fn forget_dead(&self) -> Result<()> {
        let records = self.records().into_iter();
        records
            .filter(|r| !r.process.is_alive())
            .try_for_each(|r| self.forget(&r.component))
    }

    /// The first component of the control plane, or of one of these nodes, that should run and does not, as an error
    /// with the end of its log. What other nodes do is their own affair.
    pub fn check(&self, nodes: &[&str]) -> Result<()> {
        let concerns = |component: &str| {
            component
                .split_once('/')
                .is_none_or(|(node, _)| nodes.contains(&node))
        };
        let dead = self
            .records()
            .into_iter()
            .find(|r| concerns(&r.component) && !r.process.is_alive());
        dead.map_or(Ok(()), |record| Err(self.died(&record.component)))
    }

    /// The error that says that a component died.
    pub fn died(&self, component: &str) -> Error {
        let log = self.layout.log(component);
        Error::Died {
            component: component.to_owned(),
            tail: tail_of(&log, TAIL_LINES),
            log,
        }
    }

    fn file(&self, component: &str) -> PathBuf {
        self.layout
            .run()
            .join(format!("{}.pid.json", component.replace('/', "+")))
    }
}

/// The `larder-cluster` program, which starts components in their namespaces: this program itself, or for a test or
/// benchmark the one built beside it.
pub fn helper() -> Result<PathBuf> {
    let here = Path::new("/proc/self/exe");
    let own = fs::read_link(here).context("read", here)?;
    let name = "larder-cluster";
    if own.file_name().is_some_and(|n| n == name) {
        return Ok(own);
    }
    own.ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::Refused(format!(
                "no {name} beside {}; build it with `cargo build -p larder-e2e`",
                own.display()
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::name::ClusterName;

    #[test]
    fn names_with_blanks_and_parentheses_do_not_confuse_the_start_time() {
        let mut stat = String::from("42 (a) b (c)) S 1 42 42 0 -1 4194304");
        let fields: Vec<String> = (10..=21).map(|field| field.to_string()).collect();
        stat.push(' ');
        stat.push_str(&fields.join(" "));
        stat.push_str(" 987654 1000 2000");
        assert_eq!(parse_stat(&stat), Some(('S', 987_654)));
        assert_eq!(parse_stat("garbage"), None);
    }

    #[test]
    fn a_process_is_known_by_its_start_time_too() {
        let me = Process::find(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(
            !Process {
                started: me.started + 1,
                ..me
            }
            .is_alive()
        );
    }

    #[test]
    fn what_died_on_another_node_is_its_own_affair() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path(), &ClusterName::new("x").unwrap());
        let components = Components::new(&layout);
        let me = Process::find(i32::try_from(std::process::id()).unwrap()).unwrap();
        let dead = Process {
            started: me.started + 1,
            ..me
        };
        let record = |component: &str, process| {
            let record = Record {
                component: component.into(),
                process,
            };
            write_atomically(&components.file(component), &serde_json::to_vec(&record).unwrap()).unwrap();
        };
        record("etcd", me);
        record("node-1/kubelet", dead);
        assert!(components.check(&["node-2"]).is_ok());
        let error = components.check(&["node-1"]).unwrap_err().to_string();
        assert!(error.starts_with("node-1/kubelet died"), "{error}");
        record("etcd", dead);
        assert!(
            components
                .check(&[])
                .unwrap_err()
                .to_string()
                .starts_with("etcd died")
        );
        components.forget_dead().unwrap();
        assert!(components.check(&["node-1"]).is_ok());
    }
}
