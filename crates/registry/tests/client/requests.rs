//! How often the registry is asked, and for what.

use anyhow::Result;
use larder_registry::{Credentials, Platform, Registry};
use larder_testkit::registry::{Auth, FakeRegistry, Fault, MediaTypes, TestImage};

use super::{amd64, asked, client, image};

#[tokio::test]
async fn a_tag_costs_one_head() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    let digest = registry.put("a/b", "1", &amd64("x"));
    let (client, image) = (client()?, image(&registry, "a/b:1")?);
    for _ in 0..3 {
        let head = client.digest(&image, &Credentials::anonymous()).await?;
        assert_eq!((head.digest.as_str(), head.private), (digest.as_str(), false));
        assert_eq!(asked(&registry), ["HEAD manifests/1"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_moved_tag_has_another_digest() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    let old = registry.put("a/b", "1", &amd64("old"));
    let (client, image) = (client()?, image(&registry, "a/b:1")?);
    assert_eq!(
        client.digest(&image, &Credentials::anonymous()).await?.digest,
        old
    );
    let new = registry.put("a/b", "1", &amd64("new"));
    assert_eq!(
        client.digest(&image, &Credentials::anonymous()).await?.digest,
        new
    );
    assert_ne!(old, new);
    Ok(())
}

#[tokio::test]
async fn a_digest_is_asked_for_by_itself() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    let digest = registry.put("a/b", "1", &amd64("x"));
    registry.put("a/b", "1", &amd64("moved"));
    let (client, image) = (client()?, image(&registry, &format!("a/b:1@{digest}"))?);
    assert_eq!(
        client.digest(&image, &Credentials::anonymous()).await?.digest,
        digest
    );
    assert_eq!(asked(&registry), [format!("HEAD manifests/{digest}")]);
    Ok(())
}

#[tokio::test]
async fn get_serves_where_head_does_not() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    let digest = registry.put("a/b", "1", &amd64("x"));
    let (client, image) = (client()?, image(&registry, "a/b:1")?);
    for fault in [Fault::NoHead, Fault::NoDigest] {
        registry.fault("/v2/a/b/manifests/1", fault);
        assert_eq!(
            client.digest(&image, &Credentials::anonymous()).await?.digest,
            digest
        );
        assert_eq!(asked(&registry), ["HEAD manifests/1", "GET manifests/1"]);
    }
    Ok(())
}

#[tokio::test]
async fn only_wanted_platforms_are_fetched() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    let one = |platform: &str| TestImage::new(MediaTypes::Docker, platform, &[platform.as_bytes()]);
    let index = TestImage::index(vec![
        one("linux/amd64"),
        one("linux/arm/v6"),
        one("linux/arm/v7"),
        one("unknown/unknown"),
        one("windows/amd64"),
    ]);
    let digest = registry.put("a/b", "1", &index);
    let (client, image) = (client()?, image(&registry, "a/b:1")?);
    let nobody = Credentials::anonymous();

    let wanted = [Platform::new("linux", "amd64"), Platform::new("linux", "riscv64")];
    let found = client.platforms(&image, &digest, &nobody, &wanted).await?;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].digest, index.children[0].digest());
    assert_eq!(found[0].size_bytes, index.children[0].size_bytes());
    let child = index.children[0].digest();
    assert_eq!(
        asked(&registry),
        [
            format!("GET manifests/{digest}"),
            format!("GET manifests/{child}")
        ]
    );

    let v7 = Platform {
        variant: Some("v7".to_owned()),
        ..Platform::new("linux", "arm")
    };
    let found = client.platforms(&image, &digest, &nobody, &[v7]).await?;
    let variants: Vec<_> = found.iter().map(|p| p.variant.as_deref()).collect();
    assert_eq!(variants, [Some("v7")]);

    let found = client
        .platforms(&image, &digest, &nobody, &[Platform::new("linux", "arm")])
        .await?;
    assert_eq!(found.len(), 2);
    // All but the attestation.
    assert_eq!(client.platforms(&image, &digest, &nobody, &[]).await?.len(), 4);
    Ok(())
}

#[tokio::test]
async fn an_index_may_lack_images() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    let index = TestImage::index(vec![amd64("x")]);
    let digest = registry.put("a/b", "1", &index);
    registry.remove("a/b", &index.children[0].digest());
    let image = image(&registry, "a/b:1")?;
    let found = client()?
        .platforms(&image, &digest, &Credentials::anonymous(), &[])
        .await?;
    let found: Vec<_> = found
        .iter()
        .map(|p| (p.architecture.as_str(), p.size_bytes))
        .collect();
    assert_eq!(found, [("amd64", 0)]);
    Ok(())
}

#[tokio::test]
async fn platforms_are_bounded() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    let one = |i: i32| TestImage::new(MediaTypes::Oci, &format!("linux/cpu{i}"), &[b"x"]);
    let digest = registry.put("a/b", "1", &TestImage::index((0..30).map(one).collect()));
    let image = image(&registry, "a/b:1")?;
    assert_eq!(
        client()?
            .platforms(&image, &digest, &Credentials::anonymous(), &[])
            .await?
            .len(),
        20
    );
    Ok(())
}
