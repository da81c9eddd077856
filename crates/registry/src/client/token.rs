//! Tokens of registries' token services: fetched, and kept until they expire.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, header::HeaderValue};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::{endpoint::Endpoint, fault};
use crate::{Credential, Limits, RegistryError, http::Request};

const MAX_TOKENS: usize = 1024;
/// The token specification's default for `expires_in`.
const DEFAULT_LIFETIME: Duration = Duration::from_mins(1);
/// No token is used in the last part of its life: the clocks may differ and the request takes its time.
const MARGIN: Duration = Duration::from_secs(10);
const MAX_LIFETIME: Duration = Duration::from_hours(1);

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    /// [`Endpoint::key`].
    pub(super) endpoint: String,
    pub(super) scope: String,
    /// Fingerprint of the credential it was given for; empty for none.
    pub(super) credential: String,
}

/// Tokens by what they are for, bounded.
#[derive(Default)]
pub(super) struct Tokens {
    kept: Mutex<HashMap<TokenKey, (HeaderValue, Instant)>>,
    /// Held while a token is fetched.
    turns: Mutex<HashMap<TokenKey, Arc<tokio::sync::Mutex<()>>>>,
}

impl Tokens {
    /// For whoever looks for this token and may have to fetch it: one at a time.
    pub(super) fn turn(&self, key: &TokenKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // As many remain as are fetched now.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(key.clone()).or_default())
    }

    pub(super) fn get(&self, key: &TokenKey, now: Instant) -> Option<HeaderValue> {
        let kept = self.lock();
        kept.get(key)
            .filter(|(_, until)| *until > now)
            .map(|(token, _)| token.clone())
    }

    pub(super) fn put(&self, key: TokenKey, token: HeaderValue, until: Instant, now: Instant) {
        let mut kept = self.lock();
        if kept.len() >= MAX_TOKENS {
            kept.retain(|_, (_, until)| *until > now);
        }
        if kept.len() >= MAX_TOKENS
            && let Some(oldest) = kept
                .iter()
                .min_by_key(|(_, (_, until))| *until)
                .map(|(key, _)| key.clone())
        {
            kept.remove(&oldest);
        }
        kept.insert(key, (token, until));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenKey, (HeaderValue, Instant)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct TokenReply {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Where a registry has tokens fetched, and for what.
pub(super) struct Service<'a> {
    /// The URL.
    pub(super) realm: &'a str,
    /// What it calls the registry.
    pub(super) name: Option<&'a str>,
    /// What the token is to allow.
    pub(super) scope: &'a str,
}

/// Fetches a token: with GET and perhaps a password, or with POST for an identity token (OAuth 2.0).
///
/// Gives the Authorization header and how long it may be used.
pub(super) async fn fetch(
    endpoint: &Endpoint<'_>,
    service: &Service<'_>,
    credential: Option<&Credential>,
    limits: &Limits,
) -> Result<(HeaderValue, Duration), RegistryError> {
    let url = service_url(endpoint, service.realm, credential.is_some())?;
    let mut fields = vec![("scope", service.scope.to_owned())];
    fields.extend(service.name.map(|s| ("service", s.to_owned())));
    let request = if let Some(Credential::IdentityToken { token }) = credential {
        fields.push(("grant_type", "refresh_token".to_owned()));
        fields.push(("client_id", "larder".to_owned()));
        fields.push(("refresh_token", token.clone()));
        Request {
            form: Some(fields),
            ..Request::new(Method::POST, url)
        }
    } else {
        let mut request = Request::new(Method::GET, url);
        request.url.query_pairs_mut().extend_pairs(&fields);
        request.authorization = credential.and_then(basic);
        request
    };
    let reply = endpoint.send(&request, limits).await?;
    let secrets = credential.map(Credential::secrets).unwrap_or_default();
    if !reply.status.is_success() {
        return Err(fault::of_token_service(endpoint, &reply, &secrets));
    }
    // The text of a serde error may quote what it found: the token.
    let parsed: TokenReply = serde_json::from_slice(&reply.body)
        .map_err(|_| endpoint.malformed("its token service does not answer with a token"))?;
    let token = parsed.token.or(parsed.access_token).filter(|t| !t.is_empty());
    let header = token.and_then(|t| HeaderValue::from_str(&format!("Bearer {t}")).ok());
    let mut header = header.ok_or_else(|| endpoint.malformed("its token service answers with no token"))?;
    header.set_sensitive(true);
    let lifetime = parsed.expires_in.map_or(DEFAULT_LIFETIME, Duration::from_secs);
    Ok((header, lifetime.min(MAX_LIFETIME).saturating_sub(MARGIN)))
}

/// The token service's URL, if it may be asked so.
///
/// Registries have their token services elsewhere (Docker Hub at `auth.docker.io`), and containerd and docker give their
/// credentials to whatever host a challenge names. So does this, where the challenge came from the registry itself over
/// HTTPS and the service is asked over HTTPS too. A challenge that came over plain HTTP may be anybody's: what it names
/// gets credentials only at the registry's own host.
fn service_url(endpoint: &Endpoint<'_>, realm: &str, with_credential: bool) -> Result<Url, RegistryError> {
    let url = Url::parse(realm)
        .map_err(|e| endpoint.malformed(&format!("its token service {realm:?} is no URL: {e}")))?;
    match url.scheme() {
        "https" => {}
        "http" if endpoint.is_plain_http() => {}
        _ => {
            return Err(endpoint.malformed(&format!("its token service {realm:?} is not asked over HTTPS")));
        }
    }
    if with_credential && endpoint.is_plain_http() && !endpoint.is_at_home(&url) {
        let service = url.host_str().unwrap_or_default();
        return Err(RegistryError::Unauthorized {
            message: format!(
                "{service}, the token service, gets no credentials: {} is asked over plain HTTP",
                endpoint.host
            ),
        });
    }
    Ok(url)
}

/// The Authorization header for user and password.
pub(super) fn basic(credential: &Credential) -> Option<HeaderValue> {
    let Credential::Basic { username, password } = credential else {
        return None;
    };
    let encoded = STANDARD.encode(format!("{username}:{password}"));
    let mut header = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(scope: &str) -> TokenKey {
        TokenKey {
            endpoint: "https://a.io a.io".into(),
            scope: scope.into(),
            credential: String::new(),
        }
    }

    #[test]
    fn a_token_is_kept_until_it_expires() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let header = HeaderValue::from_static("Bearer t");
        tokens.put(key("x"), header.clone(), now + Duration::from_secs(50), now);
        assert_eq!(tokens.get(&key("x"), now + Duration::from_secs(49)), Some(header));
        assert_eq!(tokens.get(&key("x"), now + Duration::from_secs(50)), None);
        assert_eq!(tokens.get(&key("y"), now), None);
    }

    #[test]
    fn the_number_of_tokens_is_bounded() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        for i in 0..MAX_TOKENS as u64 + 10 {
            let until = now + Duration::from_secs(100 + i);
            tokens.put(
                key(&i.to_string()),
                HeaderValue::from_static("Bearer t"),
                until,
                now,
            );
        }
        assert_eq!(tokens.lock().len(), MAX_TOKENS);
        // Those that end first went.
        assert_eq!(tokens.get(&key("9"), now), None);
        assert!(tokens.get(&key("10"), now).is_some());
    }
}
