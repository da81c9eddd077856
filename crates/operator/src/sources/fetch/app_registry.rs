//! An app registry of `HeLx` (Tycho).

use async_trait::async_trait;
use larder_api::image_source::AppRegistrySource;
use larder_registry::sources::SourceReason;
use larder_registry::sources::app_registry::{Document, Documents, FetchError, read};
use larder_registry::{Get, Limits, SafeHttp};
use url::Url;

use super::hosts::Hosts;
use super::http::{class, said};
use super::{Failure, Fetched};

pub(super) async fn fetch(http: &SafeHttp, source: &AppRegistrySource) -> Result<Fetched, Failure> {
    let web = Web {
        http,
        hosts: Hosts::new(&source.url),
    };
    let read = read(&web, &source.url, &source.brand).await;
    let retry_after = web.hosts.retry_after();
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
    hosts: Hosts,
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
        if let Some(error) = self.hosts.given_up(&parsed) {
            return Err(failed(&error));
        }
        let answer = self.http.get(&Get::new(parsed.clone()), &limits).await;
        self.hosts.learn(&parsed, answer.as_ref().err());
        let fetched = answer.map_err(|error| failed(&error))?;
        Ok(Document {
            body: fetched.body.unwrap_or_default(),
        })
    }
}

fn failed(error: &larder_registry::FetchError) -> FetchError {
    FetchError {
        reason: class(error),
        message: said(error).message,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use larder_registry::address::Policy;
    use larder_registry::{HttpOptions, SharedPolicy};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const BUSY: &str = "503 Busy\r\nretry-after: 3600\r\ncontent-length: 0";

    /// A server that answers all requests alike; where it is, and how often it was asked.
    async fn server(answer: String) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (url, asked)
    }

    fn says(head: &str, body: &str) -> String {
        format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n{body}")
    }

    fn http() -> SafeHttp {
        let policy = Policy {
            allow_private: true,
            ..Policy::default()
        };
        SafeHttp::new(&HttpOptions {
            policy: SharedPolicy::new(policy),
            ..HttpOptions::default()
        })
        .unwrap()
    }

    fn source(url: String) -> AppRegistrySource {
        AppRegistrySource {
            url,
            brand: "brand".into(),
        }
    }

    #[tokio::test]
    async fn an_apps_own_server_does_not_hold_the_registry() {
        let http = http();
        let (busy, asked) = server(says(BUSY, "")).await;
        let registry = format!("contexts: {{brand: {{apps: {{calc: {{spec: '{busy}/calc.yaml'}}}}}}}}");
        let head = format!("200 OK\r\ncontent-length: {}", registry.len());
        let (own, _) = server(says(&head, &registry)).await;
        let Fetched::Found {
            found, retry_after, ..
        } = fetch(&http, &source(own)).await.unwrap()
        else {
            panic!("it was read")
        };
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(found.apps["calc"], None);
        assert_eq!(retry_after, None);

        let failure = fetch(&http, &source(busy)).await.unwrap_err();
        assert_eq!(failure.retry_after, Some(Duration::from_hours(1)));
    }

    #[tokio::test]
    async fn a_server_that_was_given_up_is_not_asked() {
        let http = http();
        let (url, asked) = server(says(BUSY, "")).await;
        let web = Web {
            http: &http,
            hosts: Hosts::new("https://apps.example.org"),
        };
        for _ in 0..2 {
            let silent = larder_registry::FetchError::Timeout;
            web.hosts.learn(&Url::parse(&url).unwrap(), Some(&silent));
        }
        let error = web.get(&format!("{url}/calc.yaml"), 100).await.unwrap_err();
        assert_eq!(error.reason, SourceReason::Timeout);
        assert_eq!(asked.load(Ordering::SeqCst), 0);

        let unheard = TcpSocket::new_v4().unwrap();
        unheard.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let nobody = unheard.local_addr().unwrap();
        let nobody = format!("http://{nobody}/calc.yaml");
        for _ in 0..2 {
            web.get(&nobody, 100).await.unwrap_err();
        }
        assert!(web.hosts.given_up(&Url::parse(&nobody).unwrap()).is_some());
    }
}
