//! The project's own images, from the very Dockerfile that ships.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::{Error, Image, read_image};
use crate::progress::Progress;

/// Targets of the Dockerfile.
const NAMES: [&str; 3] = ["larder-operator", "larder-agent", "larder-noop"];

/// The end of a failed script's output that is shown.
const LOG_TAIL: usize = 40;

/// One of the project's own images.
#[derive(Debug, Clone)]
pub struct ProductImage {
    /// `larder-operator`, `larder-agent` or `larder-noop`.
    pub name: &'static str,
    /// The reference that it is published under, such as `ghcr.io/larder-dev/larder-noop:v0.1.0`.
    pub reference: String,
    /// The image itself.
    pub image: Image,
}

/// Builds the static programs and from them the images, by the scripts that `make images` runs, and
/// reads the result. `root` is the top of the checkout. Blocks: minutes without Cargo's caches,
/// seconds with them.
pub fn build_product_images(root: &Path, progress: &dyn Progress) -> Result<Vec<ProductImage>, Error> {
    run(root, "hack/binaries", &[], progress)?;
    run(root, "hack/images", &["build"], progress)?;
    read_product_images(root)
}

/// Reads the images that `make images` has left in the checkout at `root`. Blocks.
pub fn read_product_images(root: &Path) -> Result<Vec<ProductImage>, Error> {
    let read = |name: &'static str| {
        let folder = root.join("target/larder/images").join(name);
        let image = read_image(&folder)?;
        let reference = image
            .name()
            .ok_or_else(|| Error::Unnamed { path: folder.clone() })?
            .to_owned();
        Ok(ProductImage {
            name,
            reference,
            image,
        })
    };
    NAMES.into_iter().map(read).collect()
}

fn run(root: &Path, script: &'static str, arguments: &[&str], progress: &dyn Progress) -> Result<(), Error> {
    let failed = |what: String| Error::Tool { tool: script, what };
    let started = Instant::now();
    progress.line(&format!("{script} {}", arguments.join(" ")));
    let mut child = Command::new(root.join(script))
        .args(arguments)
        // The one tool that leaves OCI layouts.
        .env("IMAGE_TOOL", "buildah")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut tail = VecDeque::new();
    for line in child
        .stderr
        .take()
        .into_iter()
        .flat_map(|stderr| BufReader::new(stderr).lines())
    {
        if tail.len() == LOG_TAIL {
            tail.pop_front();
        }
        tail.extend(line);
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if status.success() {
        progress.line(&format!("    done in {} s", started.elapsed().as_secs()));
        return Ok(());
    }
    Err(failed(format!("{status}\n{}", Vec::from(tail).join("\n"))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::ImageSpec;
    use super::*;
    use crate::progress::Stderr;

    fn layouts(root: &Path) {
        for (seed, name) in NAMES.into_iter().enumerate() {
            let image = ImageSpec::new(seed as u64).layers(1, 10).build().unwrap();
            let folder = root.join("target/larder/images").join(name);
            image
                .write_layout(&folder, Some(&format!("ghcr.io/larder-dev/{name}:v1")))
                .unwrap();
        }
    }

    #[test]
    fn images_come_with_the_reference_they_are_published_under() {
        let root = tempfile::tempdir().unwrap();
        layouts(root.path());
        let references: Vec<String> = read_product_images(root.path())
            .unwrap()
            .into_iter()
            .map(|image| image.reference)
            .collect();
        assert_eq!(
            references,
            [
                "ghcr.io/larder-dev/larder-operator:v1",
                "ghcr.io/larder-dev/larder-agent:v1",
                "ghcr.io/larder-dev/larder-noop:v1"
            ]
        );
    }

    #[test]
    fn a_script_that_fails_is_named_with_its_last_words() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("hack")).unwrap();
        let script = root.path().join("hack/binaries");
        fs::write(&script, "#!/bin/sh\necho it broke >&2\nexit 3\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let error = build_product_images(root.path(), &Stderr)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("hack/binaries") && error.contains("it broke"),
            "{error}"
        );
    }
}
