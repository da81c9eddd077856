//! Mirrors, plain HTTP and authorities, as the registries configuration has them.

use std::path::PathBuf;

use anyhow::Result;
use larder_api::names::Reason;
use larder_core::image_ref::ImageRef;
use larder_registry::{
    ConfigError, Credentials, HttpRegistry, Options, RegistriesConfig, Registry, RegistryHost,
};
use larder_testkit::registry::{Auth, DockerRegistry, FakeRegistry, Setup};

use super::{amd64, basic, client_with, image, right};

#[tokio::test]
async fn a_mirror_is_asked_in_the_place_of_the_host() -> Result<()> {
    let mirror = FakeRegistry::start(Auth::Open).await?;
    let digest = mirror.put("library/nginx", "1.27", &amd64("x"));
    let config = RegistriesConfig::parse(&format!("docker.io:\n  mirror: http://{}\n", mirror.host()))?;
    let client = client_with(config)?;
    let nginx = ImageRef::parse("nginx:1.27")?;
    let nobody = Credentials::anonymous();
    assert_eq!(client.digest(&nginx, &nobody).await?.digest, digest);
    assert_eq!(client.platforms(&nginx, &digest, &nobody, &[]).await?.len(), 1);
    let log = mirror.take_log();
    assert_eq!(log[0].path, "/v2/library/nginx/manifests/1.27");
    let queries: Vec<_> = log.iter().map(|e| e.query.as_str()).collect();
    assert_eq!(queries, ["ns=docker.io"; 3]);
    Ok(())
}

#[tokio::test]
async fn the_port_of_a_mirrored_host_is_encoded_and_the_mirrors_path_kept() -> Result<()> {
    let mirror = FakeRegistry::start(Auth::Open).await?;
    let yaml = format!("\"*\":\n  mirror: http://{}/base/\n", mirror.host());
    let client = client_with(RegistriesConfig::parse(&yaml)?)?;
    let there = client
        .digest(&ImageRef::parse("10.77.0.3:5000/a:1")?, &Credentials::anonymous())
        .await;
    assert_eq!(there.err().map(|e| e.reason()), Some(Reason::NotFound));
    let log = mirror.take_log();
    assert_eq!(
        (log[0].path.as_str(), log[0].query.as_str()),
        ("/base/v2/a/manifests/1", "ns=10.77.0.3%3A5000")
    );
    Ok(())
}

#[tokio::test]
async fn a_mirror_gets_the_credentials_of_the_host() -> Result<()> {
    let mirror = FakeRegistry::start(basic()).await?;
    mirror.put("library/nginx", "1.27", &amd64("x"));
    let config = RegistriesConfig::parse(&format!("docker.io: {{mirror: 'http://{}'}}", mirror.host()))?;
    assert!(
        client_with(config)?
            .digest(&ImageRef::parse("nginx:1.27")?, &right())
            .await?
            .private
    );
    Ok(())
}

#[tokio::test]
async fn https_is_spoken_unless_told_otherwise() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    registry.put("a", "1", &amd64("x"));
    let client = client_with(RegistriesConfig::default())?;
    let error = client
        .digest(&image(&registry, "a:1")?, &Credentials::anonymous())
        .await
        .err();
    assert_eq!(error.map(|e| e.reason()), Some(Reason::RegistryUnreachable));
    assert_eq!(registry.take_log(), []);
    Ok(())
}

#[tokio::test]
async fn an_unknown_authority_is_not_trusted() -> Result<()> {
    let registry = DockerRegistry::start(Setup {
        password: false,
        tls: true,
    })
    .await?;
    let image = ImageRef::parse(&format!("{}/a:1", registry.under_test().host))?;
    let error = client_with(RegistriesConfig::default())?
        .digest(&image, &Credentials::anonymous())
        .await
        .err();
    let words = error.as_ref().map(ToString::to_string).unwrap_or_default();
    assert!(words.contains("certificate"), "{words}");
    assert_eq!(error.map(|e| e.reason()), Some(Reason::RegistryUnreachable));
    Ok(())
}

#[test]
fn authorities_are_read_at_once() -> Result<()> {
    let with = |path: PathBuf| {
        let how = RegistryHost {
            ca_file: Some(path),
            ..RegistryHost::default()
        };
        HttpRegistry::new(RegistriesConfig::default().with("a.io", how), &Options::default()).err()
    };
    assert!(matches!(
        with("/nowhere/ca.pem".into()),
        Some(ConfigError::Read { .. })
    ));
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ca.pem");
    for text in [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&path, text)?;
        let error = with(path.clone());
        assert!(
            matches!(
                error,
                Some(ConfigError::Certificates { .. } | ConfigError::Client(_))
            ),
            "{text}: {error:?}"
        );
    }
    Ok(())
}
