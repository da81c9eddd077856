//! The fake registry's side of the distribution protocol.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    auth::Auth,
    fake::{LogEntry, Shared, State},
    fault::Fault,
    image::digest_of,
};

const DIGEST: &str = "docker-content-digest";

type Frames = BoxStream<'static, io::Result<Frame<Bytes>>>;
type Body = Either<Full<Bytes>, StreamBody<Frames>>;

/// Serves until it is dropped, connections included.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            // A connection that ends in an error is the client's business, or a fault that was asked for.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let path = parts.uri.path().to_owned();
    let authorization = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|a| a.to_str().ok());
    let asked = Asked {
        host: parts
            .headers
            .get(header::HOST)
            .and_then(|h| h.to_str().ok())
            .unwrap_or_default(),
        media_type: parts
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|h| h.to_str().ok())
            .unwrap_or_default(),
        known: parts.headers.get(header::IF_NONE_MATCH),
        method: &parts.method,
        path: &path,
        query: parts.uri.query().unwrap_or_default(),
        authorization,
        body,
    };
    let (fault, _counted) = {
        let mut state = shared.state();
        state.log.push(asked.log_entry());
        state.at_a_time += 1;
        state.most_at_a_time = state.most_at_a_time.max(state.at_a_time);
        (state.fault(&path), Counted(&shared))
    };
    let mut slow = Duration::ZERO;
    match &fault {
        Some(Fault::Drop) => return Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Fault::Slow(time)) => slow = *time,
        Some(Fault::Status { status, retry_after }) => {
            let status = StatusCode::from_u16(*status).map_err(io::Error::other)?;
            let mut response = error(status, "FAULT", "this fault was asked for");
            if let Some(value) = retry_after {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from_static(value));
            }
            return Ok(without_body_for_head(&parts.method, response));
        }
        Some(Fault::NoHead) if parts.method == Method::HEAD => {
            return Ok(without_body_for_head(
                &parts.method,
                error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", ""),
            ));
        }
        Some(Fault::Redirect(to)) => {
            let response = Response::builder()
                .status(StatusCode::TEMPORARY_REDIRECT)
                .header(header::LOCATION, to);
            return response
                .body(Either::Left(Full::default()))
                .map_err(io::Error::other);
        }
        _ => {}
    }
    tokio::time::sleep(slow).await;
    let mut response = asked.answer(&shared)?;
    let headers = response.headers_mut();
    match fault {
        Some(Fault::WrongDigest) => {
            headers.insert(
                DIGEST,
                HeaderValue::from_str(&digest_of(b"another")).map_err(io::Error::other)?,
            );
        }
        Some(Fault::NoDigest) => {
            headers.remove(DIGEST);
        }
        Some(Fault::OtherBytes(bytes)) => {
            headers.remove(header::CONTENT_LENGTH);
            response = response.map(|_| Full::new(bytes.into()));
        }
        Some(Fault::Headers(more)) => {
            headers.extend(
                more.into_iter()
                    .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))),
            );
        }
        Some(Fault::Truncated) if parts.method == Method::GET => return truncated(response).await,
        Some(Fault::Endless { piece, pause }) if parts.method == Method::GET => {
            headers.remove(header::CONTENT_LENGTH);
            return Ok(response.map(|_| endless(piece.into(), pause)));
        }
        _ => {}
    }
    Ok(without_body_for_head(&parts.method, response))
}

/// A request that is being answered.
struct Counted<'a>(&'a Shared);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.state().at_a_time -= 1;
    }
}

/// What was asked.
struct Asked<'a> {
    host: &'a str,
    media_type: &'a str,
    /// If-None-Match.
    known: Option<&'a HeaderValue>,
    method: &'a Method,
    path: &'a str,
    query: &'a str,
    authorization: Option<&'a str>,
    body: Bytes,
}

impl Asked<'_> {
    fn log_entry(&self) -> LogEntry {
        let scheme = |a: &str| a.split(' ').next().unwrap_or_default().to_owned();
        LogEntry {
            method: self.method.to_string(),
            path: self.path.to_owned(),
            query: self.query.to_owned(),
            authorization: self.authorization.map(scheme),
        }
    }

    fn answer(&self, shared: &Shared) -> io::Result<Response<Full<Bytes>>> {
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
                let (host, scope) = (self.host, format!("repository:{repository}:pull"));
                let elsewhere = shared.state().realm.clone();
                let realm = elsewhere.unwrap_or_else(|| format!("http://{host}/token"));
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
    fn fault(&self, path: &str) -> Option<Fault> {
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

fn error(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    let body = json!({ "errors": [{ "code": code, "message": message }] });
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response
}

/// Headers as for GET, and no bytes.
fn without_body_for_head(method: &Method, response: Response<Full<Bytes>>) -> Response<Body> {
    let keep = *method != Method::HEAD;
    response.map(|body| Either::Left(if keep { body } else { Full::default() }))
}

/// Half of the bytes, then the end of the connection.
async fn truncated(response: Response<Full<Bytes>>) -> io::Result<Response<Body>> {
    let (parts, body) = response.into_parts();
    let Ok(bytes) = body.collect().await.map(http_body_util::Collected::to_bytes);
    let frames = vec![
        Ok(Frame::data(bytes.slice(..bytes.len() / 2))),
        Err(io::ErrorKind::ConnectionAborted.into()),
    ];
    Ok(Response::from_parts(
        parts,
        Either::Right(StreamBody::new(stream::iter(frames).boxed())),
    ))
}

/// A body without an end.
fn endless(piece: Bytes, pause: Duration) -> Body {
    let pieces = stream::repeat(piece).then(move |piece| async move {
        tokio::time::sleep(pause).await;
        Ok(Frame::data(piece))
    });
    Either::Right(StreamBody::new(pieces.boxed()))
}
