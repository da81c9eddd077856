//! Passwords and tokens: which are used, in which order, and how often they are asked for.

use std::time::Duration;

use anyhow::Result;
use larder_api::names::Reason;
use larder_registry::{Credential, Credentials, Registry};
use larder_testkit::registry::{Auth, FakeRegistry, Fault};

use super::{PASSWORD, USER, amd64, asked, basic, client, image, password, right};

fn bearer(lifetime: Duration) -> Auth {
    Auth::Bearer {
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
        public: vec!["public".to_owned()],
        lifetime,
    }
}

async fn token_registry(lifetime: Duration) -> Result<FakeRegistry> {
    let registry = FakeRegistry::start(bearer(lifetime)).await?;
    registry.put("public", "1", &amd64("x"));
    registry.put("private", "1", &amd64("x"));
    Ok(registry)
}

#[tokio::test]
async fn a_password_is_given_only_when_asked_for() -> Result<()> {
    let registry = FakeRegistry::start(basic()).await?;
    registry.put("a", "1", &amd64("x"));
    let (client, image) = (client()?, image(&registry, "a:1")?);
    assert!(client.digest(&image, &right()).await?.private);
    assert_eq!(asked(&registry), ["HEAD manifests/1", "HEAD manifests/1 Basic"]);
    // Not known to be private: it may have become public meanwhile.
    assert!(client.digest(&image, &right()).await?.private);
    assert_eq!(asked(&registry), ["HEAD manifests/1", "HEAD manifests/1 Basic"]);
    Ok(())
}

#[tokio::test]
async fn a_private_tag_costs_one_head_once_it_is_known() -> Result<()> {
    let registry = FakeRegistry::start(basic()).await?;
    registry.put("a", "1", &amd64("x"));
    let (client, image) = (client()?, image(&registry, "a:1")?);
    client.digest(&image, &right()).await?;
    asked(&registry);
    assert!(client.digest(&image, &right().known_private(true)).await?.private);
    assert_eq!(asked(&registry), ["HEAD manifests/1 Basic"]);
    Ok(())
}

#[tokio::test]
async fn what_is_no_longer_private_is_found_without_its_old_password() -> Result<()> {
    let registry = token_registry(Duration::from_mins(5)).await?;
    let wrong = Credentials::new(vec![password("old")]).known_private(true);
    assert!(
        !client()?
            .digest(&image(&registry, "public:1")?, &wrong)
            .await?
            .private
    );
    Ok(())
}

#[tokio::test]
async fn credentials_are_tried_in_turn() -> Result<()> {
    let registry = FakeRegistry::start(basic()).await?;
    registry.put("a", "1", &amd64("x"));
    let (client, image) = (client()?, image(&registry, "a:1")?);
    let three = Credentials::new(vec![
        password("wrong"),
        password(PASSWORD),
        password("not needed"),
    ]);
    assert!(client.digest(&image, &three).await?.private);
    assert_eq!(
        asked(&registry),
        [
            "HEAD manifests/1",
            "HEAD manifests/1 Basic",
            "HEAD manifests/1 Basic"
        ]
    );
    Ok(())
}

