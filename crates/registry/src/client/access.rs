//! One image's registry asked with one credential, or without: challenges are answered here.

use reqwest::{Method, StatusCode, header::HeaderValue};
use tokio::time::Instant;

use larder_core::image_ref::ImageRef;

use super::{
    HttpRegistry,
    challenge::Challenge,
    endpoint::Endpoint,
    fault,
    send::{Reply, Request, send},
    token::{self, TokenKey},
};
use crate::{Credential, RegistryError};

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
        let host = self.endpoint.key();
        let authorization = match self.registry.known_challenge(&host) {
            Some(challenge) => self.answer(&challenge, true).await?,
            None => None,
        };
        let mut request = Request {
            method: method.clone(),
            url,
            accept,
            authorization,
            form: None,
        };
        let reply = send(self.endpoint.client, &request).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        let Some(challenge) = Challenge::from_headers(&reply.headers) else {
            return Ok(reply);
        };
        self.registry.remember_challenge(&host, &challenge);
        let authorization = self.answer(&challenge, false).await?;
        if authorization.is_none() || authorization == request.authorization {
            return Ok(reply);
        }
        request.authorization = authorization;
        send(self.endpoint.client, &request).await
    }

    /// The Authorization header that a challenge asks for; none where this credential has no answer to it.
    async fn answer(
        &self,
        challenge: &Challenge,
        use_kept: bool,
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
        let key = TokenKey {
            endpoint: self.endpoint.key(),
            scope: usual.clone(),
            credential: self.credential.map(Credential::fingerprint).unwrap_or_default(),
        };
        let now = Instant::now();
        if use_kept && let Some(token) = self.registry.tokens.get(&key, now) {
            return Ok(Some(token));
        }
        // A remembered challenge was made for some other repository.
        let scope = scope.as_deref().filter(|_| !use_kept).unwrap_or(&usual);
        let (header, lifetime) =
            token::fetch(self.endpoint, realm, service.as_deref(), scope, self.credential).await?;
        self.registry.tokens.put(key, header.clone(), now + lifetime, now);
        Ok(Some(header))
    }

    /// The error that an unsuccessful answer stands for.
    pub(super) fn fault(&self, reply: &Reply) -> RegistryError {
        let secrets = self.credential.map(Credential::secrets).unwrap_or_default();
        fault::of_registry(self.endpoint, reply, &secrets)
    }
}
