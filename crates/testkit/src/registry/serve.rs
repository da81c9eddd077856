//! The fake registry's connections, and what goes wrong on them.

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
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    fake::Shared,
    fault::Fault,
    image::digest_of,
    protocol::{Asked, DIGEST, error},
};

type Frames = BoxStream<'static, io::Result<Frame<Bytes>>>;
type Body = Either<Full<Bytes>, StreamBody<Frames>>;

/// Serves until it is dropped, connections included; HTTPS with an acceptor.
pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            match tls {
                Some(tls) => {
                    // A client that does not trust the certificate ends the connection.
                    if let Ok(stream) = tls.accept(stream).await {
                        connection(stream, shared).await;
                    }
                }
                None => connection(stream, shared).await,
            }
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
    // A connection that ends in an error is the client's business, or a fault that was asked for.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
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
