//! An app registry of `HeLx` (Tycho).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use larder_api::image_source::AppRegistrySource;
use larder_registry::sources::SourceReason;
use larder_registry::sources::app_registry::{Document, Documents, FetchError, read};
use larder_registry::{Get, Limits, SafeHttp};
use url::Url;

use super::http::{class, said};
use super::{Failure, Fetched};

pub(super) async fn fetch(http: &SafeHttp, source: &AppRegistrySource) -> Result<Fetched, Failure> {
    let web = Web {
        http,
        longest: Mutex::default(),
    };
    let read = read(&web, &source.url, &source.brand).await;
    let retry_after = web.longest.into_inner().unwrap_or_else(PoisonError::into_inner);
    match read {
        Ok(found) => Ok(Fetched::Found {
            found,
            etag: None,
            retry_after,
        }),
        Err(error) => Err(Failure { error, retry_after }),
    }
}

/// Documents from the network, under the rules for addresses that tenants choose.
struct Web<'a> {
    http: &'a SafeHttp,
    /// How long a server asks to be left alone, of all the longest.
    longest: Mutex<Option<Duration>>,
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
            Err(error) => {
                let mut longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
                *longest = (*longest).max(error.retry_after());
                Err(FetchError {
                    reason: class(&error),
                    message: said(&error).message,
                })
            }
        }
    }
}
