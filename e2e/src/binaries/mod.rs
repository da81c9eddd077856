//! The binaries of a cluster, built from pinned Go modules and kept outside the tree.
//!
//! One folder for each upstream and one for each set of them, named after a hash of all that goes
//! into it: a clean checkout finds what an earlier one built, two Kubernetes minors share their
//! etcd and containerd, and a changed pin builds anew without touching what a running cluster uses.

mod golang;
mod upstream;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Instant;

use sha2::{Digest, Sha256};

pub use upstream::KUBERNETES_MINORS;
use upstream::Upstream;

use crate::progress::Progress;

/// Why the binaries are not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No module is pinned for the minor asked for.
    #[error("no Kubernetes {asked:?} here; known: {}", KUBERNETES_MINORS.join(", "))]
    UnknownKubernetes {
        /// What was asked for.
        asked: String,
    },
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where to keep them.
    #[error("cannot keep built binaries: neither XDG_CACHE_HOME nor HOME is set")]
    NoCacheFolder,
    /// `go` could not be started.
    #[error("cannot run `go`, which builds the cluster's binaries; install Go 1.26 or newer: {0}")]
    NoGo(#[source] io::Error),
    /// `go build` ended with an error.
    #[error("building {upstream} {version} failed ({status}); the end of its output:\n{log}")]
    Build {
        /// Which upstream.
        upstream: &'static str,
        /// Its version.
        version: &'static str,
        /// How `go` ended.
        status: ExitStatus,
        /// The last lines that `go` wrote.
        log: String,
    },
    /// The cache folder could not be read or written.
    #[error("cannot use the cache of built binaries at {}: {source}", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl Error {
    fn cache(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Cache { path, source }
    }
}

/// A folder that holds every binary of a cluster: `etcd`, `kube-apiserver`,
/// `kube-controller-manager`, `kube-scheduler`, `kube-proxy`, `kubelet`, `kubectl`, `containerd`,
/// `ctr`, `containerd-shim-runc-v2` and the network plugins `ptp`, `loopback`, `host-local` and
/// `portmap`. It may serve as `PATH` for containerd and as its folder of network plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The folder; never changed once it is there.
    pub dir: PathBuf,
}

impl Binaries {
    /// Path of one binary.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The kubectl that fits the cluster's version.
    pub fn kubectl(&self) -> PathBuf {
        self.path("kubectl")
    }
}

/// The folder for what this project keeps between runs: `$XDG_CACHE_HOME/larder` or
/// `~/.cache/larder`.
pub fn cache_folder() -> Result<PathBuf, Error> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("larder"))
        .ok_or(Error::NoCacheFolder)
}

/// Whether [`ensure`] would return at once, that is without a build.
pub fn present(kubernetes: &str) -> Result<bool, Error> {
    let upstreams = upstream::all(kubernetes)?;
    Ok(complete(
        &set_folder(&cache_folder()?.join("bin"), &upstreams),
        &upstreams,
    ))
}

/// Gives the binaries of a cluster of this Kubernetes minor (such as `1.36`), building what is
/// missing: minutes and about 8 GB of Go's own caches the first time, milliseconds afterwards.
///
/// Blocks. A second process that wants the same waits for the first. A build that is interrupted
/// leaves nothing that a later call would take for finished.
pub fn ensure(kubernetes: &str, progress: &dyn Progress) -> Result<Binaries, Error> {
    ensure_in(
        &cache_folder()?.join("bin"),
        &upstream::all(kubernetes)?,
        progress,
    )
}

fn ensure_in(root: &Path, upstreams: &[Upstream], progress: &dyn Progress) -> Result<Binaries, Error> {
    let dir = set_folder(root, upstreams);
    if complete(&dir, upstreams) {
        return Ok(Binaries { dir });
    }
    fs::create_dir_all(root).map_err(Error::cache(root))?;
    let lock = lock(root, progress)?;
    if !complete(&dir, upstreams) {
        golang::check()?;
        remove_leftovers(root)?;
        let missing: Vec<&Upstream> = upstreams
            .iter()
            .filter(|one| !holds(&part_folder(root, one), one.names()))
            .collect();
        for (done, upstream) in missing.iter().enumerate() {
            progress.line(&format!(
                "building binaries {} of {}: {} {}",
                done + 1,
                missing.len(),
                upstream.name,
                upstream.version()
            ));
            build_part(root, upstream, progress)?;
        }
        collect(root, &dir, upstreams)?;
    }
    // Held until here; the system would drop it with the file anyway, also when the process is killed.
    drop(lock);
    Ok(Binaries { dir })
}

/// Builds one upstream beside its folder and moves it there when all of it is done.
fn build_part(root: &Path, upstream: &Upstream, progress: &dyn Progress) -> Result<(), Error> {
    let started = Instant::now();
    let work = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempdir_in(root)
        .map_err(Error::cache(root))?;
    let (source, out) = (work.path().join("module"), work.path().join("out"));
    for folder in [&source, &out] {
        fs::create_dir(folder).map_err(Error::cache(folder))?;
    }
    golang::build(upstream, &source, &out, progress)?;
    put_in_place(&out, &part_folder(root, upstream))?;
    progress.line(&format!(
        "    {} {}: done in {} s",
        upstream.name,
        upstream.version(),
        started.elapsed().as_secs()
    ));
    Ok(())
}

