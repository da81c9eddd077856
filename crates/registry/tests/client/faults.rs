//! What goes wrong, and how it is told.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use larder_api::names::Reason;
use larder_core::image_ref::ImageRef;
use larder_registry::{Credentials, Registry, RegistryError};
use larder_testkit::registry::{Auth, FakeRegistry, Fault};
use tokio::net::TcpListener;

use super::{amd64, client, image};

async fn refusal(registry: &FakeRegistry, rest: &str) -> Result<RegistryError> {
    let answer = client()?
        .digest(&image(registry, rest)?, &Credentials::anonymous())
        .await;
    answer.err().context("there was an answer")
}

#[tokio::test]
async fn every_fault_has_its_reason() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    registry.put("a", "1", &amd64("x"));
    let status = |status| Fault::Status {
        status,
        retry_after: None,
    };
    let host = registry.host();
    let asked_for = "this fault was asked for";
    let table = [
        (
            status(404),
            Reason::NotFound,
            false,
            format!("404 Not Found: {asked_for}"),
        ),
        (
            status(401),
            Reason::Unauthorized,
            false,
            format!("401 Unauthorized: {asked_for}"),
        ),
        (
            status(403),
            Reason::Unauthorized,
            false,
            format!("403 Forbidden: {asked_for}"),
        ),
        (
            status(500),
            Reason::RegistryUnreachable,
            true,
            "500 Internal Server Error".to_owned(),
        ),
        (
            status(418),
            Reason::RegistryUnreachable,
            true,
            format!("{host} does not answer as a registry: 418 I'm a teapot: {asked_for}"),
        ),
        (
            Fault::Slow(Duration::from_secs(30)),
            Reason::RegistryUnreachable,
            true,
            format!("{host}: no answer in time"),
        ),
    ];
    for (fault, reason, retryable, words) in table {
        registry.fault("/v2/a/manifests/1", fault);
        let error = refusal(&registry, "a:1").await?;
        assert_eq!(
            (error.reason(), error.retryable(), error.to_string()),
            (reason, retryable, words)
        );
        assert_eq!(error.retry_after(), None);
    }
    registry.fault("/v2/a/manifests/1", Fault::Drop);
    assert_eq!(
        refusal(&registry, "a:1").await?.reason(),
        Reason::RegistryUnreachable
    );
    registry.clear_faults();
    assert_eq!(
        refusal(&registry, "a:2").await?.to_string(),
        "404 Not Found: manifest unknown"
    );
    Ok(())
}

