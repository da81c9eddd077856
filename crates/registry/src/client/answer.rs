//! Answers to the questions of [`Registry`](crate::Registry), with one credential or without.

use std::collections::BTreeSet;

use futures::future::try_join_all;
use larder_api::revision::PlatformManifest;
use larder_core::image_ref::is_digest;
use larder_core::manifest::{IndexEntry, Manifest, PlatformParts, platform_of_config};
use reqwest::Method;
use sha2::{Digest, Sha256};

use super::access::Access;
use crate::{Platform, RegistryError, http::Reply};

/// Asked for in Accept, most wanted first.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// As many as a revision holds of one image.
const MAX_PLATFORMS: usize = 20;
const DIGEST_HEADER: &str = "docker-content-digest";

impl Access<'_> {
    /// The digest of what the reference means. HEAD, and GET where HEAD does not say it.
    ///
    /// `telling`: a refusal is the one to be told, so the question is repeated with GET for the registry's words.
    pub(super) async fn head(&self, telling: bool) -> Result<String, RegistryError> {
        let reference = self.image.digest().or(self.image.tag()).unwrap_or("latest");
        let reply = self
            .ask(&Method::HEAD, "manifests", reference, Some(ACCEPT))
            .await?;
        let status = reply.status.as_u16();
        if reply.status.is_success()
            && let Some(digest) = digest_header(&reply)
        {
            return self.wanted(digest);
        }
        let settled = match status {
            401 | 403 => !telling,
            // Not implemented: HEAD, perhaps.
            501 => false,
            429 | 500.. => true,
            _ => false,
        };
        if settled {
            return Err(self.fault(&reply));
        }
        let reply = self
            .ask(&Method::GET, "manifests", reference, Some(ACCEPT))
            .await?;
        if !reply.status.is_success() {
            return Err(self.fault(&reply));
        }
        Manifest::parse(&reply.body).map_err(|e| self.endpoint.malformed(&e.to_string()))?;
        let digest = digest_of(&reply.body);
        match digest_header(&reply) {
            Some(said) if said != digest => Err(self.mismatch(said, &digest)),
            _ => self.wanted(&digest),
        }
    }

    /// The manifests for the wanted platforms; all for none wanted.
    pub(super) async fn platforms(
        &self,
        digest: &str,
        wanted: &[Platform],
    ) -> Result<Vec<PlatformManifest>, RegistryError> {
        let manifest = self.manifest(digest).await.map_err(|error| match error {
            // The registry named the digest itself: without it the words would seem to be about the tag.
            RegistryError::NotFound { message } => RegistryError::NotFound {
                message: format!(
                    "{} names {digest}, and does not have it: {message}",
                    self.endpoint.host
                ),
            },
            error => error,
        })?;
        match manifest {
            Manifest::Image(image) => {
                let platform = self.config(&image.config.digest).await?;
                let only = entry(platform, digest.to_owned(), image.size_bytes());
                Ok(if is_wanted(&only, wanted) {
                    vec![only]
                } else {
                    Vec::new()
                })
            }
            Manifest::Index(entries) => {
                let fitting = select(entries, wanted);
                let all = try_join_all(fitting.into_iter().map(|e| self.entry(e))).await?;
                Ok(all.into_iter().filter(|p| is_wanted(p, wanted)).collect())
            }
        }
    }

    /// Fetches what an index's entry points to.
    async fn entry(&self, found: IndexEntry) -> Result<PlatformManifest, RegistryError> {
        let manifest = match (self.manifest(&found.digest).await, &found.platform) {
            // Indexes are copied without all of their images: the size stays unknown.
            (Err(RegistryError::NotFound { .. }), Some(platform)) => {
                return Ok(entry(platform.clone(), found.digest, 0));
            }
            (manifest, _) => manifest?,
        };
        let Manifest::Image(image) = manifest else {
            return Err(self.endpoint.malformed("it has an index within an index"));
        };
        let platform = match found.platform {
            Some(platform) => platform,
            None => self.config(&image.config.digest).await?,
        };
        Ok(entry(platform, found.digest, image.size_bytes()))
    }

    async fn manifest(&self, digest: &str) -> Result<Manifest, RegistryError> {
        let body = self.verified("manifests", digest, Some(ACCEPT)).await?;
        Manifest::parse(&body).map_err(|e| self.endpoint.malformed(&e.to_string()))
    }

    async fn config(&self, digest: &str) -> Result<PlatformParts, RegistryError> {
        let body = self.verified("blobs", digest, None).await?;
        platform_of_config(&body).map_err(|e| self.endpoint.malformed(&e.to_string()))
    }

    /// The bytes of a digest.
    async fn verified(
        &self,
        kind: &str,
        digest: &str,
        accept: Option<&'static str>,
    ) -> Result<Vec<u8>, RegistryError> {
        let reply = self.ask(&Method::GET, kind, digest, accept).await?;
        if !reply.status.is_success() {
            return Err(self.fault(&reply));
        }
        let got = digest_of(&reply.body);
        if got == digest {
            Ok(reply.body)
        } else {
            Err(self.mismatch(digest, &got))
        }
    }

    /// The digest, if it is the one that the reference names.
    fn wanted(&self, digest: &str) -> Result<String, RegistryError> {
        match self.image.digest() {
            Some(wanted) if wanted != digest => Err(self.mismatch(wanted, digest)),
            _ => Ok(digest.to_owned()),
        }
    }

    fn mismatch(&self, wanted: &str, got: &str) -> RegistryError {
        RegistryError::DigestMismatch {
            host: self.endpoint.host.to_owned(),
            wanted: wanted.to_owned(),
            got: got.to_owned(),
        }
    }
}

/// The entries that may be wanted, one for each platform: the first, as the container runtimes choose.
fn select(entries: Vec<IndexEntry>, wanted: &[Platform]) -> Vec<IndexEntry> {
    let mut seen = BTreeSet::new();
    let fits = |e: &IndexEntry| match &e.platform {
        Some((os, architecture, variant)) => {
            wanted.is_empty()
                || wanted
                    .iter()
                    .any(|w| w.matches(os, architecture, variant.as_deref()))
        }
        // Only its configuration will tell.
        None => true,
    };
    entries
        .into_iter()
        .filter(|e| fits(e) && (e.platform.is_none() || seen.insert(e.platform.clone())))
        .take(MAX_PLATFORMS)
        .collect()
}

fn is_wanted(found: &PlatformManifest, wanted: &[Platform]) -> bool {
    wanted.is_empty()
        || wanted
            .iter()
            .any(|w| w.matches(&found.os, &found.architecture, found.variant.as_deref()))
}

fn entry(platform: PlatformParts, digest: String, size_bytes: i64) -> PlatformManifest {
    let (os, architecture, variant) = platform;
    PlatformManifest {
        os,
        architecture,
        variant,
        digest,
        size_bytes,
    }
}

/// What the registry says the digest is, if it says one that is used here.
fn digest_header(reply: &Reply) -> Option<&str> {
    reply
        .headers
        .get(DIGEST_HEADER)?
        .to_str()
        .ok()
        .filter(|d| is_digest(d))
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}