/// Makes the folder of the whole set out of links to the upstreams' binaries.
fn collect(root: &Path, dir: &Path, upstreams: &[Upstream]) -> Result<(), Error> {
    let work = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempdir_in(root)
        .map_err(Error::cache(root))?;
    let out = work.path().join("out");
    fs::create_dir(&out).map_err(Error::cache(&out))?;
    for upstream in upstreams {
        for name in upstream.names() {
            let from = part_folder(root, upstream).join(name);
            let to = out.join(name);
            // Some file systems have no hard links.
            fs::hard_link(&from, &to)
                .or_else(|_| fs::copy(&from, &to).map(|_| ()))
                .map_err(Error::cache(&to))?;
        }
    }
    put_in_place(&out, dir)
}

/// Prefix of folders that are being filled.
const UNFINISHED: &str = ".unfinished-";

/// Moves a finished folder to its name; an incomplete one under that name makes way.
fn put_in_place(from: &Path, to: &Path) -> Result<(), Error> {
    if to.exists() {
        fs::remove_dir_all(to).map_err(Error::cache(to))?;
    }
    fs::rename(from, to).map_err(Error::cache(to))
}

/// Takes the lock of the cache folder, waiting for another process if there is one.
fn lock(root: &Path, progress: &dyn Progress) -> Result<File, Error> {
    let path = root.join(".lock");
    let file = File::create(&path).map_err(Error::cache(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            progress.line("another process is building binaries: waiting for it");
            file.lock().map_err(Error::cache(&path))?;
            Ok(file)
        }
        Err(TryLockError::Error(source)) => Err(Error::Cache { path, source }),
    }
}

/// Removes what interrupted builds left; only with the lock held.
fn remove_leftovers(root: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(root)
        .map_err(Error::cache(root))?
        .filter_map(Result::ok)
    {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_dir_all(entry.path()).map_err(Error::cache(&entry.path()))?;
        }
    }
    Ok(())
}

fn part_folder(root: &Path, upstream: &Upstream) -> PathBuf {
    root.join(format!("{}-{}", upstream.name, upstream.key()))
}

fn set_folder(root: &Path, upstreams: &[Upstream]) -> PathBuf {
    let mut hash = Sha256::new();
    for upstream in upstreams {
        hash.update(upstream.key());
    }
    root.join(upstream::short_hex(&hash.finalize()))
}

fn complete(dir: &Path, upstreams: &[Upstream]) -> bool {
    holds(dir, upstreams.iter().flat_map(Upstream::names))
}

fn holds<'a>(dir: &Path, mut names: impl Iterator<Item = &'a str>) -> bool {
    names.all(|name| dir.join(name).is_file())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl Progress for Lines {
        fn line(&self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }

    /// Puts files in place of built binaries, as a finished build would.
    fn fill(root: &Path, upstreams: &[Upstream]) {
        for upstream in upstreams {
            let folder = part_folder(root, upstream);
            fs::create_dir_all(&folder).unwrap();
            for name in upstream.names() {
                fs::write(folder.join(name), name).unwrap();
            }
        }
    }

    #[test]
    fn a_set_is_made_of_finished_parts_and_found_again() {
        let root = tempfile::tempdir().unwrap();
        let upstreams = upstream::all("1.36").unwrap();
        fill(root.path(), &upstreams);
        let dir = set_folder(root.path(), &upstreams);
        collect(root.path(), &dir, &upstreams).unwrap();
        assert_eq!(
            fs::read_to_string(dir.join("containerd-shim-runc-v2")).unwrap(),
            "containerd-shim-runc-v2"
        );

        let lines = Lines::default();
        let binaries = ensure_in(root.path(), &upstreams, &lines).unwrap();
        assert_eq!(binaries.dir, dir);
        assert_eq!(*lines.0.lock().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_set_with_a_binary_missing_is_not_complete_and_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let upstreams = upstream::all("1.36").unwrap();
        fill(root.path(), &upstreams);
        let dir = set_folder(root.path(), &upstreams);
        collect(root.path(), &dir, &upstreams).unwrap();
        fs::remove_file(dir.join("kubelet")).unwrap();
        assert!(!complete(&dir, &upstreams));
        collect(root.path(), &dir, &upstreams).unwrap();
        assert!(complete(&dir, &upstreams));
    }

    #[test]
    fn minors_share_everything_but_kubernetes() {
        let root = Path::new("cache");
        let folders = |minor| -> Vec<PathBuf> {
            upstream::all(minor)
                .unwrap()
                .iter()
                .map(|one| part_folder(root, one))
                .collect()
        };
        let (new, old) = (folders("1.36"), folders("1.35"));
        let shared = new.iter().filter(|folder| old.contains(folder)).count();
        assert_eq!(shared, new.len() - 1);
        assert_ne!(
            set_folder(root, &upstream::all("1.36").unwrap()),
            set_folder(root, &upstream::all("1.35").unwrap())
        );
    }

    #[test]
    fn leftovers_of_killed_builds_are_removed_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(".unfinished-x/out")).unwrap();
        fs::create_dir_all(root.path().join("etcd-1")).unwrap();
        remove_leftovers(root.path()).unwrap();
        assert!(!root.path().join(".unfinished-x").exists());
        assert!(root.path().join("etcd-1").exists());
    }
}
