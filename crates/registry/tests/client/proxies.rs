//! Through a proxy: the fake registry answers for every host that it is asked for.

use anyhow::Result;
use larder_api::names::Reason;
use larder_core::image_ref::ImageRef;
use larder_registry::{
    Credentials, HttpOptions, HttpRegistry, Options, Proxies, RegistriesConfig, Registry, SafeHttp,
    address::Policy,
};
use larder_testkit::registry::{Auth, FakeRegistry};

use super::{amd64, asked, options, plain};

fn through(proxy: &FakeRegistry, none: &str) -> Options {
    let options = options(Policy::default());
    Options {
        http: HttpOptions {
            proxies: Proxies {
                http: Some(format!("http://{}", proxy.host())),
                https: Some(proxy.host()),
                none: none.to_owned(),
            },
            ..options.http
        },
        ..options
    }
}

// An address of documentation (RFC 5737): nobody is there, nor asked for a name.
const NOWHERE: &str = "192.0.2.1:5000";

#[tokio::test]
async fn registries_are_asked_through_the_proxy_whose_own_address_is_not_judged() -> Result<()> {
    let proxy = FakeRegistry::start(Auth::Open).await?;
    let digest = proxy.put("a", "1", &amd64("x"));
    let image = ImageRef::parse(&format!("{NOWHERE}/a:1"))?;
    let nobody = Credentials::anonymous();
    let client = HttpRegistry::new(plain(), &through(&proxy, ""))?;
    assert_eq!(client.digest(&image, &nobody).await?.digest, digest);
    assert_eq!(asked(&proxy), ["HEAD manifests/1"]);

    let client = HttpRegistry::new(RegistriesConfig::default(), &through(&proxy, ""))?;
    let error = client.digest(&image, &nobody).await.err();
    assert_eq!(error.map(|e| e.reason()), Some(Reason::RegistryUnreachable));
    let log = proxy.take_log();
    assert!(
        !log.is_empty() && log.iter().all(|e| e.method == "CONNECT"),
        "{log:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_proxy_is_not_asked_for_what_is_not_contacted() -> Result<()> {
    let proxy = FakeRegistry::start(Auth::Open).await?;
    let client = HttpRegistry::new(plain(), &through(&proxy, ""))?;
    for host in ["169.254.169.254", "127.0.0.1:6443", "localhost:6443"] {
        let image = ImageRef::parse(&format!("{host}/a:1"))?;
        let error = client.digest(&image, &Credentials::anonymous()).await.err();
        let words = error.map(|e| e.to_string()).unwrap_or_default();
        assert!(words.ends_with("which is not contacted"), "{host}: {words}");
    }
    assert_eq!(proxy.take_log(), []);
    Ok(())
}

#[tokio::test]
async fn exceptions_are_asked_directly() -> Result<()> {
    let proxy = FakeRegistry::start(Auth::Open).await?;
    let registry = FakeRegistry::start(Auth::Open).await?;
    let digest = registry.put("a", "1", &amd64("x"));
    let config = RegistriesConfig::parse(&format!(
        "{}: {{plainHTTP: true, allowPrivate: true}}",
        registry.host()
    ))?;
    let client = HttpRegistry::new(config, &through(&proxy, "127.0.0.0/8"))?;
    let head = client
        .digest(&super::image(&registry, "a:1")?, &Credentials::anonymous())
        .await?;
    assert_eq!(head.digest, digest);
    assert_eq!(proxy.take_log(), []);
    Ok(())
}

#[test]
fn a_proxy_that_is_none_is_told_at_the_start() {
    let options = HttpOptions {
        proxies: Proxies {
            http: Some("socks5://a.io:1".to_owned()),
            ..Proxies::default()
        },
        ..HttpOptions::default()
    };
    assert!(SafeHttp::new(&options).is_err());
}
