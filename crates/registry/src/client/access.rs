//! One image's registry asked with one credential, or without: challenges are answered here.

use jiff::Timestamp;
use reqwest::{Method, StatusCode, header::HeaderValue};
use tokio::time::Instant;
use url::Url;

use larder_core::image_ref::ImageRef;

use super::{
    Budget, HttpRegistry,
    challenge::Challenge,
    endpoint::Endpoint,
    fault,
    token::{self, Service, TokenKey},
};
use crate::{
    Credential, RegistryError,
    http::{Reply, Request},
};

pub(super) struct Access<'a> {
    pub(super) registry: &'a HttpRegistry,
    pub(super) endpoint: &'a Endpoint<'a>,
    pub(super) image: &'a ImageRef,
    pub(super) credential: Option<&'a Credential>,
}

impl Access<'_> {
    /// Asks; where the registry then demands a token or password, asks once more with it. `kind` is `manifests` or
    /// `blobs`.
    pub(super) async fn ask(
        &self,
        method: &Method,
        kind: &str,
        reference: &str,
        accept: Option<&'static str>,
    ) -> Result<Reply, RegistryError> {
        let url = self.endpoint.url(self.image, kind, reference)?;
        self.ask_at(method, url, accept).await
    }

    /// The same at a URL of the registry's.
    pub(super) async fn ask_at(
        &self,
        method: &Method,
        url: Url,
        accept: Option<&'static str>,
    ) -> Result<Reply, RegistryError> {
        let host = self.endpoint.key();
        let authorization = match self.registry.known_challenge(&host) {
            Some(challenge) => self.answer(&challenge, true, None).await?,
            None => None,
        };
        let mut request = Request {
            accept: accept.map(HeaderValue::from_static),
            authorization,
            ..Request::new(method.clone(), url)
        };
        let reply = self.send(&request).await?;
        // A host to which the registry redirects has no claim to its credentials.
        if reply.status != StatusCode::UNAUTHORIZED || !reply.at_home {
            return Ok(reply);
        }
        let Some(challenge) = Challenge::from_headers(&reply.headers) else {
            return Ok(reply);
        };
        self.registry.remember_challenge(&host, &challenge);
        let refused = request.authorization.take();
        let authorization = self.answer(&challenge, false, refused.as_ref()).await?;
        if authorization.is_none() || authorization == refused {
            return Ok(reply);
        }
        request.authorization = authorization;
        self.send(&request).await
    }

    /// When it is the registry's turn, and not while it wants to be left alone.
    async fn send(&self, request: &Request) -> Result<Reply, RegistryError> {
        let (key, fingerprint) = (self.endpoint.key(), self.fingerprint());
        let courtesy = &self.registry.courtesy;
        // Held until its "later" is noted: the next in turn has to know it.
        let _turn = courtesy.turn(&key, &fingerprint).await?;
        let reply = self.endpoint.send(request, &self.registry.limits).await?;
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        if reply.at_home
            && let Some(budget) = Budget::from_headers(&reply.headers, now)
        {
            courtesy.told(&key, &fingerprint, self.endpoint.host, budget);
        }
        if reply.status.is_success() {
            return Ok(reply);
        }
        match self.fault(&reply) {
            error @ RegistryError::RateLimited { .. } => Err(courtesy.refused(&key, &fingerprint, error)),
            error if error.retry_after().is_some() => Err(courtesy.refused(&key, &fingerprint, error)),
            _ => Ok(reply),
        }
    }

    /// The Authorization header that a challenge asks for; none where this credential has no answer to it. `refused` is
    /// what the registry did not take; without it a token that is kept will do.
    async fn answer(
        &self,
        challenge: &Challenge,
        remembered: bool,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let Challenge::Bearer {
            realm,
            service,
            scope,
        } = challenge
        else {
            return Ok(self.credential.and_then(token::basic));
        };
        let usual = format!("repository:{}:pull", self.image.repository());
        let (endpoint, credential) = (self.endpoint.key(), self.fingerprint());
        let key = TokenKey {
            endpoint: endpoint.clone(),
            scope: usual.clone(),
            credential: credential.clone(),
        };
        // Whoever comes while a token is fetched waits for it: one 401 to many requests costs one token.
        let turn = self.registry.tokens.turn(&key);
        let _turn = turn.lock().await;
        let kept = self.registry.tokens.get(&key, Instant::now());
        if let Some(token) = kept
            && Some(&token) != refused
        {
            return Ok(Some(token));
        }
        let courtesy = &self.registry.courtesy;
        courtesy.may_ask(&endpoint, &credential)?;
        let service = Service {
            realm,
            name: service.as_deref(),
            // A remembered challenge was made for some other repository.
            scope: scope.as_deref().filter(|_| !remembered).unwrap_or(&usual),
        };
        let now = Instant::now();
        let fetched = token::fetch(self.endpoint, &service, self.credential, &self.registry.limits).await;
        // Its "later" is the registry's, which gives nothing without a token.
        let (header, lifetime) = fetched.map_err(|e| courtesy.refused(&endpoint, &credential, e))?;
        self.registry.tokens.put(key, header.clone(), now + lifetime, now);
        Ok(Some(header))
    }

    /// The error that an unsuccessful answer stands for.
    pub(super) fn fault(&self, reply: &Reply) -> RegistryError {
        let secrets = self.credential.map(Credential::secrets).unwrap_or_default();
        fault::of_registry(self.endpoint, reply, &secrets)
    }

    fn fingerprint(&self) -> String {
        self.credential.map(Credential::fingerprint).unwrap_or_default()
    }
}
