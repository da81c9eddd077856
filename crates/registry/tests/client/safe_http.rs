//! Documents from addresses that tenants choose: whatever goes wrong is a class, and bounded.

use std::time::{Duration, Instant};

use anyhow::Result;
use larder_registry::{
    FetchError, Fetched, Get, HttpOptions, Limits, RegistriesConfig, SafeHttp, SharedPolicy,
    address::{Policy, Refused},
};
use larder_testkit::registry::{Auth, FakeRegistry, Fault};
use url::Url;

use super::{amd64, asked};

const PATH: &str = "/v2/a/manifests/1";

fn limits() -> Limits {
    Limits {
        body: 10_000,
        answer_time: Duration::from_secs(2),
        body_time: Duration::from_secs(1),
        ..Limits::default()
    }
}

fn http(allow_private: bool) -> Result<SafeHttp> {
    let policy = Policy {
        allow_private,
        ..Policy::default()
    };
    Ok(SafeHttp::new(&HttpOptions {
        policy: SharedPolicy::new(policy),
        ..HttpOptions::default()
    })?)
}

fn url(server: &FakeRegistry) -> Result<Url> {
    Ok(Url::parse(&format!("http://{}{PATH}", server.host()))?)
}

async fn get(server: &FakeRegistry) -> Result<Result<Fetched, FetchError>> {
    Ok(http(true)?.get(&Get::new(url(server)?), &limits()).await)
}

#[tokio::test]
async fn a_version_that_is_known_is_not_sent_again() -> Result<()> {
    let server = FakeRegistry::start(Auth::Open).await?;
    let image = amd64("x");
    server.put("a", "1", &image);
    let http = http(true)?;
    let first = http.get(&Get::new(url(&server)?), &limits()).await?;
    assert_eq!(first.body, Some(image.manifest));
    let etag = first.etag.clone().unwrap_or_default();
    let again = http
        .get(&Get::new(url(&server)?).unless(&etag), &limits())
        .await?;
    assert_eq!((again.body, again.etag), (None, first.etag));
    server.put("a", "1", &amd64("new"));
    let moved = http
        .get(&Get::new(url(&server)?).unless(&etag), &limits())
        .await?;
    assert_eq!(moved.body, Some(amd64("new").manifest));
    Ok(())
}

#[tokio::test]
async fn every_fault_is_a_class_without_the_others_words() -> Result<()> {
    let server = FakeRegistry::start(Auth::Open).await?;
    server.put("a", "1", &amd64("x"));
    let status = |status| Fault::Status {
        status,
        retry_after: None,
    };
    let endless = |piece: usize, millis| Fault::Endless {
        piece: b"secret".repeat(piece),
        pause: Duration::from_millis(millis),
    };
    let table = [
        (status(404), "404 Not Found"),
        (status(500), "500 Internal Server Error"),
        // Nothing was known that could be the same.
        (status(304), "304 Not Modified"),
        (Fault::Slow(Duration::from_secs(30)), "no answer in time"),
        (Fault::Drop, "the connection broke"),
        (Fault::Truncated, "the connection broke"),
        (endless(1000, 0), "answers with more than 10000 bytes"),
        (endless(1, 20), "no answer in time"),
        (Fault::Redirect(PATH.to_owned()), "more than 5 redirects"),
        (
            Fault::Redirect("file:///etc/passwd".to_owned()),
            "redirects to another protocol, which is not followed",
        ),
        (
            Fault::Redirect("http://[".to_owned()),
            "redirects to something that is no URL",
        ),
    ];
    for (fault, words) in table {
        server.fault(PATH, fault.clone());
        let begin = Instant::now();
        let error = get(&server).await?.err().map(|e| e.to_string());
        assert_eq!(error.as_deref(), Some(words), "{fault:?}");
        assert!(begin.elapsed() < Duration::from_secs(4), "{fault:?}");
    }
    Ok(())
}

#[tokio::test]
async fn addresses_are_judged() -> Result<()> {
    let server = FakeRegistry::start(Auth::Open).await?;
    let error = http(false)?
        .get(&Get::new(url(&server)?), &limits())
        .await
        .err()
        .map(|e| e.to_string());
    assert_eq!(
        error.as_deref(),
        Some("leads to a loopback address, which is not contacted")
    );
    let error = http(true)?
        .get(&Get::new(Url::parse("file:///etc/passwd")?), &limits())
        .await;
    assert_eq!(error, Err(FetchError::Scheme));
    assert_eq!(server.take_log(), []);
    Ok(())
}

#[tokio::test]
async fn a_listed_host_opens_the_way_to_itself_alone() -> Result<()> {
    let server = FakeRegistry::start(Auth::Open).await?;
    let other = FakeRegistry::start(Auth::Open).await?;
    server.put("a", "1", &amd64("x"));
    let yaml = format!("{}: {{plainHTTP: true, allowPrivate: true}}", server.host());
    let http = http(false)?.listed_in(&RegistriesConfig::parse(&yaml)?);
    assert!(
        http.get(&Get::new(url(&server)?), &limits())
            .await?
            .body
            .is_some()
    );
    for refused in [other.host(), "127.0.0.1".to_owned()] {
        let url = Url::parse(&format!("http://{refused}{PATH}"))?;
        let answer = http.get(&Get::new(url), &limits()).await;
        assert_eq!(answer, Err(FetchError::Refused(Refused::Loopback)), "{refused}");
    }
    server.fault(PATH, Fault::Redirect(url(&other)?.into()));
    let answer = http.get(&Get::new(url(&server)?), &limits()).await;
    assert_eq!(answer, Err(FetchError::Refused(Refused::Loopback)));
    assert_eq!(other.take_log(), []);
    Ok(())
}

#[tokio::test]
async fn when_a_server_may_be_asked_again_is_told() -> Result<()> {
    let server = FakeRegistry::start(Auth::Open).await?;
    for (status, retry_after, expected) in [
        (429, Some("33"), Some(Duration::from_secs(33))),
        (503, Some("7"), Some(Duration::from_secs(7))),
        (503, Some("soon"), None),
        (429, None, None),
    ] {
        server.fault(PATH, Fault::Status { status, retry_after });
        let error = get(&server).await?.err();
        assert_eq!(error.and_then(|e| e.retry_after()), expected, "{status}");
    }
    Ok(())
}

#[tokio::test]
async fn credentials_go_to_the_first_host_alone() -> Result<()> {
    let server = FakeRegistry::start(Auth::Open).await?;
    let elsewhere = FakeRegistry::start(Auth::Open).await?;
    elsewhere.put("a", "1", &amd64("x"));
    server.fault(PATH, Fault::Redirect(url(&elsewhere)?.into()));
    let get = Get::new(url(&server)?).authorization("Bearer secret");
    assert!(http(true)?.get(&get, &limits()).await?.body.is_some());
    assert_eq!(asked(&server), ["GET manifests/1 Bearer"]);
    assert_eq!(asked(&elsewhere), ["GET manifests/1"]);
    // A URL's own credentials go nowhere.
    let mut with_password = url(&elsewhere)?;
    let _ = with_password.set_password(Some("secret"));
    http(true)?.get(&Get::new(with_password), &limits()).await?;
    assert_eq!(asked(&elsewhere), ["GET manifests/1"]);
    Ok(())
}
