//! A registry is asked no more than it bears.

use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use larder_api::names::Reason;
use larder_registry::{Credentials, Registry};
use larder_testkit::registry::{Auth, FakeRegistry, Fault};

use super::{amd64, asked, basic, client, image, refusal, right, token_auth};

fn later(status: u16, retry_after: Option<&'static str>) -> Fault {
    Fault::Status { status, retry_after }
}

#[tokio::test]
async fn a_registry_that_said_later_is_left_alone() -> Result<()> {
    let nobody = Credentials::anonymous();
    for (status, reason) in [(429, Reason::RateLimited), (503, Reason::RegistryUnreachable)] {
        let registry = FakeRegistry::start(Auth::Open).await?;
        registry.put("a", "1", &amd64("x"));
        registry.put("b", "1", &amd64("x"));
        registry.fault("/v2/a/*", later(status, Some("2")));
        let client = client()?;
        let first = refusal(&client, &image(&registry, "a:1")?, &nobody).await?;
        assert_eq!(
            (first.reason(), first.retryable(), first.retry_after()),
            (reason, true, Some(Duration::from_secs(2)))
        );
        assert_eq!(asked(&registry), ["HEAD manifests/1"]);
        // Other images of the registry are not asked for either, and are told the same.
        let second = refusal(&client, &image(&registry, "b:1")?, &nobody).await?;
        assert_eq!((second.reason(), second.to_string()), (reason, first.to_string()));
        assert!(
            second.to_string().contains("; not asked again before 20"),
            "{second}"
        );
        assert_eq!(registry.take_log(), []);

        tokio::time::sleep(Duration::from_millis(2100)).await;
        client.digest(&image(&registry, "b:1")?, &nobody).await?;
        assert_eq!(asked(&registry), ["HEAD manifests/1"]);
    }
    Ok(())
}

#[tokio::test]
async fn many_images_of_a_registry_that_says_later_cost_few_requests() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    registry.fault("/v2/*", later(429, None));
    let (client, nobody) = (client()?, Credentials::anonymous());
    let images: Result<Vec<_>> = (0..50).map(|i| image(&registry, &format!("a:{i}"))).collect();
    let images = images?;
    let errors = join_all(images.iter().map(|image| refusal(&client, image, &nobody))).await;
    for error in errors {
        assert_eq!(error?.reason(), Reason::RateLimited);
    }
    assert!(registry.take_log().len() <= 8);
    Ok(())
}

#[tokio::test]
async fn who_is_known_by_a_password_does_not_wait_for_nobody() -> Result<()> {
    let registry = FakeRegistry::start(basic()).await?;
    registry.put("a", "1", &amd64("x"));
    let (client, image) = (client()?, image(&registry, "a:1")?);
    registry.fault("/v2/*", later(429, Some("60")));
    refusal(&client, &image, &Credentials::anonymous()).await?;
    registry.clear_faults();
    assert!(client.digest(&image, &right().known_private(true)).await?.private);
    Ok(())
}

