//! One request and its answer: bounded in time, in size and in redirects.

use std::error::Error;

use reqwest::{
    Client, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION},
};
use url::Url;

use crate::RegistryError;

/// Bytes of an answer: no manifest or configuration is larger.
pub(super) const MAX_BODY: usize = 4 * 1024 * 1024;
const MAX_REDIRECTS: usize = 5;

pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: Option<&'static str>,
    pub(super) authorization: Option<HeaderValue>,
    /// Fields of a form, for a token service.
    pub(super) form: Option<Vec<(&'static str, String)>>,
}

pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Follows redirects; credentials go to the first host alone, and never from HTTPS to HTTP.
pub(super) async fn send(client: &Client, request: &Request) -> Result<Reply, RegistryError> {
    let mut url = request.url.clone();
    for _ in 0..=MAX_REDIRECTS {
        let mut builder = client.request(request.method.clone(), url.clone());
        if let Some(accept) = request.accept {
            builder = builder.header(ACCEPT, accept);
        }
        if let Some(authorization) = &request.authorization
            && url.origin() == request.url.origin()
        {
            builder = builder.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(form) = &request.form {
            builder = builder.form(form);
        }
        let response = builder.send().await.map_err(|e| unreachable(&url, &e))?;
        match target(
            &url,
            response.status(),
            response.headers(),
            request.form.is_some(),
        )? {
            Some(next) => url = next,
            None => return receive(&url, response).await,
        }
    }
    Err(failed(&url, &format!("more than {MAX_REDIRECTS} redirects")))
}

/// Where a redirect leads; none where the answer is final.
fn target(
    from: &Url,
    status: StatusCode,
    headers: &HeaderMap,
    is_form: bool,
) -> Result<Option<Url>, RegistryError> {
    let location = match (status.as_u16(), headers.get(LOCATION)) {
        // A form holds a credential in its body and stays where it was sent.
        (301 | 302 | 303 | 307 | 308, Some(location)) if !is_form => location,
        _ => return Ok(None),
    };
    let next = location.to_str().ok().and_then(|l| from.join(l).ok());
    let next = next.ok_or_else(|| failed(from, "redirects to something that is no URL"))?;
    match (from.scheme(), next.scheme()) {
        ("https", "https") | ("http", "http" | "https") => Ok(Some(next)),
        _ => Err(failed(
            from,
            &format!("redirects to {}, which is not followed", next.scheme()),
        )),
    }
}

async fn receive(url: &Url, mut response: reqwest::Response) -> Result<Reply, RegistryError> {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| unreachable(url, &e))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(failed(
                url,
                &format!("answers with more than {} MiB", MAX_BODY >> 20),
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Reply {
        status,
        headers,
        body,
    })
}

fn unreachable(url: &Url, error: &reqwest::Error) -> RegistryError {
    if error.is_timeout() {
        let what = if error.is_connect() {
            "no connection in time"
        } else {
            "no answer in time"
        };
        return failed(url, what);
    }
    failed(url, &root_cause(error))
}

/// Names the host alone: a URL may carry a signature.
fn failed(url: &Url, what: &str) -> RegistryError {
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    RegistryError::Unreachable {
        message: format!("{host}: {what}"),
        retry_after: None,
    }
}

/// The innermost error: the ones around it say only that something failed.
pub(super) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(from: &str, to: &str, is_form: bool) -> Option<Result<Option<String>, String>> {
        let from = Url::parse(from).ok()?;
        let headers = [(LOCATION, HeaderValue::from_str(to).ok()?)]
            .into_iter()
            .collect();
        let next = target(&from, StatusCode::TEMPORARY_REDIRECT, &headers, is_form);
        Some(next.map(|n| n.map(String::from)).map_err(|e| e.to_string()))
    }

    #[test]
    fn redirects_never_leave_https() {
        let to = |url: &str| Some(Ok(Some(url.to_owned())));
        assert_eq!(redirect("https://a.io/v2/x", "/y", false), to("https://a.io/y"));
        assert_eq!(
            redirect("https://a.io/v2/x", "//b.io/y?z", false),
            to("https://b.io/y?z")
        );
        assert_eq!(
            redirect("http://a.io/v2/x", "https://b.io/y", false),
            to("https://b.io/y")
        );
        assert_eq!(
            redirect("https://a.io/v2/x", "http://b.io/y", false),
            Some(Err("a.io: redirects to http, which is not followed".to_owned()))
        );
        assert_eq!(
            redirect("http://a.io:1/v2/x", "file:///etc/passwd", false),
            Some(Err("a.io:1: redirects to file, which is not followed".to_owned()))
        );
        assert_eq!(
            redirect("https://a.io/token", "https://b.io/", true),
            Some(Ok(None))
        );
    }
}
