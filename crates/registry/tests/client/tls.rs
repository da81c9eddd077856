//! Over HTTPS: what is trusted, and where a token service may be.

use std::time::Duration;

use anyhow::Result;
use larder_api::names::Reason;
use larder_registry::{Credentials, HttpRegistry, RegistriesConfig, Registry, address::Policy};
use larder_testkit::registry::{Auth, Authority, FakeRegistry, Fault};
use tempfile::NamedTempFile;

use super::{PASSWORD, USER, amd64, asked, image, options, right};

fn bearer() -> Auth {
    Auth::Bearer {
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
        public: Vec::new(),
        lifetime: Duration::from_mins(5),
    }
}

/// Trusts the authority beside the public ones, and may contact the loopback addresses of the tests.
fn trusting(authority: &Authority) -> Result<(HttpRegistry, NamedTempFile)> {
    let file = NamedTempFile::new()?;
    std::fs::write(file.path(), authority.pem())?;
    let mut options = options(Policy {
        allow_private: true,
        ..Policy::default()
    });
    options.http.ca_file = Some(file.path().to_owned());
    Ok((HttpRegistry::new(RegistriesConfig::default(), &options)?, file))
}

#[tokio::test]
async fn the_ca_file_serves_registry_and_token_service() -> Result<()> {
    let authority = Authority::new()?;
    let registry = FakeRegistry::start_tls(bearer(), &authority).await?;
    registry.put("a", "1", &amd64("x"));
    let (client, _file) = trusting(&authority)?;
    assert!(client.digest(&image(&registry, "a:1")?, &right()).await?.private);
    let (stranger, _file) = trusting(&Authority::new()?)?;
    let error = stranger.digest(&image(&registry, "a:1")?, &right()).await.err();
    assert_eq!(error.map(|e| e.reason()), Some(Reason::RegistryUnreachable));
    Ok(())
}

#[tokio::test]
async fn a_token_service_on_another_host_gets_the_credentials_over_https() -> Result<()> {
    let authority = Authority::new()?;
    let registry = FakeRegistry::start_tls(bearer(), &authority).await?;
    let elsewhere = FakeRegistry::start_tls(bearer(), &authority).await?;
    let port = elsewhere.host().rsplit(':').next().unwrap_or_default().to_owned();
    registry.set_realm(format!("https://localhost:{port}/token"));
    let (client, _file) = trusting(&authority)?;
    // Its tokens are worth nothing to this registry.
    let error = client.digest(&image(&registry, "a:1")?, &right()).await.err();
    assert_eq!(error.map(|e| e.reason()), Some(Reason::Unauthorized));
    let log = asked(&elsewhere);
    assert!(log.contains(&"GET /token Basic".to_owned()), "{log:?}");
    Ok(())
}

#[tokio::test]
async fn a_token_service_over_plain_http_is_not_asked() -> Result<()> {
    let authority = Authority::new()?;
    let registry = FakeRegistry::start_tls(bearer(), &authority).await?;
    let elsewhere = FakeRegistry::start(bearer()).await?;
    registry.set_realm(format!("http://{}/token", elsewhere.host()));
    let (client, _file) = trusting(&authority)?;
    for credentials in [Credentials::anonymous(), right()] {
        let error = client.digest(&image(&registry, "a:1")?, &credentials).await.err();
        let words = error.map(|e| e.to_string()).unwrap_or_default();
        assert!(words.ends_with("is not asked over HTTPS"), "{words}");
    }
    assert_eq!(elsewhere.take_log(), []);
    Ok(())
}

#[tokio::test]
async fn a_redirect_to_plain_http_is_not_followed() -> Result<()> {
    let authority = Authority::new()?;
    let registry = FakeRegistry::start_tls(Auth::Open, &authority).await?;
    let elsewhere = FakeRegistry::start(Auth::Open).await?;
    registry.fault(
        "/v2/*",
        Fault::Redirect(format!("http://{}/v2/a/manifests/1", elsewhere.host())),
    );
    let (client, _file) = trusting(&authority)?;
    let error = client
        .digest(&image(&registry, "a:1")?, &Credentials::anonymous())
        .await
        .err();
    assert_eq!(
        error.map(|e| e.to_string()),
        Some(format!(
            "{}: redirects to http, which is not followed",
            registry.host()
        ))
    );
    assert_eq!(elsewhere.take_log(), []);
    Ok(())
}