#[tokio::test]
async fn manifests_are_fetched_with_a_password_where_nobody_gets_more() -> Result<()> {
    let registry = token_registry().await?;
    let digest = registry.put("a", "1", &amd64("x"));
    let (client, image) = (client()?, image(&registry, "a:1")?);
    assert!(!client.digest(&image, &right()).await?.private);
    registry.fault("/v2/*", later(429, Some("60")));
    let nobody = Credentials::anonymous();
    assert!(client.platforms(&image, &digest, &nobody, &[]).await.is_err());
    registry.clear_faults();
    let refused = client.platforms(&image, &digest, &nobody, &[]).await.err();
    assert_eq!(refused.map(|e| e.reason()), Some(Reason::RateLimited));
    assert_eq!(client.platforms(&image, &digest, &right(), &[]).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn eight_at_a_time() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    registry.put("a", "1", &amd64("x"));
    registry.fault("/v2/*", Fault::Slow(Duration::from_millis(500)));
    let (client, nobody) = (client()?, Credentials::anonymous());
    let image = image(&registry, "a:1")?;
    let answers = join_all((0..24).map(|_| client.digest(&image, &nobody))).await;
    assert!(answers.into_iter().all(|a| a.is_ok()));
    assert_eq!(registry.most_at_a_time(), 8);
    Ok(())
}

#[tokio::test]
async fn what_remains_is_told_and_none_is_a_later() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    let image = image(&registry, "a:1")?;
    registry.put("a", "1", &amd64("x"));
    let (client, nobody) = (client()?, Credentials::anonymous());
    let headers = |remaining| {
        Fault::Headers(vec![
            ("ratelimit-limit", "100;w=60"),
            ("ratelimit-remaining", remaining),
            ("ratelimit-reset", "60"),
        ])
    };
    registry.fault("/v2/*", headers("76;w=60"));
    client.digest(&image, &nobody).await?;
    let budgets = client.budgets();
    assert_eq!(budgets.len(), 1);
    assert_eq!(
        (&budgets[0].0, budgets[0].1.remaining, budgets[0].1.limit),
        (&registry.host(), 76, Some(100))
    );
    registry.fault("/v2/*", headers("0;w=60"));
    client.digest(&image, &nobody).await?;
    asked(&registry);
    let error = refusal(&client, &image, &nobody).await?;
    assert_eq!(error.reason(), Reason::RateLimited);
    assert!(
        error
            .to_string()
            .starts_with(&format!("{} allows no more requests; not asked", registry.host())),
        "{error}"
    );
    assert_eq!(registry.take_log(), []);
    Ok(())
}

async fn token_registry() -> Result<FakeRegistry> {
    let registry = FakeRegistry::start(token_auth("a")).await?;
    registry.put("a", "1", &amd64("x"));
    Ok(registry)
}

#[tokio::test]
async fn a_401_after_a_tokens_end_costs_one_new_token() -> Result<()> {
    let registry = token_registry().await?;
    let (client, image) = (client()?, image(&registry, "a:1")?);
    let nobody = Credentials::anonymous();
    client.digest(&image, &nobody).await?;
    asked(&registry);
    registry.revoke_tokens();
    client.digest(&image, &nobody).await?;
    assert_eq!(
        asked(&registry),
        ["HEAD manifests/1 Bearer", "GET /token", "HEAD manifests/1 Bearer"]
    );
    registry.revoke_tokens();
    let answers = join_all((0..8).map(|_| client.digest(&image, &nobody))).await;
    assert!(answers.into_iter().all(|a| a.is_ok()));
    let tokens = asked(&registry).into_iter().filter(|line| line == "GET /token");
    assert_eq!(tokens.count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_refused_anew_is_not_fetched_for_ever() -> Result<()> {
    let registry = token_registry().await?;
    registry.put("private", "1", &amd64("x"));
    let image = image(&registry, "private:1")?;
    let error = refusal(&client()?, &image, &Credentials::anonymous()).await?;
    assert_eq!(error.reason(), Reason::Unauthorized);
    let tokens = asked(&registry).into_iter().filter(|line| line == "GET /token");
    assert!(tokens.count() <= 2);
    Ok(())
}

#[tokio::test]
async fn a_token_service_that_said_later_is_left_alone() -> Result<()> {
    let registry = token_registry().await?;
    registry.fault("/token", later(429, Some("60")));
    let (client, image) = (client()?, image(&registry, "a:1")?);
    let first = refusal(&client, &image, &Credentials::anonymous()).await?;
    assert_eq!(asked(&registry), ["HEAD manifests/1", "GET /token"]);
    let second = refusal(&client, &image, &Credentials::anonymous()).await?;
    assert_eq!(second.to_string(), first.to_string());
    assert_eq!(registry.take_log(), []);
    Ok(())
}
