//! Which images are asked for.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use larder_core::image_ref::ImageRef;

/// A list this long is a mistake, or not a list.
const MAX_LIST_BYTES: u64 = 16 * 1024 * 1024;

/// Images in the order in which they were named, each once.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// What can be pulled.
    pub(super) images: Vec<ImageRef>,
    /// What is no reference, and why: it fails alone.
    pub(super) malformed: Vec<(String, String)>,
    known: BTreeSet<String>,
}

impl Wanted {
    /// Adds an image; one that was named before, in any spelling, is not added again.
    pub(super) fn add(&mut self, text: &str) {
        match ImageRef::parse(text) {
            Ok(image) => {
                if self.known.insert(image.normalized().to_owned()) {
                    self.images.push(image);
                }
            }
            Err(error) => {
                if self.known.insert(text.to_owned()) {
                    self.malformed.push((text.to_owned(), error.to_string()));
                }
            }
        }
    }

    /// Adds the lines of a file; `-` is standard input.
    pub(super) fn add_file(&mut self, path: &Path) -> Result<()> {
        let mut text = String::new();
        let read = if path == Path::new("-") {
            std::io::stdin()
                .take(MAX_LIST_BYTES + 1)
                .read_to_string(&mut text)
        } else {
            std::fs::File::open(path).and_then(|file| file.take(MAX_LIST_BYTES + 1).read_to_string(&mut text))
        };
        let read = read.with_context(|| format!("cannot read the image list {}", path.display()))?;
        ensure!(
            read as u64 <= MAX_LIST_BYTES,
            "the image list {} is longer than 16 MiB",
            path.display()
        );
        for line in text.lines() {
            // No reference contains a #.
            let image = line.split('#').next().unwrap_or_default().trim();
            if !image.is_empty() {
                self.add(image);
            }
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.images.len() + self.malformed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_comments_blank_lines_and_repetitions() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "# our images\nnginx:1.27\n\n  docker.io/library/nginx:1.27  # again\r\nBad Name\nquay.io/a/b@sha256:\n";
        std::fs::write(file.path(), text).unwrap();
        let mut wanted = Wanted::default();
        wanted.add("alpine");
        wanted.add_file(file.path()).unwrap();
        let images: Vec<&str> = wanted.images.iter().map(ImageRef::normalized).collect();
        assert_eq!(
            images,
            ["docker.io/library/alpine:latest", "docker.io/library/nginx:1.27"]
        );
        let malformed: Vec<&str> = wanted.malformed.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(malformed, ["Bad Name", "quay.io/a/b@sha256:"]);
        assert!(wanted.add_file(Path::new("/nonexistent/list")).is_err());
    }
}
