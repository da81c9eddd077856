//! The same assertions about the fake registry and about the real one.

use anyhow::Result;
use larder_testkit::registry::{
    Auth, Authority, DockerRegistry, FakeRegistry, RegistryUnderTest, Setup, conformance,
};

async fn fake(credentials: Option<(&str, &str)>) -> Result<()> {
    let own = |(user, password): (&str, &str)| (user.to_owned(), password.to_owned());
    let credentials = credentials.map(own);
    let auth = match credentials.clone() {
        Some((user, password)) => Auth::Basic { user, password },
        None => Auth::Open,
    };
    let registry = FakeRegistry::start(auth).await?;
    conformance(RegistryUnderTest {
        host: registry.host(),
        credentials,
        ca_file: None,
    })
    .await
}

async fn real(setup: Setup) -> Result<()> {
    let registry = DockerRegistry::start(setup).await?;
    conformance(registry.under_test()).await
}

#[tokio::test]
async fn fake_open() -> Result<()> {
    fake(None).await
}

#[tokio::test]
async fn fake_with_password() -> Result<()> {
    fake(Some(("larder", "s3cret"))).await
}

#[tokio::test]
async fn fake_over_tls() -> Result<()> {
    let authority = Authority::new()?;
    let registry = FakeRegistry::start_tls(Auth::Open, &authority).await?;
    let ca_file = tempfile::NamedTempFile::new()?;
    std::fs::write(ca_file.path(), authority.pem())?;
    conformance(RegistryUnderTest {
        host: registry.host(),
        credentials: None,
        ca_file: Some(ca_file.path().to_owned()),
    })
    .await
}

#[tokio::test]
async fn real_open() -> Result<()> {
    real(Setup::default()).await
}

#[tokio::test]
async fn real_with_password() -> Result<()> {
    real(Setup {
        password: true,
        tls: false,
    })
    .await
}

#[tokio::test]
async fn real_with_password_over_tls() -> Result<()> {
    real(Setup {
        password: true,
        tls: true,
    })
    .await
}
