//! Images in folders and files: OCI layouts, OCI archives and docker archives.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::image::{Document, Missing};
use super::{Blob, Descriptor, Error, Image};

/// Annotation in a layout's index with the image's tag or, from some tools, its whole name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of containerd and Docker with the image's whole name.
const FULL_NAME: &str = "io.containerd.image.name";

/// Reads an image from an OCI layout folder, an OCI archive (a tar of such a folder) or a docker
/// archive. The layout must hold exactly one image, which may be an index. Blocks.
pub fn read_image(path: &Path) -> Result<Image, Error> {
    if fs::metadata(path).map_err(Error::file(path))?.is_dir() {
        return read_folder(path, path);
    }
    let unpacked = tempfile::tempdir().map_err(Error::file(&std::env::temp_dir()))?;
    let archive = File::open(path).map_err(Error::file(path))?;
    tar::Archive::new(archive)
        .unpack(unpacked.path())
        .map_err(|error| Error::not_an_image(path, format!("no readable tar: {error}")))?;
    let (folder, name) = if unpacked.path().join("index.json").exists() {
        (unpacked, None)
    } else {
        let name = docker_name(unpacked.path());
        (convert_docker_archive(path)?, name)
    };
    let mut image = read_folder(folder.path(), path)?;
    image.name = image.name.or(name);
    image.folder = Some(Arc::new(folder));
    Ok(image)
}

/// Reads a layout folder; `shown` is what the user knows it by.
fn read_folder(folder: &Path, shown: &Path) -> Result<Image, Error> {
    let index = folder.join("index.json");
    let bytes = fs::read(&index).map_err(|_| Error::not_an_image(shown, "no index.json in it"))?;
    let document: Document = serde_json::from_slice(&bytes)
        .map_err(|error| Error::not_an_image(shown, format!("index.json: {error}")))?;
    let [root] = &document.manifests[..] else {
        return Err(Error::not_an_image(
            shown,
            format!("it holds {} images instead of one", document.manifests.len()),
        ));
    };
    let mut root = root.clone();
    let name = name_of(&root);
    root.annotations.clear();
    let mut image = Image::assemble(root, list_blobs(folder)?).map_err(|missing| explain(shown, missing))?;
    image.name = name;
    Ok(image)
}

/// Every blob of a layout by its digest.
fn list_blobs(folder: &Path) -> Result<BTreeMap<String, Blob>, Error> {
    let blobs = folder.join("blobs/sha256");
    let entries = fs::read_dir(&blobs).map_err(Error::file(&blobs))?;
    Ok(entries
        .filter_map(Result::ok)
        .map(|entry| {
            (
                format!("sha256:{}", entry.file_name().to_string_lossy()),
                Blob::File(entry.path()),
            )
        })
        .collect())
}

/// The name that a layout gives its image, if it is more than a tag.
fn name_of(root: &Descriptor) -> Option<String> {
    let full = root.annotations.get(FULL_NAME);
    full.or_else(|| {
        root.annotations
            .get(REF_NAME)
            .filter(|name| name.contains([':', '/']))
    })
    .cloned()
}

/// The first name in a docker archive's manifest.
fn docker_name(folder: &Path) -> Option<String> {
    let manifest = fs::read(folder.join("manifest.json")).ok()?;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).ok()?;
    manifest.pointer("/0/RepoTags/0")?.as_str().map(String::from)
}

