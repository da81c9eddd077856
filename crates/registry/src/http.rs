//! HTTP to addresses that tenants choose: registries, their token services, and sources of image lists.
//!
//! One dialer for all of it ([`address`](crate::address) decides, every connection asks), bounded in time, size and
//! redirects.

mod clients;
mod error;
mod exchange;
mod guard;
mod listed;
mod proxies;
mod retry_after;

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use reqwest::{
    Certificate, Method, StatusCode,
    header::{ETAG, HeaderValue},
};
use url::Url;

use crate::{ConfigError, RegistriesConfig};

use clients::certificates_of;
pub(crate) use clients::{Clients, certificates};
pub(crate) use exchange::{Failed, Reply, Request, exchange};
pub(crate) use listed::Listed;
pub(crate) use retry_after::retry_after;

pub use error::FetchError;
pub use exchange::Limits;
pub use guard::SharedPolicy;
pub use proxies::Proxies;

/// How connections are made.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// For a connection, TLS included. 5 s by default.
    pub connect_timeout: Duration,
    /// PEM file with certificates of authorities to trust beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// Through whom. Nobody by default.
    pub proxies: Proxies,
    /// Whom not to contact.
    pub policy: SharedPolicy,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            ca_file: None,
            proxies: Proxies::default(),
            policy: SharedPolicy::default(),
        }
    }
}

/// Gets documents from addresses that tenants choose.
#[derive(Debug)]
pub struct SafeHttp {
    clients: Clients,
    listed: Listed,
}

/// A document to get.
#[derive(Clone, Debug)]
pub struct Get {
    url: Url,
    accept: Option<HeaderValue>,
    authorization: Option<HeaderValue>,
    etag: Option<HeaderValue>,
}

impl Get {
    /// Without credentials, whatever the URL says.
    pub fn new(mut url: Url) -> Self {
        // They would be sent: a URL is no place for them, being shown everywhere.
        let _ = (url.set_username(""), url.set_password(None));
        Self {
            url,
            accept: None,
            authorization: None,
            etag: None,
        }
    }

    /// Media types, as in `application/json, text/plain`.
    #[must_use]
    pub fn accept(mut self, types: &'static str) -> Self {
        self.accept = Some(HeaderValue::from_static(types));
        self
    }

    /// The value of the Authorization header, which goes to the URL's own host alone. White space around it does not
    /// count; one that is no header is left out.
    #[must_use]
    pub fn authorization(mut self, value: &str) -> Self {
        self.authorization = HeaderValue::from_str(value.trim()).ok().map(|mut header| {
            header.set_sensitive(true);
            header
        });
        self
    }

    /// Asks for the document only if it is no longer this version: [`Fetched::etag`] of the last time.
    #[must_use]
    pub fn unless(mut self, etag: &str) -> Self {
        self.etag = HeaderValue::from_str(etag).ok();
        self
    }
}

/// A document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its bytes; none where it has not changed (304).
    pub body: Option<Vec<u8>>,
    /// Its version, if the server told one.
    pub etag: Option<String>,
}

impl SafeHttp {
    /// Sets up clients and reads the CA file. Uses ring for TLS where the process has chosen nothing.
    pub fn new(options: &HttpOptions) -> Result<Self, ConfigError> {
        Self::with(options, Vec::new())
    }

    /// The same, trusting the certificates of a PEM text beside those of the options. Fails where there are none in it.
    pub fn trusting(options: &HttpOptions, pem: &[u8]) -> Result<Self, ConfigError> {
        Self::with(options, certificates_of(pem).map_err(ConfigError::Client)?)
    }

    fn with(options: &HttpOptions, authorities: Vec<Certificate>) -> Result<Self, ConfigError> {
        Ok(Self {
            clients: Clients::new(options, authorities)?,
            listed: Listed::default(),
        })
    }

    /// The same; the addresses of hosts that are listed with `allowPrivate`, at the port of the registry, are not judged.
    #[must_use]
    pub fn listed_in(mut self, config: &RegistriesConfig) -> Self {
        self.listed = Listed::new(config);
        self
    }

    /// Gets a document. Answers other than 200 and, to [`Get::unless`], 304 are [`FetchError::Status`].
    pub async fn get(&self, get: &Get, limits: &Limits) -> Result<Fetched, FetchError> {
        let request = Request {
            accept: get.accept.clone(),
            if_none_match: get.etag.clone(),
            authorization: get.authorization.clone(),
            ..Request::new(Method::GET, get.url.clone())
        };
        let reply = exchange(&self.clients, &|url| self.listed.contains(url), &request, limits)
            .await
            .map_err(|failed| failed.error)?;
        let etag = reply.headers.get(ETAG).or(get.etag.as_ref());
        let etag = etag.and_then(|e| e.to_str().ok()).map(str::to_owned);
        match reply.status {
            StatusCode::OK => Ok(Fetched {
                // That of another version does not stand for this one.
                etag: etag.filter(|_| reply.headers.contains_key(ETAG)),
                body: Some(reply.body),
            }),
            StatusCode::NOT_MODIFIED if get.etag.is_some() => Ok(Fetched { body: None, etag }),
            status => Err(FetchError::Status {
                status,
                retry_after: retry_after(&reply.headers, SystemTime::now()),
            }),
        }
    }
}
