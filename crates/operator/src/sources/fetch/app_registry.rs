//! An app registry of `HeLx` (Tycho).

use async_trait::async_trait;
use larder_api::image_source::AppRegistrySource;
use larder_registry::sources::app_registry::{Document, Documents, FetchError, read};
use larder_registry::sources::{Found, SourceError, SourceReason};
use larder_registry::{Get, Limits, SafeHttp};
use url::Url;

use super::http::{class, said};

pub(super) async fn fetch(http: &SafeHttp, source: &AppRegistrySource) -> Result<Found, SourceError> {
    read(&Web { http }, &source.url, &source.brand).await
}

/// Documents from the network, under the rules for addresses that tenants choose.
struct Web<'a> {
    http: &'a SafeHttp,
}

#[async_trait]
impl Documents for Web<'_> {
    async fn get(&self, url: &str, at_most: usize) -> Result<Document, FetchError> {
        let parsed = Url::parse(url).map_err(|e| FetchError {
            reason: SourceReason::Malformed,
            message: format!("url: {e}"),
        })?;
        let limits = Limits {
            body: at_most,
            ..Limits::default()
        };
        let answer = self.http.get(&Get::new(parsed), &limits).await;
        match answer {
            Ok(fetched) => Ok(Document {
                body: fetched.body.unwrap_or_default(),
            }),
            Err(error) => Err(FetchError {
                reason: class(&error),
                message: said(&error).message,
            }),
        }
    }
}
