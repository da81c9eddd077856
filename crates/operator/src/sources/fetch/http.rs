//! A document behind a URL.

use larder_api::image_source::{HttpSource, ListFormat};
use larder_registry::sources::json::JsonPath;
use larder_registry::sources::{SourceError, SourceReason, apart, json, lines};
use larder_registry::{FetchError, Get, Limits};
use reqwest::StatusCode;
use url::Url;

use super::{Ask, Failure, Fetched, Network};

pub(super) async fn fetch(network: &Network, source: &HttpSource, ask: &Ask) -> Result<Fetched, Failure> {
    let path = match source.format {
        ListFormat::Lines => None,
        ListFormat::Json => Some(JsonPath::parse(source.json_path.as_deref().unwrap_or_default())?),
    };
    let mut get = Get::new(url(&source.url)?);
    if let Some(authorization) = &ask.authorization {
        get = get.authorization(authorization);
    }
    if let Some(etag) = &ask.etag {
        get = get.unless(etag);
    }
    let limits = Limits::default();
    let answer = match &source.ca_bundle {
        None => network.http.get(&get, &limits).await,
        Some(bundle) => {
            let http = network
                .trusting(bundle)
                .map_err(|e| SourceError::new(SourceReason::Malformed, format!("http.caBundle: {e}")))?;
            http.get(&get, &limits).await
        }
    };
    let answer = answer.map_err(|error| Failure {
        error: said(&error),
        retry_after: error.retry_after(),
    })?;
    let Some(body) = answer.body else {
        return Ok(Fetched::Unchanged);
    };
    let read = move || match &path {
        None => lines::parse(&body),
        Some(path) => json::parse(&body, path),
    };
    let found = apart(read).await?;
    Ok(Fetched::Found {
        found,
        etag: answer.etag,
        retry_after: None,
    })
}

pub(super) fn url(text: &str) -> Result<Url, SourceError> {
    Url::parse(text).map_err(|e| SourceError::new(SourceReason::Malformed, format!("url: {e}")))
}

/// Code and class; of what the other side wrote nothing, since whoever reads it chose only the address.
pub(super) fn said(error: &FetchError) -> SourceError {
    SourceError::new(class(error), error.to_string())
}

/// The class of an answer that cannot be used.
pub(super) fn class(error: &FetchError) -> SourceReason {
    match error {
        FetchError::Status { status, .. } => match *status {
            StatusCode::NOT_FOUND | StatusCode::GONE => SourceReason::NotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SourceReason::Unauthorized,
            StatusCode::TOO_MANY_REQUESTS => SourceReason::RateLimited,
            _ => SourceReason::Unreachable,
        },
        FetchError::Scheme | FetchError::Refused(_) | FetchError::Downgrade(_) => {
            SourceReason::AddressRefused
        }
        FetchError::ConnectTimeout | FetchError::Timeout => SourceReason::Timeout,
        FetchError::TooLarge { .. } => SourceReason::TooLarge,
        FetchError::Name { .. }
        | FetchError::Connect { .. }
        | FetchError::Broken { .. }
        | FetchError::Redirects { .. }
        | FetchError::NotAUrl => SourceReason::Unreachable,
    }
}
