//! Redirects are followed, but credentials stay at home.

use anyhow::Result;
use larder_api::names::Reason;
use larder_registry::{Credentials, Registry};
use larder_testkit::registry::{Auth, FakeRegistry, Fault};

use super::{amd64, asked, basic, client, image, right};

#[tokio::test]
async fn credentials_do_not_follow_to_another_host() -> Result<()> {
    let (registry, elsewhere) = (
        FakeRegistry::start(basic()).await?,
        FakeRegistry::start(Auth::Open).await?,
    );
    registry.put("a", "1", &amd64("x"));
    registry.put("a", "here", &amd64("x"));
    let digest = elsewhere.put("a", "1", &amd64("there"));
    let client = client()?;
    // From now on the registry is known to ask for a password.
    client.digest(&image(&registry, "a:1")?, &right()).await?;
    asked(&registry);

    let to = format!("http://{}/v2/a/manifests/1", elsewhere.host());
    registry.fault("/v2/a/manifests/1", Fault::Redirect(to));
    let known = right().known_private(true);
    assert_eq!(
        client.digest(&image(&registry, "a:1")?, &known).await?.digest,
        digest
    );
    assert_eq!(asked(&registry), ["HEAD manifests/1 Basic"]);
    assert_eq!(asked(&elsewhere), ["HEAD manifests/1"]);

    registry.fault(
        "/v2/a/manifests/1",
        Fault::Redirect("/v2/a/manifests/here".to_owned()),
    );
    client.digest(&image(&registry, "a:1")?, &known).await?;
    assert_eq!(
        asked(&registry),
        ["HEAD manifests/1 Basic", "HEAD manifests/here Basic"]
    );
    Ok(())
}

#[tokio::test]
async fn who_is_redirected_to_may_not_ask_for_credentials() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    let elsewhere = FakeRegistry::start(basic()).await?;
    registry.fault(
        "/v2/a/*",
        Fault::Redirect(format!("http://{}/v2/a/manifests/1", elsewhere.host())),
    );
    let error = client()?.digest(&image(&registry, "a:1")?, &right()).await.err();
    // Nor are its words told.
    assert_eq!(
        error.as_ref().map(ToString::to_string).as_deref(),
        Some("401 Unauthorized")
    );
    assert_eq!(error.map(|e| e.reason()), Some(Reason::Unauthorized));
    let log = elsewhere.take_log();
    assert!(
        !log.is_empty() && log.iter().all(|e| e.authorization.is_none()),
        "{log:?}"
    );
    Ok(())
}

#[tokio::test]
async fn loops_end() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    registry.fault("/v2/a/*", Fault::Redirect("/v2/a/manifests/1".to_owned()));
    let error = client()?
        .digest(&image(&registry, "a:1")?, &Credentials::anonymous())
        .await
        .err();
    assert_eq!(
        error.as_ref().map(ToString::to_string),
        Some(format!("{}: more than 5 redirects", registry.host()))
    );
    assert_eq!(error.map(|e| e.reason()), Some(Reason::RegistryUnreachable));
    assert_eq!(asked(&registry).len(), 6);
    Ok(())
}
