//! The connections: one client for every way of dialling.

use std::{path::Path, sync::Arc, time::Duration};

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Certificate, Client, dns::Resolve, redirect};
use url::Url;

use super::{FetchError, HttpOptions, error::root_cause, guard::Guard};
use crate::ConfigError;

/// How long a connection is kept for the next request.
const IDLE: Duration = Duration::from_mins(1);

/// Clients that trust the same authorities.
#[derive(Debug)]
pub(crate) struct Clients {
    strict: (Client, Guard),
    /// For hosts that are listed with `allowPrivate`. Connections of its own, so that what one may reach is never
    /// reached over the other's.
    listed: (Client, Guard),
    proxied: Option<(Client, Matcher)>,
}

impl Clients {
    /// `authorities` are trusted beside the public ones and those of the options.
    pub(crate) fn new(options: &HttpOptions, mut authorities: Vec<Certificate>) -> Result<Self, ConfigError> {
        // An error says that a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        if let Some(path) = &options.ca_file {
            authorities.extend(certificates(path)?);
        }
        let guarded = |listed| {
            let guard = Guard::new(options.policy.clone(), listed);
            let builder = builder(options, &authorities, Arc::new(guard.clone())).no_proxy();
            Ok::<_, ConfigError>((build(builder)?, guard))
        };
        let proxied = match options.proxies.matcher() {
            Some(matcher) => {
                let (proxies, names) = options.proxies.for_client()?;
                let mut builder = builder(options, &authorities, Arc::new(names));
                for proxy in proxies {
                    builder = builder.proxy(proxy);
                }
                Some((build(builder)?, matcher))
            }
            None => None,
        };
        Ok(Self {
            strict: guarded(false)?,
            listed: guarded(true)?,
            proxied,
        })
    }

    /// The client for a URL, if it may be contacted as far as that can be seen before its name is resolved.
    pub(super) async fn choose(&self, url: &Url, listed: bool) -> Result<&Client, FetchError> {
        let (client, guard) = if listed { &self.listed } else { &self.strict };
        guard.check(url)?;
        let uri = url.as_str().parse().ok();
        match (&self.proxied, uri) {
            (Some((proxied, matcher)), Some(uri)) if matcher.intercept(&uri).is_some() => {
                guard.check_for_proxy(url).await?;
                Ok(proxied)
            }
            _ => Ok(client),
        }
    }
}

fn builder<R: Resolve + 'static>(
    options: &HttpOptions,
    authorities: &[Certificate],
    resolver: Arc<R>,
) -> reqwest::ClientBuilder {
    let builder = Client::builder()
        .user_agent(concat!("larder/", env!("CARGO_PKG_VERSION")))
        // Followed by hand: the rules for credentials and addresses are our own.
        .redirect(redirect::Policy::none())
        .dns_resolver(resolver)
        .pool_idle_timeout(IDLE)
        .connect_timeout(options.connect_timeout);
    authorities
        .iter()
        .cloned()
        .fold(builder, reqwest::ClientBuilder::add_root_certificate)
}

fn build(builder: reqwest::ClientBuilder) -> Result<Client, ConfigError> {
    builder.build().map_err(|e| ConfigError::Client(root_cause(&e)))
}

/// The certificates of a PEM file; an error if there are none.
pub(crate) fn certificates(path: &Path) -> Result<Vec<Certificate>, ConfigError> {
    let pem = std::fs::read(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    certificates_of(&pem).map_err(|problem| ConfigError::Certificates {
        path: path.to_owned(),
        problem,
    })
}

/// The certificates of a PEM text; an error, in words, if there are none.
pub(super) fn certificates_of(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let found = Certificate::from_pem_bundle(pem).map_err(|e| root_cause(&e))?;
    if found.is_empty() {
        Err("there are none".to_owned())
    } else {
        Ok(found)
    }
}
