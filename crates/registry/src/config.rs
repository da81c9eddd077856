//! The file of `--registries-config`: how registry hosts are reached where not by HTTPS at their own name.
//!
//! ```yaml
//! docker.io:
//!   mirror: http://10.77.0.2:5000
//! 10.77.0.3:5000:
//!   plainHTTP: true
//! registry.example.com:
//!   caFile: /etc/larder/registry-ca.pem
//! 127.0.0.1:5000:
//!   allowPrivate: true
//! "*":                      # every host without an entry of its own
//!   mirror: https://mirror.example.com/images
//! ```

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use larder_core::image_ref::ImageRef;
use serde_json::Value;
use url::Url;

/// How one host is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryHost {
    /// Everything is asked of `<mirror>/v2/…?ns=<host>` instead, as containerd does; there is no way back to the host.
    pub mirror: Option<Url>,
    /// HTTP instead of HTTPS.
    pub plain_http: bool,
    /// PEM file with certificates of authorities to trust beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// It, or its mirror, may be at an address that is otherwise not contacted: loopback, link-local, the API server's.
    pub allow_private: bool,
}

/// Registry hosts, as references name them, with how each is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistriesConfig {
    hosts: BTreeMap<String, RegistryHost>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file, or a `caFile`, cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not YAML, or not a map of maps.
    #[error("registries configuration: {0}")]
    Yaml(#[from] Box<serde_saphyr::Error>),
    /// A key that is neither a registry host nor `*`.
    #[error("registries configuration: {host:?} is not a registry host")]
    Host {
        /// The key.
        host: String,
    },
    /// A field of a host.
    #[error("registries configuration: {host:?}: {field}: {problem}")]
    Field {
        /// The host.
        host: String,
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A `caFile` without usable certificates.
    #[error("{path} holds no certificates in PEM form: {problem}")]
    Certificates {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
}

const ANY_HOST: &str = "*";

impl RegistriesConfig {
    /// Reads the file. `caFile`s are read later, by [`HttpRegistry::new`](crate::HttpRegistry::new).
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// Parses the file's text. An empty one configures nothing.
    pub fn parse(yaml: &str) -> Result<Self, ConfigError> {
        type File = Option<BTreeMap<String, Option<BTreeMap<String, Value>>>>;
        let file: File = serde_saphyr::from_str(yaml).map_err(Box::new)?;
        let mut hosts = BTreeMap::new();
        for (host, fields) in file.unwrap_or_default() {
            if host != ANY_HOST && !is_registry_host(&host) {
                return Err(ConfigError::Host { host });
            }
            let entry = parse_host(&host, fields.unwrap_or_default())?;
            hosts.insert(host, entry);
        }
        Ok(Self { hosts })
    }

    /// Sets how one host is reached; `*` stands for all without an entry of their own.
    #[must_use]
    pub fn with(mut self, host: impl Into<String>, how: RegistryHost) -> Self {
        self.hosts.insert(host.into(), how);
        self
    }

    /// The host's entry, or that of `*`.
    pub fn host(&self, host: &str) -> Option<&RegistryHost> {
        self.hosts.get(host).or_else(|| self.hosts.get(ANY_HOST))
    }

    /// Every entry, that of `*` with None.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Option<&str>, &RegistryHost)> {
        self.hosts
            .iter()
            .map(|(host, how)| (Some(host.as_str()).filter(|h| *h != ANY_HOST), how))
    }

    /// Every `caFile` once.
    pub(crate) fn ca_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.hosts.values().filter_map(|h| h.ca_file.as_ref())
    }
}

/// Whether references name a registry so.
fn is_registry_host(host: &str) -> bool {
    ImageRef::parse(&format!("{host}/x/x")).is_ok_and(|image| image.registry_host() == host)
}

fn parse_host(host: &str, fields: BTreeMap<String, Value>) -> Result<RegistryHost, ConfigError> {
    let mut entry = RegistryHost::default();
    for (field, value) in fields {
        let wrong = |problem: &str| ConfigError::Field {
            host: host.to_owned(),
            field: field.clone(),
            problem: problem.to_owned(),
        };
        match (field.as_str(), value) {
            ("mirror", Value::String(text)) => {
                entry.mirror = Some(parse_mirror(&text).map_err(|p| wrong(&p))?);
            }
            ("mirror", _) => return Err(wrong("a URL is expected")),
            ("plainHTTP", Value::Bool(plain)) => entry.plain_http = plain,
            ("caFile", Value::String(path)) if !path.is_empty() => entry.ca_file = Some(path.into()),
            ("caFile", _) => return Err(wrong("a path is expected")),
            ("allowPrivate", Value::Bool(allow)) => entry.allow_private = allow,
            ("plainHTTP" | "allowPrivate", _) => return Err(wrong("true or false is expected")),
            _ => {
                return Err(wrong(
                    "unknown; known are mirror, plainHTTP, caFile and allowPrivate",
                ));
            }
        }
    }
    if entry.plain_http && entry.mirror.is_some() {
        return Err(ConfigError::Field {
            host: host.to_owned(),
            field: "plainHTTP".to_owned(),
            problem: "has no meaning beside a mirror, whose URL says http or https".to_owned(),
        });
    }
    Ok(entry)
}

