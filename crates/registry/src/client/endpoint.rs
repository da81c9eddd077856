//! Where an image's registry is asked, and with which client.

use std::{collections::BTreeMap, path::PathBuf};

use larder_core::image_ref::ImageRef;
use url::Url;

use super::fault;
use crate::{
    ConfigError, HttpOptions, Limits, RegistriesConfig, RegistryError,
    http::{Clients, Listed, Reply, Request, certificates, exchange},
};

/// All clients that the configuration needs.
pub(super) struct Endpoints {
    config: RegistriesConfig,
    listed: Listed,
    clients: Clients,
    by_ca_file: BTreeMap<PathBuf, Clients>,
}

/// Where one image is asked for.
pub(super) struct Endpoint<'a> {
    clients: &'a Clients,
    listed: &'a Listed,
    /// The registry, as the image names it.
    pub(super) host: &'a str,
    /// What stands before `/v2/`, without a slash at its end.
    base: String,
    mirrored: bool,
}

impl Endpoints {
    pub(super) fn new(config: RegistriesConfig, options: &HttpOptions) -> Result<Self, ConfigError> {
        let mut by_ca_file = BTreeMap::new();
        for path in config.ca_files() {
            by_ca_file.insert(path.clone(), Clients::new(options, certificates(path)?)?);
        }
        Ok(Self {
            listed: Listed::new(&config),
            clients: Clients::new(options, Vec::new())?,
            config,
            by_ca_file,
        })
    }

    pub(super) fn endpoint<'a>(&'a self, image: &'a ImageRef) -> Endpoint<'a> {
        let entry = self.config.host(image.registry_host());
        let mirror = entry.and_then(|e| e.mirror.as_ref());
        let base = match mirror {
            Some(mirror) => mirror.as_str().trim_end_matches('/').to_owned(),
            None if entry.is_some_and(|e| e.plain_http) => format!("http://{}", image.api_host()),
            None => format!("https://{}", image.api_host()),
        };
        let own = entry
            .and_then(|e| e.ca_file.as_ref())
            .and_then(|path| self.by_ca_file.get(path));
        Endpoint {
            clients: own.unwrap_or(&self.clients),
            listed: &self.listed,
            host: image.registry_host(),
            base,
            mirrored: mirror.is_some(),
        }
    }
}

impl Endpoint<'_> {
    /// `kind` is `manifests` or `blobs`.
    pub(super) fn url(&self, image: &ImageRef, kind: &str, reference: &str) -> Result<Url, RegistryError> {
        let text = format!("{}/v2/{}/{kind}/{reference}", self.base, image.repository());
        let mut url = Url::parse(&text).map_err(|e| self.malformed(&format!("{text:?} is no URL: {e}")))?;
        if self.mirrored {
            url.query_pairs_mut().append_pair("ns", self.host);
        }
        Ok(url)
    }

    /// Asks the registry, or its token service.
    pub(super) async fn send(&self, request: &Request, limits: &Limits) -> Result<Reply, RegistryError> {
        exchange(self.clients, &|url| self.listed.contains(url), request, limits)
            .await
            .map_err(|failed| fault::of_silence(&failed))
    }

    /// Tells registries apart, and what is behind a mirror from the mirror itself.
    pub(super) fn key(&self) -> String {
        format!("{} {}", self.base, self.host)
    }

    pub(super) fn is_plain_http(&self) -> bool {
        self.base.starts_with("http://")
    }

    /// Whether the URL's host is the registry's own, at whichever port.
    pub(super) fn is_at_home(&self, url: &Url) -> bool {
        Url::parse(&self.base).is_ok_and(|base| base.host() == url.host())
    }

    pub(super) fn malformed(&self, message: &str) -> RegistryError {
        RegistryError::Malformed {
            host: self.host.to_owned(),
            message: message.to_owned(),
        }
    }
}
