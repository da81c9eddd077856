//! How much room there is for images.

use std::path::Path;

use larder_core::agent::Disk;
use rustix::fs::{StatVfs, statvfs};

use crate::types::ImageFs;

/// The file system of the images: that of the first of the runtime's paths that can be seen from here, else that of
/// `/`, because a container's root is kept beside the images. None if neither can be looked at.
pub fn disk(image_fs: &[ImageFs]) -> Option<Disk> {
    let paths = image_fs.iter().map(|fs| Path::new(&fs.mountpoint));
    paths
        .chain([Path::new("/")])
        .find_map(|path| statvfs(path).ok())
        .map(|fs| room(&fs))
}

/// As `df` counts: blocks reserved for root are neither used nor free.
fn room(fs: &StatVfs) -> Disk {
    let used = fs.f_blocks.saturating_sub(fs.f_bfree);
    Disk {
        total: (used + fs.f_bavail).saturating_mul(fs.f_frsize),
        free: fs.f_bavail.saturating_mul(fs.f_frsize),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{ImageFs, disk};

    fn at(mountpoint: &str) -> ImageFs {
        ImageFs {
            mountpoint: mountpoint.into(),
            used_bytes: 0,
        }
    }

    #[test]
    fn the_first_path_that_can_be_seen_counts_and_the_root_otherwise() {
        let visible = tempfile::tempdir().unwrap();
        let found = disk(&[at("/nonexistent/images"), at(visible.path().to_str().unwrap())]).unwrap();
        assert_eq!(found.total, df(visible.path().to_str().unwrap()));
        assert!(found.free <= found.total);
        assert_eq!(disk(&[at("/nonexistent/images")]).unwrap().total, df("/"));
    }

    /// Used and available bytes in the words of `df`.
    fn df(path: &str) -> u64 {
        let output = Command::new("df")
            .args(["--block-size=1", "--output=used,avail", path])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let numbers = text.lines().nth(1).unwrap().split_whitespace();
        numbers.map(|n| n.parse::<u64>().unwrap()).sum()
    }
}