fn parse_mirror(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| e.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("an http or https URL is expected".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong here: they come from pull secrets".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a URL without query and fragment is expected".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_hosts_and_the_rest() {
        let config = RegistriesConfig::parse(
            "docker.io:\n  mirror: http://10.77.0.2:5000\n10.77.0.3:5000:\n  plainHTTP: true\n\
             registry.example.com:\n  caFile: /etc/ca.pem\nquay.io:\n\"*\":\n  mirror: https://m.example.com/images/\n",
        )
        .unwrap();
        let mirror = |host: &str| {
            config
                .host(host)
                .and_then(|h| h.mirror.as_ref())
                .map(Url::to_string)
        };
        assert_eq!(mirror("docker.io").as_deref(), Some("http://10.77.0.2:5000/"));
        assert_eq!(
            mirror("ghcr.io").as_deref(),
            Some("https://m.example.com/images/")
        );
        assert_eq!(mirror("quay.io"), None);
        assert!(config.host("10.77.0.3:5000").unwrap().plain_http);
        assert_eq!(
            config.ca_files().collect::<Vec<_>>(),
            [&PathBuf::from("/etc/ca.pem")]
        );
        assert_eq!(RegistriesConfig::default().host("docker.io"), None);
    }

    #[test]
    fn an_empty_file_configures_nothing() {
        for text in ["", "# only a comment\n", "{}"] {
            assert_eq!(
                RegistriesConfig::parse(text).unwrap(),
                RegistriesConfig::default()
            );
        }
    }

    #[test]
    fn refusals_name_host_and_field() {
        let table = [
            (
                "a.io: {plainHttp: true}",
                "\"a.io\": plainHttp: unknown; known are mirror, plainHTTP, caFile and allowPrivate",
            ),
            (
                "a.io: {plainHTTP: 1}",
                "\"a.io\": plainHTTP: true or false is expected",
            ),
            (
                "a.io: {allowPrivate: 'yes'}",
                "\"a.io\": allowPrivate: true or false is expected",
            ),
            ("a.io: {mirror: 1}", "\"a.io\": mirror: a URL is expected"),
            (
                "a.io: {mirror: mirror.example.com}",
                "\"a.io\": mirror: relative URL without a base",
            ),
            (
                "a.io: {mirror: 'ftp://x.io'}",
                "\"a.io\": mirror: an http or https URL is expected",
            ),
            (
                "a.io: {mirror: 'https://u:p@x.io'}",
                "\"a.io\": mirror: credentials do not belong here: they come from pull secrets",
            ),
            (
                "a.io: {mirror: 'https://x.io?a=b'}",
                "\"a.io\": mirror: a URL without query and fragment is expected",
            ),
            ("a.io: {caFile: ''}", "\"a.io\": caFile: a path is expected"),
            (
                "a.io: {plainHTTP: true, mirror: 'https://x.io'}",
                "\"a.io\": plainHTTP: has no meaning beside a mirror, whose URL says http or https",
            ),
            ("https://a.io: {}", "\"https://a.io\" is not a registry host"),
            ("a.io/team: {}", "\"a.io/team\" is not a registry host"),
            (
                "index.docker.io: {}",
                "\"index.docker.io\" is not a registry host",
            ),
        ];
        for (yaml, problem) in table {
            let error = RegistriesConfig::parse(yaml).unwrap_err().to_string();
            assert_eq!(error, format!("registries configuration: {problem}"));
        }
        for yaml in ["[]", "a.io: true", "a: {", "a.io: {}\na.io: {}"] {
            assert!(
                matches!(RegistriesConfig::parse(yaml), Err(ConfigError::Yaml(_))),
                "{yaml}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn arbitrary_text_never_panics(text in "[a-z.:*{}\\[\\]\"'\n &!|>-]{0,60}|.{0,40}") {
            let _ = RegistriesConfig::parse(&text);
        }
    }
}
