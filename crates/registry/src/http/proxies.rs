//! `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.

use std::fmt;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{
    Proxy,
    dns::{Addrs, Name, Resolve, Resolving},
};
use url::Url;

use super::{
    error::{Unresolved, root_cause},
    guard::look_up,
};
use crate::ConfigError;

/// The proxies in use; none by default. Debug shows no password of theirs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For http URLs.
    pub http: Option<String>,
    /// For https URLs.
    pub https: Option<String>,
    /// Hosts, domains, addresses and ranges that are contacted without, separated by commas; `*` for all.
    pub none: String,
}

impl Proxies {
    /// Reads variables with `get`, each by its name in capitals and then in small letters; `ALL_PROXY` serves both.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| {
            let found = get(name).or_else(|| get(&name.to_ascii_lowercase()));
            found.filter(|value| !value.is_empty())
        };
        Self {
            http: get("HTTP_PROXY").or_else(|| get("ALL_PROXY")),
            https: get("HTTPS_PROXY").or_else(|| get("ALL_PROXY")),
            none: get("NO_PROXY").unwrap_or_default(),
        }
    }

    /// Whose proxy, if any, contacts a URL.
    pub(super) fn matcher(&self) -> Option<Matcher> {
        if self.http.is_none() && self.https.is_none() {
            return None;
        }
        let text = |proxy: &Option<String>| proxy.clone().unwrap_or_default();
        let matcher = Matcher::builder()
            .http(text(&self.http))
            .https(text(&self.https))
            .no(self.none.clone());
        Some(matcher.build())
    }

    /// For reqwest, which is to ask them for everything: exceptions go to another client.
    pub(super) fn for_client(&self) -> Result<(Vec<Proxy>, ProxyNames), ConfigError> {
        type Make = fn(Url) -> reqwest::Result<Proxy>;
        let (mut proxies, mut names) = (Vec::new(), ProxyNames::default());
        for (text, make) in [
            (&self.http, Proxy::http as Make),
            (&self.https, Proxy::https as Make),
        ] {
            let Some(text) = text else { continue };
            let url = parse(text)?;
            names.0.extend(url.host_str().map(str::to_owned));
            proxies.push(make(url).map_err(|e| ConfigError::Client(root_cause(&e)))?);
        }
        Ok((proxies, names))
    }
}

/// The text may hold a password and is not repeated.
fn parse(text: &str) -> Result<Url, ConfigError> {
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url = Url::parse(&with_scheme).ok();
    url.filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host())
        .ok_or_else(|| ConfigError::Client("a proxy is not an http or https URL".to_owned()))
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("none", &self.none)
            .finish()
    }
}

/// Resolves the proxies' own names and no other: a client of theirs dials nobody else.
#[derive(Clone, Debug, Default)]
pub(super) struct ProxyNames(Vec<String>);

impl Resolve for ProxyNames {
    fn resolve(&self, name: Name) -> Resolving {
        let known = self.0.iter().any(|n| n.eq_ignore_ascii_case(name.as_str()));
        Box::pin(async move {
            if !known {
                return Err(Unresolved("not the name of a proxy".to_owned()).into());
            }
            let found = look_up(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from_env(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn proxied(proxies: &Proxies, url: &str) -> bool {
        let uri = url.parse().ok();
        proxies
            .matcher()
            .zip(uri)
            .is_some_and(|(m, uri)| m.intercept(&uri).is_some())
    }

    #[test]
    fn exceptions_are_names_domains_and_ranges() {
        let proxies = read(&[
            ("HTTPS_PROXY", "http://u:p@proxy.example.com:3128"),
            ("no_proxy", "10.77.0.0/16,.svc,registry.example.com"),
        ]);
        let table = [
            ("https://docker.io/v2/", true),
            // No proxy for http is set.
            ("http://docker.io/v2/", false),
            ("https://10.77.0.2:5000/v2/", false),
            ("https://10.78.0.2:5000/v2/", true),
            ("https://registry.default.svc/v2/", false),
            ("https://registry.example.com/v2/", false),
            ("https://xregistry.example.com/v2/", true),
        ];
        for (url, expected) in table {
            assert_eq!(proxied(&proxies, url), expected, "{url}");
        }
        assert!(!format!("{proxies:?}").contains("u:p"));
        let all = read(&[("all_proxy", "proxy:1"), ("NO_PROXY", "")]);
        assert!(proxied(&all, "http://a.io/") && proxied(&all, "https://a.io/"));
        assert_eq!(read(&[]), Proxies::default());
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_its_password() {
        for text in ["socks5://u:p4ss@a.io", "http://", "://p4ss"] {
            let error = read(&[("HTTP_PROXY", text)]).for_client().err();
            let words = error.map(|e| e.to_string()).unwrap_or_default();
            assert!(
                words.contains("a proxy is not") && !words.contains("p4ss"),
                "{words}"
            );
        }
        assert!(read(&[("HTTP_PROXY", "proxy:3128")]).for_client().is_ok());
    }
}