/// Old docker archives have another layout inside; skopeo knows all of its forms.
fn convert_docker_archive(path: &Path) -> Result<TempDir, Error> {
    let folder = tempfile::tempdir().map_err(Error::file(&std::env::temp_dir()))?;
    let output = Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy"])
        .arg(format!("docker-archive:{}", path.display()))
        .arg(format!("oci:{}", folder.path().display()))
        .output()
        .map_err(|error| Error::Tool {
            tool: "skopeo",
            what: error.to_string(),
        })?;
    if output.status.success() {
        return Ok(folder);
    }
    Err(Error::not_an_image(
        path,
        format!(
            "neither OCI nor docker archive: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    ))
}

/// Says in a user's words why blobs are not an image.
pub(super) fn explain(shown: &Path, missing: Missing) -> Error {
    match missing {
        Missing::Blob(digest) => Error::not_an_image(shown, format!("the blob {digest} is missing")),
        Missing::Meaning { digest, error } => {
            Error::not_an_image(shown, format!("{digest} is no manifest: {error}"))
        }
        Missing::Unreadable(error) => error,
    }
}

impl Image {
    /// Writes the image as an OCI layout into an empty or absent folder; `name` goes into the
    /// layout's index. Blocks.
    pub fn write_layout(&self, folder: &Path, name: Option<&str>) -> Result<(), Error> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(Error::file(&blobs))?;
        for descriptor in self.content.iter().chain(&self.manifests).chain(&self.indexes) {
            if let Some(blob) = self.blobs.get(&descriptor.digest) {
                let path = blobs.join(descriptor.digest.trim_start_matches("sha256:"));
                fs::write(&path, blob.read()?).map_err(Error::file(&path))?;
            }
        }
        let mut root = self.root.clone();
        root.annotations = name
            .map(|name| (REF_NAME.to_owned(), name.to_owned()))
            .into_iter()
            .collect();
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [root] });
        for (file, content) in [
            ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#.to_owned()),
            ("index.json", index.to_string()),
        ] {
            let path = folder.join(file);
            fs::write(&path, content).map_err(Error::file(&path))?;
        }
        Ok(())
    }

    /// Writes the image as an OCI archive. Blocks.
    pub fn write_archive(&self, path: &Path, name: Option<&str>) -> Result<(), Error> {
        let folder = tempfile::tempdir().map_err(Error::file(&std::env::temp_dir()))?;
        self.write_layout(folder.path(), name)?;
        let mut tar = tar::Builder::new(File::create(path).map_err(Error::file(path))?);
        tar.append_dir_all(".", folder.path())
            .and_then(|()| tar.finish())
            .map_err(Error::file(path))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::ImageSpec;
    use super::*;

    fn image() -> Image {
        ImageSpec::new(3)
            .layers(2, 500)
            .architectures(&["amd64", "arm64"])
            .build()
            .unwrap()
    }

    #[test]
    fn a_layout_reads_back_as_the_same_image() {
        let folder = tempfile::tempdir().unwrap();
        let image = image();
        image.write_layout(folder.path(), Some("nginx:1.27")).unwrap();
        let read = read_image(folder.path()).unwrap();
        assert_eq!(read.digest(), image.digest());
        assert_eq!(read.platforms(), image.platforms());
        assert_eq!(read.size(), image.size());
        assert_eq!(read.name(), Some("nginx:1.27"));
    }

    #[test]
    fn an_archive_reads_back_and_outlives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        let image = image();
        image.write_archive(&path, None).unwrap();
        let read = read_image(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(read.digest(), image.digest());
        assert_eq!(
            read.blobs[image.digest()].read().unwrap(),
            image.blobs[image.digest()].read().unwrap()
        );
        assert_eq!(read.name(), None);
    }

    #[test]
    fn a_tag_alone_is_not_a_name() {
        let folder = tempfile::tempdir().unwrap();
        image().write_layout(folder.path(), Some("latest")).unwrap();
        assert_eq!(read_image(folder.path()).unwrap().name(), None);
    }

    #[test]
    fn a_lost_layer_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let image = image();
        image.write_layout(folder.path(), None).unwrap();
        let lost = &image.content[1].digest;
        fs::remove_file(
            folder
                .path()
                .join("blobs/sha256")
                .join(lost.trim_start_matches("sha256:")),
        )
        .unwrap();
        let error = read_image(folder.path()).unwrap_err().to_string();
        assert!(error.contains(lost), "{error}");
    }

    #[test]
    fn other_folders_and_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            read_image(folder.path())
                .unwrap_err()
                .to_string()
                .contains("no index.json")
        );
        let file = folder.path().join("text");
        fs::write(
            &file,
            "not a tar, but long enough to be taken for a header ".repeat(20),
        )
        .unwrap();
        assert!(matches!(read_image(&file), Err(Error::NotAnImage { .. })));
        assert!(matches!(
            read_image(Path::new("/nowhere/image")),
            Err(Error::File { .. })
        ));
    }
}