#[tokio::test]
async fn retry_after_is_told() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    for status in [429, 503] {
        registry.fault(
            "/v2/a/manifests/1",
            Fault::Status {
                status,
                retry_after: Some("33"),
            },
        );
        assert_eq!(
            refusal(&registry, "a:1").await?.retry_after(),
            Some(Duration::from_secs(33))
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_closed_port_is_told_at_once() -> Result<()> {
    let closed = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let image = ImageRef::parse(&format!("{closed}/a:1"))?;
    let error = client()?.digest(&image, &Credentials::anonymous()).await.err();
    let words = error.map(|e| e.to_string()).unwrap_or_default();
    assert!(
        words.starts_with(&format!("{closed}: Connection refused")),
        "{words}"
    );
    Ok(())
}

#[tokio::test]
async fn a_registry_that_never_answers_is_given_up() -> Result<()> {
    // Connections are made by the kernel; nobody reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let image = ImageRef::parse(&format!("{}/a:1", silent.local_addr()?))?;
    let begin = Instant::now();
    let error = client()?.digest(&image, &Credentials::anonymous()).await.err();
    assert_eq!(error.map(|e| e.reason()), Some(Reason::RegistryUnreachable));
    assert!(begin.elapsed() < Duration::from_secs(10));
    Ok(())
}

#[tokio::test]
async fn a_registry_that_names_another_digest_is_not_believed() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    let digest = registry.put("a", "1", &amd64("x"));
    registry.fault("/v2/a/*", Fault::WrongDigest);
    let error = refusal(&registry, &format!("a@{digest}")).await?;
    assert_eq!(
        (error.reason(), error.retryable()),
        (Reason::DigestMismatch, false)
    );
    assert!(
        error
            .to_string()
            .starts_with(&format!("asked for {digest}, {} has sha256:", registry.host()))
    );
    Ok(())
}

#[tokio::test]
async fn bytes_are_verified() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    let one = amd64("x");
    let digest = registry.put("a", "1", &one);
    let image = image(&registry, "a:1")?;
    let reason = async || {
        let answer = client()?
            .platforms(&image, &digest, &Credentials::anonymous(), &[])
            .await;
        Ok::<_, anyhow::Error>(answer.err().map(|e| e.reason()))
    };
    let manifest = format!("/v2/a/manifests/{digest}");
    registry.fault(&manifest, Fault::OtherBytes(amd64("y").manifest));
    assert_eq!(reason().await?, Some(Reason::DigestMismatch));
    registry.fault(&manifest, Fault::Truncated);
    assert_eq!(reason().await?, Some(Reason::RegistryUnreachable));
    registry.clear_faults();
    registry.fault(
        "/v2/a/blobs/*",
        Fault::OtherBytes(br#"{"os":"plan9","architecture":"mips"}"#.to_vec()),
    );
    assert_eq!(reason().await?, Some(Reason::DigestMismatch));
    registry.clear_faults();
    assert_eq!(reason().await?, None);
    Ok(())
}

#[tokio::test]
async fn answers_that_are_no_manifests_are_refused() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    registry.put("a", "1", &amd64("x"));
    let digest = registry.put("a", "portal", &amd64("x"));
    // A portal answers everything with a page, and knows no digests.
    registry.fault(
        "/v2/a/manifests/*",
        Fault::OtherBytes(b"<html>Please log in</html>".to_vec()),
    );
    let answer = client()?
        .platforms(&image(&registry, "a:1")?, &digest, &Credentials::anonymous(), &[])
        .await;
    assert_eq!(answer.err().map(|e| e.reason()), Some(Reason::DigestMismatch));

    Ok(())
}

#[tokio::test]
async fn bodies_are_bounded_in_size_and_time() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    let digest = registry.put("a", "1", &amd64("x"));
    let endless = |piece, pause| Fault::Endless { piece, pause };
    let table = [
        (
            Fault::OtherBytes(vec![b' '; 5 * 1024 * 1024]),
            "answers with more than 4 MiB",
        ),
        (
            endless(vec![b' '; 100_000], Duration::ZERO),
            "answers with more than 4 MiB",
        ),
        (
            endless(vec![b' '], Duration::from_millis(20)),
            "no answer in time",
        ),
    ];
    for (fault, words) in table {
        registry.fault("/v2/a/manifests/*", fault);
        let begin = Instant::now();
        let error = client()?
            .platforms(&image(&registry, "a:1")?, &digest, &Credentials::anonymous(), &[])
            .await
            .err();
        assert_eq!(
            error.map(|e| (e.reason(), e.to_string())),
            Some((
                Reason::RegistryUnreachable,
                format!("{}: {words}", registry.host())
            ))
        );
        assert!(begin.elapsed() < Duration::from_secs(8));
    }
    Ok(())
}

#[tokio::test]
async fn a_tag_whose_header_names_what_is_not_there_is_not_resolved() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    registry.put("a", "1", &amd64("x"));
    registry.fault("/v2/a/manifests/1", Fault::WrongDigest);
    let image = image(&registry, "a:1")?;
    let head = client()?.digest(&image, &Credentials::anonymous()).await?;
    let answer = client()?
        .platforms(&image, &head.digest, &Credentials::anonymous(), &[])
        .await;
    let error = answer.err().context("there was an answer")?;
    assert_eq!(error.reason(), Reason::NotFound);
    let words = format!(
        "{} names {}, and does not have it: 404",
        registry.host(),
        head.digest
    );
    assert!(error.to_string().starts_with(&words), "{error}");
    Ok(())
}
