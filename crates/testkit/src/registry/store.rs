//! What the fake registry holds.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::image::{TestImage, digest_of};

#[derive(Debug, Default)]
pub(super) struct Store {
    repositories: BTreeMap<String, Repository>,
    /// Uploads that were begun: repository of each.
    uploads: Vec<String>,
}

#[derive(Debug, Default)]
struct Repository {
    /// Digest by tag.
    tags: BTreeMap<String, String>,
    /// By digest: media type and bytes.
    manifests: BTreeMap<String, (String, Bytes)>,
    /// By digest.
    blobs: BTreeMap<String, Bytes>,
}

impl Store {
    pub(super) fn put_image(&mut self, repository: &str, tag: Option<&str>, image: &TestImage) {
        for child in &image.children {
            self.put_image(repository, None, child);
        }
        for blob in &image.blobs {
            self.put_blob(repository, Bytes::from(blob.clone()));
        }
        let digest = image.digest();
        let reference = tag.unwrap_or(&digest);
        self.put_manifest(
            repository,
            reference,
            image.media_type,
            Bytes::from(image.manifest.clone()),
        );
    }

    /// Gives the digest; the tag moves if it was there.
    pub(super) fn put_manifest(
        &mut self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> String {
        let digest = digest_of(&bytes);
        let repository = self.repositories.entry(repository.to_owned()).or_default();
        repository
            .manifests
            .insert(digest.clone(), (media_type.to_owned(), bytes));
        if !reference.contains(':') {
            repository.tags.insert(reference.to_owned(), digest.clone());
        }
        digest
    }

    pub(super) fn put_blob(&mut self, repository: &str, bytes: Bytes) -> String {
        let digest = digest_of(&bytes);
        let repository = self.repositories.entry(repository.to_owned()).or_default();
        repository.blobs.insert(digest.clone(), bytes);
        digest
    }

    /// Media type, digest and bytes.
    pub(super) fn manifest(&self, repository: &str, reference: &str) -> Option<(String, String, Bytes)> {
        let repository = self.repositories.get(repository)?;
        let digest = repository.tags.get(reference).map_or(reference, String::as_str);
        let (media_type, bytes) = repository.manifests.get(digest)?;
        Some((media_type.clone(), digest.to_owned(), bytes.clone()))
    }

    /// In their order; none for a repository that is not there.
    pub(super) fn tags(&self, repository: &str) -> Option<Vec<String>> {
        let repository = self.repositories.get(repository)?;
        Some(repository.tags.keys().cloned().collect())
    }

    pub(super) fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        self.repositories.get(repository)?.blobs.get(digest).cloned()
    }

    pub(super) fn remove(&mut self, repository: &str, reference: &str) {
        if let Some(repository) = self.repositories.get_mut(repository) {
            repository.tags.remove(reference);
            repository.manifests.remove(reference);
        }
    }

    pub(super) fn begin_upload(&mut self, repository: &str) -> usize {
        self.uploads.push(repository.to_owned());
        self.uploads.len() - 1
    }

    pub(super) fn knows_upload(&self, repository: &str, upload: &str) -> bool {
        let found = upload.parse().ok().and_then(|id: usize| self.uploads.get(id));
        found.is_some_and(|of| of == repository)
    }
}
