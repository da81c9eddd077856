//! The fake registry's side of the distribution protocol, when nothing goes wrong.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;

use super::{
    auth::Auth,
    fake::{LogEntry, Shared, State},
    fault::Fault,
};

/// Header of a manifest's or blob's digest.
pub(super) const DIGEST: &str = "docker-content-digest";

/// What was asked.
pub(super) struct Asked<'a> {
    pub(super) media_type: &'a str,
    /// If-None-Match.
    pub(super) known: Option<&'a HeaderValue>,
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) authorization: Option<&'a str>,
    pub(super) body: Bytes,
}

impl Asked<'_> {
    pub(super) fn log_entry(&self) -> LogEntry {
        let scheme = |a: &str| a.split(' ').next().unwrap_or_default().to_owned();
        LogEntry {
            method: self.method.to_string(),
            path: self.path.to_owned(),
            query: self.query.to_owned(),
            authorization: self.authorization.map(scheme),
        }
    }

    pub(super) fn answer(&self, shared: &Shared) -> io::Result<Response<Full<Bytes>>> {
        if self.path == "/token" {
            return Ok(self.token(shared));
        }
        let Some(rest) = self.path.strip_prefix("/v2/") else {
            return Ok(error(StatusCode::NOT_FOUND, "UNSUPPORTED", "not found"));
        };
        // The last two parts are kind and reference; the repository is all before them.
        let mut parts = rest.rsplitn(3, '/');
        let (reference, kind) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let before = parts.next().unwrap_or_default();
        let (repository, kind) = match (before.strip_suffix("/blobs"), kind) {
            (Some(repository), "uploads") => (repository, "uploads"),
            _ => (before, kind),
        };
        if let Some(refusal) = self.refusal(shared, repository)? {
            return Ok(refusal);
        }
        let mut state = shared.state();
        match (self.method.as_str(), kind) {
            ("GET", "") => Ok(Response::new(Full::from("{}"))),
            ("GET" | "HEAD", "manifests") => state
                .manifest(repository, reference)
                .map(|response| self.unless_known(response)),
            ("GET", "tags") if reference == "list" => self.tags(&state, repository),
            ("PUT", "manifests") => {
                let digest =
                    state
                        .store
                        .put_manifest(repository, reference, self.media_type, self.body.clone());
                created(&digest)
            }
            ("GET" | "HEAD", "blobs") => state.blob(repository, reference),
            ("POST", "uploads") => {
                let id = state.store.begin_upload(repository);
                let location = format!("/v2/{repository}/blobs/uploads/{id}?_state=x");
                let response = Response::builder()
                    .status(StatusCode::ACCEPTED)
                    .header(header::LOCATION, location);
                response.body(Full::default()).map_err(io::Error::other)
            }
            ("PUT", "uploads") if state.store.knows_upload(repository, reference) => {
                let digest = state.store.put_blob(repository, self.body.clone());
                if self.parameter("digest").as_deref() == Some(&digest) {
                    return created(&digest);
                }
                Ok(error(
                    StatusCode::BAD_REQUEST,
                    "DIGEST_INVALID",
                    "provided digest did not match uploaded content",
                ))
            }
            _ => Ok(error(
                StatusCode::METHOD_NOT_ALLOWED,
                "UNSUPPORTED",
                "the operation is unsupported",
            )),
        }
    }

    /// At most `n` tags after `last`, and where the next ones are.
    fn tags(&self, state: &State, repository: &str) -> io::Result<Response<Full<Bytes>>> {
        let Some(mut tags) = state.store.tags(repository) else {
            let words = "repository name not known to registry";
            return Ok(error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", words));
        };
        if let Some(last) = self.parameter("last") {
            tags.retain(|tag| *tag > last);
        }
        let mut response = Response::builder().header(header::CONTENT_TYPE, "application/json");
        let page = self.parameter("n").and_then(|n| n.parse().ok());
        if let Some(page) = page.filter(|page: &usize| *page < tags.len()) {
            tags.truncate(page);
            let last = tags.last().map_or("", String::as_str);
            let next = format!("</v2/{repository}/tags/list?last={last}&n={page}>; rel=\"next\"");
            response = response.header(header::LINK, next);
        }
        let body = json!({ "name": repository, "tags": tags });
        response
            .body(Full::from(body.to_string()))
            .map_err(io::Error::other)
    }

    /// 304 where the version is known that the answer holds.
    fn unless_known(&self, response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
        let etag = response.headers().get(header::ETAG);
        if etag.is_none() || etag != self.known {
            return response;
        }
        let (mut parts, _) = response.into_parts();
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_LENGTH);
        Response::from_parts(parts, Full::default())
    }

    /// The 401 for those who may not.
    fn refusal(&self, shared: &Shared, repository: &str) -> io::Result<Option<Response<Full<Bytes>>>> {
        let challenge = match &shared.auth {
            Auth::Open => return Ok(None),
            Auth::Basic { user, password } => {
                if self.authorization == Some(&Auth::basic_value(user, password)) {
                    return Ok(None);
                }
                "Basic realm=\"fake\"".to_owned()
            }
            Auth::Bearer { .. } => {
                if shared.state().issued.allows(self.authorization, repository) {
                    return Ok(None);
                }
                let realm = shared.state().realm.clone();
                let scope = format!("repository:{repository}:pull");
                format!("Bearer realm=\"{realm}\",service=\"fake\",scope=\"{scope}\"")
            }
        };
        let mut response = error(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "authentication required",
        );
        let challenge = HeaderValue::from_str(&challenge).map_err(io::Error::other)?;
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        Ok(Some(response))
    }

    /// The token service: GET with or without a password, POST with a refresh token.
    fn token(&self, shared: &Shared) -> Response<Full<Bytes>> {
        let Auth::Bearer {
            user,
            password,
            public,
            lifetime,
        } = &shared.auth
        else {
            return error(StatusCode::NOT_FOUND, "UNSUPPORTED", "not found");
        };
        let scope = self.parameter("scope").unwrap_or_default();
        let known = if self.method == Method::POST {
            self.parameter("refresh_token").as_ref() == Some(password)
        } else {
            self.authorization == Some(&Auth::basic_value(user, password))
        };
        if !known && (self.authorization.is_some() || self.method == Method::POST) {
            return error(
                StatusCode::UNAUTHORIZED,
                "UNAUTHORIZED",
                "incorrect username or password",
            );
        }
        let good = known
            || scope
                .split(':')
                .nth(1)
                .is_some_and(|name| public.iter().any(|p| p == name));
        let token = shared.state().issued.issue(&scope, *lifetime, good);
        let reply = json!({ "token": token, "expires_in": lifetime.as_secs() });
        Response::new(Full::from(reply.to_string()))
    }

    /// A parameter of the query or of a form.
    fn parameter(&self, name: &str) -> Option<String> {
        let pairs = url::form_urlencoded::parse(self.query.as_bytes());
        let mut all = pairs.chain(url::form_urlencoded::parse(&self.body));
        all.find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

impl State {
    /// The fault of the longest path that fits.
    pub(super) fn fault(&self, path: &str) -> Option<Fault> {
        let fits = |set: &str| match set.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => path == set,
        };
        let found = self
            .faults
            .iter()
            .filter(|(set, _)| fits(set))
            .max_by_key(|(set, _)| set.len());
        found.map(|(_, fault)| fault.clone())
    }

    fn manifest(&self, repository: &str, reference: &str) -> io::Result<Response<Full<Bytes>>> {
        match self.store.manifest(repository, reference) {
            Some((media_type, digest, bytes)) => found(&media_type, &digest, bytes),
            None => Ok(error(
                StatusCode::NOT_FOUND,
                "MANIFEST_UNKNOWN",
                "manifest unknown",
            )),
        }
    }

    fn blob(&self, repository: &str, digest: &str) -> io::Result<Response<Full<Bytes>>> {
        match self.store.blob(repository, digest) {
            Some(bytes) => found("application/octet-stream", digest, bytes),
            None => Ok(error(
                StatusCode::NOT_FOUND,
                "BLOB_UNKNOWN",
                "blob unknown to registry",
            )),
        }
    }
}

fn found(media_type: &str, digest: &str, bytes: Bytes) -> io::Result<Response<Full<Bytes>>> {
    Response::builder()
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, bytes.len())
        .header(DIGEST, digest)
        .header(header::ETAG, format!("\"{digest}\""))
        .body(Full::new(bytes))
        .map_err(io::Error::other)
}

fn created(digest: &str) -> io::Result<Response<Full<Bytes>>> {
    let response = Response::builder()
        .status(StatusCode::CREATED)
        .header(DIGEST, digest);
    response.body(Full::default()).map_err(io::Error::other)
}

pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    let body = json!({ "errors": [{ "code": code, "message": message }] });
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response
}
