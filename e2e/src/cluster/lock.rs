//! One command at a time changes a cluster.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cluster::error::{IoContext, Result};
use crate::cluster::layout::Layout;

/// Holds a cluster until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Waits until no other command holds the cluster.
    pub fn take(layout: &Layout) -> Result<Self> {
        let path = layout.lock().to_owned();
        let folder = path.parent().unwrap_or(Path::new("/"));
        loop {
            fs::create_dir_all(folder).context("make", folder)?;
            let file = File::create(&path).context("open", &path)?;
            file.lock().context("lock", &path)?;
            let lock = Self {
                path: path.clone(),
                file,
            };
            if lock.is_of_the_file_there()? {
                return Ok(lock);
            }
        }
    }

    /// Removes the file: those who wait for it find that it is not there any more and begin anew.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).context("remove", &self.path)
    }

    /// Whether the file that is locked still has its name.
    fn is_of_the_file_there(&self) -> Result<bool> {
        let held = self.file.metadata().context("read", &self.path)?;
        match fs::metadata(&self.path) {
            Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).context("read", &self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::cluster::name::ClusterName;

    #[test]
    fn only_one_at_a_time_holds_it_although_some_remove_it() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path(), &ClusterName::new("x").unwrap());
        let (inside, turns) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for turn in 0..20 {
                        let lock = Lock::take(&layout).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        turns.fetch_add(1, Ordering::SeqCst);
                        if turn % 3 == 0 {
                            lock.remove().unwrap();
                        }
                    }
                });
            }
        });
        assert_eq!(turns.into_inner(), 160);
    }
}
