//! One request and its answer: bounded in time, in size and in redirects.

use std::time::Duration;

use reqwest::{
    Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, IF_NONE_MATCH, LOCATION},
};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::{FetchError, clients::Clients};

/// What an answer may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body: 4 MiB by default, and no manifest or configuration is larger.
    pub body: usize,
    /// Until the answer begins, connections and redirects included. 10 s by default.
    pub answer_time: Duration,
    /// From there until the end of the body. 10 s by default.
    pub body_time: Duration,
    /// Redirects followed: 5 by default.
    pub redirects: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 4 * 1024 * 1024,
            answer_time: Duration::from_secs(10),
            body_time: Duration::from_secs(10),
            redirects: 5,
        }
    }
}

/// What is asked.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) accept: Option<HeaderValue>,
    pub(crate) if_none_match: Option<HeaderValue>,
    pub(crate) authorization: Option<HeaderValue>,
    /// Fields of a form, for a token service.
    pub(crate) form: Option<Vec<(&'static str, String)>>,
}

impl Request {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            accept: None,
            if_none_match: None,
            authorization: None,
            form: None,
        }
    }
}

/// What came.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Who was asked answered, and no other host to which a redirect led.
    pub(crate) at_home: bool,
}

/// No answer, and the URL of which it was expected in the end.
pub(crate) struct Failed {
    pub(crate) url: Url,
    pub(crate) error: FetchError,
}

/// Follows redirects; credentials go to the first host alone, and never from HTTPS to HTTP. `listed` tells the hosts
/// whose addresses are not judged.
pub(crate) async fn exchange(
    clients: &Clients,
    listed: &(dyn Fn(&Url) -> bool + Send + Sync),
    request: &Request,
    limits: &Limits,
) -> Result<Reply, Failed> {
    let mut url = request.url.clone();
    let until = Instant::now() + limits.answer_time;
    for _ in 0..=limits.redirects {
        let step = step(clients, listed(&url), request, &url, until, limits).await;
        match step {
            Ok(Step::Done(reply)) => return Ok(reply),
            Ok(Step::Redirect(next)) => url = next,
            Err(error) => return Err(Failed { url, error }),
        }
    }
    let limit = limits.redirects;
    Err(Failed {
        url,
        error: FetchError::Redirects { limit },
    })
}

enum Step {
    Done(Reply),
    Redirect(Url),
}

async fn step(
    clients: &Clients,
    listed: bool,
    request: &Request,
    url: &Url,
    until: Instant,
    limits: &Limits,
) -> Result<Step, FetchError> {
    let at_home = url.origin() == request.url.origin();
    let answer = async {
        let client = clients.choose(url, listed).await?;
        let mut builder = client.request(request.method.clone(), url.clone());
        let headers = [
            (ACCEPT, &request.accept),
            (IF_NONE_MATCH, &request.if_none_match),
            (AUTHORIZATION, &request.authorization),
        ];
        for (name, value) in headers {
            if let Some(value) = value
                && (name != AUTHORIZATION || at_home)
            {
                builder = builder.header(name, value.clone());
            }
        }
        if let Some(form) = &request.form {
            builder = builder.form(form);
        }
        builder.send().await.map_err(|e| FetchError::of(&e))
    };
    let response = timeout_at(until, answer)
        .await
        .map_err(|_| FetchError::Timeout)??;
    let is_form = request.form.is_some();
    if let Some(next) = target(url, response.status(), response.headers(), is_form)? {
        return Ok(Step::Redirect(next));
    }
    let (status, headers) = (response.status(), response.headers().clone());
    let body = timeout(limits.body_time, receive(response, limits.body))
        .await
        .map_err(|_| FetchError::Timeout)??;
    Ok(Step::Done(Reply {
        status,
        headers,
        body,
        at_home,
    }))
}

async fn receive(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| FetchError::of(&e))? {
        if body.len() + chunk.len() > limit {
            return Err(FetchError::TooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Where a redirect leads; none where the answer is final.
fn target(
    from: &Url,
    status: StatusCode,
    headers: &HeaderMap,
    is_form: bool,
) -> Result<Option<Url>, FetchError> {
    let location = match (status.as_u16(), headers.get(LOCATION)) {
        // A form holds a credential in its body and stays where it was sent.
        (301 | 302 | 303 | 307 | 308, Some(location)) if !is_form => location,
        _ => return Ok(None),
    };
    let next = location.to_str().ok().and_then(|l| from.join(l).ok());
    let mut next = next.ok_or(FetchError::NotAUrl)?;
    // Credentials that another host thought of are not shown to a third.
    let _ = (next.set_username(""), next.set_password(None));
    match (from.scheme(), next.scheme()) {
        ("https", "https") | ("http", "http" | "https") => Ok(Some(next)),
        (_, "http") => Err(FetchError::Downgrade("http")),
        _ => Err(FetchError::Downgrade("another protocol")),
    }
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
        let refused = |what: &str| Some(Err(format!("redirects to {what}, which is not followed")));
        assert_eq!(redirect("https://a.io/v2/x", "/y", false), to("https://a.io/y"));
        assert_eq!(
            redirect("https://a.io/v2/x", "//b.io/y?z", false),
            to("https://b.io/y?z")
        );
        assert_eq!(
            redirect("http://a.io/v2/x", "https://u:p@b.io/y", false),
            to("https://b.io/y")
        );
        assert_eq!(
            redirect("https://a.io/v2/x", "http://b.io/y", false),
            refused("http")
        );
        assert_eq!(
            redirect("http://a.io:1/v2/x", "file:///etc/passwd", false),
            refused("another protocol")
        );
        assert_eq!(
            redirect("https://a.io/token", "https://b.io/", true),
            Some(Ok(None))
        );
    }
}