#[tokio::test]
async fn refusals_carry_the_registrys_words() -> Result<()> {
    let registry = FakeRegistry::start(basic()).await?;
    registry.put("a", "1", &amd64("x"));
    let (client, image) = (client()?, image(&registry, "a:1")?);
    let table = [
        (
            vec![],
            Reason::CredentialsMissing,
            format!(
                "no credentials for {}: 401 Unauthorized: authentication required",
                registry.host()
            ),
        ),
        (
            vec![password("wrong")],
            Reason::Unauthorized,
            "401 Unauthorized: authentication required".to_owned(),
        ),
        // A token has no meaning where a password is asked for.
        (
            vec![Credential::IdentityToken {
                token: PASSWORD.to_owned(),
            }],
            Reason::Unauthorized,
            "401 Unauthorized: authentication required".to_owned(),
        ),
    ];
    for (credentials, reason, words) in table {
        for known_private in [false, true] {
            let credentials = Credentials::new(credentials.clone()).known_private(known_private);
            let error = client.digest(&image, &credentials).await.err();
            assert_eq!(error.as_ref().map(ToString::to_string).as_ref(), Some(&words));
            assert_eq!(error.map(|e| (e.reason(), e.retryable())), Some((reason, false)));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_token_is_fetched_once() -> Result<()> {
    let registry = token_registry(Duration::from_mins(5)).await?;
    let (client, image) = (client()?, image(&registry, "public:1")?);
    assert!(!client.digest(&image, &right()).await?.private);
    assert_eq!(
        asked(&registry),
        ["HEAD manifests/1", "GET /token", "HEAD manifests/1 Bearer"]
    );
    for _ in 0..2 {
        client.digest(&image, &right()).await?;
        assert_eq!(asked(&registry), ["HEAD manifests/1 Bearer"]);
    }
    Ok(())
}

#[tokio::test]
async fn tokens_that_end_soon_are_not_kept() -> Result<()> {
    let registry = token_registry(Duration::from_secs(9)).await?;
    let (client, image) = (client()?, image(&registry, "public:1")?);
    client.digest(&image, &right()).await?;
    asked(&registry);
    client.digest(&image, &right()).await?;
    assert_eq!(asked(&registry), ["GET /token", "HEAD manifests/1 Bearer"]);
    Ok(())
}

#[tokio::test]
async fn tokens_of_one_credential_do_not_serve_another() -> Result<()> {
    let registry = token_registry(Duration::from_mins(5)).await?;
    let (client, image) = (client()?, image(&registry, "private:1")?);
    assert!(client.digest(&image, &right()).await?.private);
    asked(&registry);
    // Known to be private: one HEAD, with the token that was kept.
    assert!(client.digest(&image, &right().known_private(true)).await?.private);
    assert_eq!(asked(&registry), ["HEAD manifests/1 Bearer"]);

    let wrong = Credentials::new(vec![password("wrong")]);
    let error = client.digest(&image, &wrong).await.err();
    assert_eq!(
        error.as_ref().map(ToString::to_string).as_deref(),
        Some("token service: 401 Unauthorized: incorrect username or password")
    );
    assert_eq!(error.map(|e| e.reason()), Some(Reason::Unauthorized));
    // Without any, a registry of tokens does not say whether they would help.
    let error = client.digest(&image, &Credentials::anonymous()).await.err();
    assert_eq!(error.map(|e| e.reason()), Some(Reason::Unauthorized));
    Ok(())
}

#[tokio::test]
async fn an_identity_token_is_exchanged() -> Result<()> {
    let registry = token_registry(Duration::from_mins(5)).await?;
    let (client, image) = (client()?, image(&registry, "private:1")?);
    let token = |token: &str| {
        Credentials::new(vec![Credential::IdentityToken {
            token: token.to_owned(),
        }])
    };
    assert!(client.digest(&image, &token(PASSWORD)).await?.private);
    let log = asked(&registry);
    assert!(log.contains(&"POST /token".to_owned()), "{log:?}");
    let error = client
        .digest(&image, &token("wrong"))
        .await
        .err()
        .map(|e| e.reason());
    assert_eq!(error, Some(Reason::Unauthorized));
    Ok(())
}

#[tokio::test]
async fn a_token_service_out_of_order_is_not_a_refusal() -> Result<()> {
    let registry = token_registry(Duration::from_mins(5)).await?;
    let image = image(&registry, "private:1")?;
    let table = [
        (
            Fault::Status {
                status: 503,
                retry_after: Some("7"),
            },
            Reason::RegistryUnreachable,
        ),
        (
            Fault::Status {
                status: 429,
                retry_after: Some("7"),
            },
            Reason::RateLimited,
        ),
    ];
    for (fault, reason) in table {
        registry.fault("/token", fault);
        let error = client()?.digest(&image, &right()).await.err();
        let told = error.map(|e| (e.reason(), e.retryable(), e.retry_after()));
        assert_eq!(told, Some((reason, true, Some(Duration::from_secs(7)))));
    }
    registry.fault("/token", Fault::OtherBytes(br#"{"token": 5}"#.to_vec()));
    let error = client()?
        .digest(&image, &right())
        .await
        .err()
        .map(|e| e.to_string());
    let words = format!(
        "{} does not answer as a registry: its token service does not answer with a token",
        registry.host()
    );
    assert_eq!(error, Some(words));
    Ok(())
}

#[tokio::test]
async fn platforms_of_private_images_are_fetched_with_their_credentials() -> Result<()> {
    for auth in [basic(), bearer(Duration::from_mins(5))] {
        let registry = FakeRegistry::start(auth).await?;
        let digest = registry.put("private", "1", &amd64("x"));
        let (client, image) = (client()?, image(&registry, "private:1")?);
        assert_eq!(client.platforms(&image, &digest, &right(), &[]).await?.len(), 1);
        let refused = client
            .platforms(&image, &digest, &Credentials::anonymous(), &[])
            .await;
        assert!(matches!(
            refused.err().map(|e| e.reason()),
            Some(Reason::CredentialsMissing | Reason::Unauthorized)
        ));
    }
    Ok(())
}

#[tokio::test]
async fn a_token_service_on_another_host_gets_no_credentials_over_plain_http() -> Result<()> {
    let registry = token_registry(Duration::from_mins(5)).await?;
    let elsewhere = token_registry(Duration::from_mins(5)).await?;
    let port = elsewhere.host().rsplit(':').next().unwrap_or_default().to_owned();
    registry.set_realm(format!("http://localhost:{port}/token"));
    let error = client()?
        .digest(&image(&registry, "private:1")?, &right())
        .await
        .err();
    let words = format!(
        "localhost, the token service, gets no credentials: {} is asked over plain HTTP",
        registry.host()
    );
    assert_eq!(error.as_ref().map(ToString::to_string), Some(words));
    assert_eq!(error.map(|e| e.reason()), Some(Reason::Unauthorized));
    // It was asked for nobody's token alone.
    let log = asked(&elsewhere);
    assert!(
        !log.is_empty() && log.iter().all(|line| line == "GET /token"),
        "{log:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_token_service_on_another_port_of_the_host_is_the_registrys() -> Result<()> {
    let registry = token_registry(Duration::from_mins(5)).await?;
    let elsewhere = token_registry(Duration::from_mins(5)).await?;
    registry.set_realm(format!("http://{}/token", elsewhere.host()));
    // Its tokens are worth nothing to this registry.
    let error = client()?
        .digest(&image(&registry, "private:1")?, &right())
        .await
        .err();
    assert_eq!(error.map(|e| e.reason()), Some(Reason::Unauthorized));
    let log = asked(&elsewhere);
    assert!(log.contains(&"GET /token Basic".to_owned()), "{log:?}");
    Ok(())
}
