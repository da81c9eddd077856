//! The credentials of one source: read by name when it is asked, and kept nowhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use larder_api::ImageCache;
use larder_api::image_source::Source;
use larder_api::names::HTTP_SOURCE_SECRET;
use larder_core::message::redact;
use larder_registry::Keyring;
use larder_registry::sources::{SourceError, SourceReason};
use url::{Position, Url};

use super::fetch::Failure;
use crate::api_error::is_not_found;
use crate::imagecache::read_secrets;

/// The Authorization header of an http source that names a secret.
pub(super) async fn authorization(
    client: &Client,
    cache: &ImageCache,
    source: &Source,
) -> Result<Option<String>, Failure> {
    let Some(http) = &source.http else {
        return Ok(None);
    };
    let Some(name) = &http.secret_name else {
        return Ok(None);
    };
    let api: Api<Secret> = Api::namespaced(client.clone(), &cache.namespace().unwrap_or_default());
    let refused = |words: String| Failure::from(SourceError::new(SourceReason::Unauthorized, words));
    let secret = api.get(name).await.map_err(|error| {
        refused(match &error {
            error if is_not_found(error) => format!("secret {name} does not exist"),
            kube::Error::Api(status) => {
                format!("secret {name} cannot be read: {}", redact(&status.message))
            }
            _ => format!("secret {name} cannot be read: no answer from the API server"),
        })
    })?;
    let header = header(&secret, &http.url);
    header
        .map(Some)
        .map_err(|words| refused(format!("secret {name} {words}")))
}

/// The pull secrets of the cache, for a source that asks a registry.
pub(super) async fn keyring(client: &Client, cache: &ImageCache, source: &Source) -> Keyring {
    match source.registry_tags {
        Some(_) => read_secrets(client, cache).await.keyring,
        None => Keyring::default(),
    }
}

/// Whoever may write an `ImageCache` chooses the URL. That a secret names its host itself keeps them from sending it
/// elsewhere, and its type from sending secrets that are for something else.
fn header(secret: &Secret, url: &str) -> Result<String, String> {
    if secret.type_.as_deref() != Some(HTTP_SOURCE_SECRET) {
        return Err(format!("is not of type {HTTP_SOURCE_SECRET}"));
    }
    let value = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?;
        std::str::from_utf8(&bytes.0).ok().map(str::trim)
    };
    let url = Url::parse(url).map_err(|_| "is for a source whose url is none".to_owned())?;
    let host = &url[Position::BeforeHost..Position::AfterPort];
    let named = value("host").ok_or("has no key host")?;
    // In clear text only where the secret itself says so: whoever may write the URL need not be allowed to read it.
    let (scheme, named) = match named.split_once("://") {
        None => ("https", named),
        Some((scheme, named)) if ["http", "https"].contains(&scheme) => (scheme, named),
        Some((scheme, _)) => {
            return Err(format!(
                "has a key host with the scheme {scheme}: http or https is expected"
            ));
        }
    };
    if !named.eq_ignore_ascii_case(host) {
        return Err(format!("is not for {host}: its key host names another"));
    }
    if url.scheme() != scheme {
        let (is, named) = (url.scheme(), format!("{}://{host}", url.scheme()));
        return Err(format!(
            "is for {scheme}, the source's url is {is}: its key host would have to be {named}"
        ));
    }
    match (value("token"), value("username"), value("password")) {
        (Some(token), None, None) => Ok(format!("Bearer {token}")),
        (None, Some(user), Some(password)) => {
            Ok(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        }
        _ => Err("must have either the key token, or the keys username and password".into()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(kind: &str, data: &[(&str, &str)]) -> Secret {
        let data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        Secret {
            type_: Some(kind.into()),
            data: Some(data.collect()),
            ..Secret::default()
        }
    }

    #[test]
    fn a_secret_goes_only_where_it_says() {
        let token = |host: &str| secret(HTTP_SOURCE_SECRET, &[("host", host), ("token", "t0p\n")]);
        let url = "https://lists.example:8443/a?b";
        assert_eq!(header(&token("lists.example:8443"), url), Ok("Bearer t0p".into()));
        assert_eq!(
            header(&token("Lists.Example:8443\n"), url),
            Ok("Bearer t0p".into())
        );
        assert_eq!(
            header(&token("lists.example"), "https://lists.example:443/x"),
            Ok("Bearer t0p".into()),
            "the port that goes without saying"
        );
        for host in ["lists.example", "example", "", "evil.example:8443"] {
            assert!(header(&token(host), url).is_err(), "{host:?}");
        }
        let basic = [("host", "h"), ("username", "u"), ("password", "p")];
        assert_eq!(
            header(&secret(HTTP_SOURCE_SECRET, &basic), "https://h/x"),
            Ok("Basic dTpw".into())
        );
    }

    #[test]
    fn a_secret_goes_in_clear_text_only_if_it_says_so() {
        let token = |host: &str| secret(HTTP_SOURCE_SECRET, &[("host", host), ("token", "t0p")]);
        for (host, url, sent) in [
            ("lists.example", "https://lists.example/x", true),
            ("lists.example", "http://lists.example/x", false),
            ("lists.example:8080", "http://lists.example:8080/x", false),
            ("http://lists.example:8080", "http://lists.example:8080/x", true),
            ("http://lists.example", "http://lists.example/x", true),
            ("http://lists.example", "https://lists.example/x", false),
            ("https://lists.example", "https://lists.example/x", true),
            ("https://lists.example", "http://lists.example/x", false),
            ("http://lists.example", "http://evil.example/x", false),
            ("ftp://lists.example", "https://lists.example/x", false),
        ] {
            assert_eq!(header(&token(host), url).is_ok(), sent, "{host} {url}");
        }
        let refused = header(&token("lists.example"), "http://lists.example/x");
        assert_eq!(
            refused,
            Err(
                "is for https, the source's url is http: its key host would have to be http://lists.example"
                    .into()
            )
        );
    }

    #[test]
    fn other_secrets_are_not_sent() {
        let data = [("host", "h"), ("token", "t")];
        for kind in ["Opaque", "kubernetes.io/service-account-token", ""] {
            let refused = header(&secret(kind, &data), "https://h/x");
            assert_eq!(
                refused,
                Err("is not of type larder.dev/http-source".into()),
                "{kind}"
            );
        }
        for data in [
            &[("token", "t")][..],
            &[("host", "h")],
            &[("host", "h"), ("username", "u")],
            &[("host", "h"), ("token", "t"), ("password", "p")],
        ] {
            let refused = header(&secret(HTTP_SOURCE_SECRET, data), "https://h/x");
            assert!(
                refused.is_err_and(|words| !words.contains('t') || !words.contains("Bearer")),
                "{data:?}"
            );
        }
    }
}
