//! Whom the client contacts, whoever asks for it.

use anyhow::Result;
use larder_api::names::Reason;
use larder_core::image_ref::ImageRef;
use larder_registry::{Credentials, HttpRegistry, RegistriesConfig, Registry, RegistryHost, address::Policy};
use larder_testkit::registry::{Auth, FakeRegistry, Fault};

use super::{amd64, asked, image, options, plain, refusal, right};

/// Judges addresses, but those of these hosts.
fn strict(listed: &[&FakeRegistry]) -> Result<HttpRegistry> {
    let how = RegistryHost {
        plain_http: true,
        allow_private: true,
        ..RegistryHost::default()
    };
    let config = listed.iter().fold(plain(), |config, registry| {
        config.with(registry.host(), how.clone())
    });
    Ok(HttpRegistry::new(config, &options(Policy::default()))?)
}

#[tokio::test]
async fn a_loopback_address_is_not_contacted() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    registry.put("a", "1", &amd64("x"));
    let port = registry.host().rsplit(':').next().unwrap_or_default().to_owned();
    let client = strict(&[])?;
    // By name too: what counts is where it leads.
    for host in [registry.host(), format!("localhost:{port}")] {
        let image = ImageRef::parse(&format!("{host}/a:1"))?;
        let error = refusal(&client, &image, &Credentials::anonymous()).await?;
        assert_eq!(
            (error.reason(), error.to_string()),
            (
                Reason::RegistryUnreachable,
                format!("{host}: leads to a loopback address, which is not contacted")
            )
        );
    }
    assert_eq!(registry.take_log(), []);
    Ok(())
}

#[tokio::test]
async fn a_listed_registry_is_contacted_wherever_it_is() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    let digest = registry.put("a", "1", &amd64("x"));
    let head = strict(&[&registry])?
        .digest(&image(&registry, "a:1")?, &Credentials::anonymous())
        .await?;
    assert_eq!(head.digest, digest);
    Ok(())
}

#[tokio::test]
async fn denied_ranges_are_denied_to_everybody() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    let policy = Policy {
        allow_private: true,
        deny: vec!["127.0.0.0/8".parse()?],
        ..Policy::default()
    };
    let client = HttpRegistry::new(plain(), &options(policy))?;
    let error = refusal(&client, &image(&registry, "a:1")?, &Credentials::anonymous()).await?;
    assert!(error.to_string().contains("denied range"), "{error}");
    assert_eq!(registry.take_log(), []);
    Ok(())
}

#[tokio::test]
async fn a_mirror_is_judged_like_a_registry() -> Result<()> {
    let mirror = FakeRegistry::start(Auth::Open).await?;
    let digest = mirror.put("library/nginx", "1", &amd64("x"));
    let nginx = ImageRef::parse("nginx:1")?;
    for (allow, expected) in [(false, None), (true, Some(digest))] {
        let yaml = format!(
            "docker.io: {{mirror: 'http://{}', allowPrivate: {allow}}}",
            mirror.host()
        );
        let client = HttpRegistry::new(RegistriesConfig::parse(&yaml)?, &options(Policy::default()))?;
        let answer = client.digest(&nginx, &Credentials::anonymous()).await;
        assert_eq!(answer.ok().map(|h| h.digest), expected);
    }
    Ok(())
}

#[tokio::test]
async fn a_listed_registry_opens_the_way_to_no_other_host() -> Result<()> {
    let inner = FakeRegistry::start(Auth::Open).await?;
    let bearer = Auth::Bearer {
        user: super::USER.to_owned(),
        password: super::PASSWORD.to_owned(),
        public: Vec::new(),
        lifetime: std::time::Duration::from_mins(5),
    };
    for (auth, fault) in [
        (
            Auth::Open,
            Some(Fault::Redirect(format!(
                "http://{}/v2/a/manifests/1",
                inner.host()
            ))),
        ),
        (bearer, None),
    ] {
        let registry = FakeRegistry::start(auth).await?;
        registry.set_realm(format!("http://{}/token", inner.host()));
        if let Some(fault) = fault {
            registry.fault("/v2/a/*", fault);
        }
        let error = refusal(&strict(&[&registry])?, &image(&registry, "a:1")?, &right()).await?;
        assert_eq!(
            error.to_string(),
            format!(
                "{}: leads to a loopback address, which is not contacted",
                inner.host()
            )
        );
        assert_eq!(asked(&registry), ["HEAD manifests/1"]);
    }
    assert_eq!(inner.take_log(), []);
    Ok(())
}
