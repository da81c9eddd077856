//! The client against the fake registry: which requests it makes, with which credentials, and what it makes of faults.

mod address;
mod authentication;
mod faults;
mod mirrors;
mod proxies;
mod redirects;
mod requests;
mod safe_http;
mod tags;
mod tls;
mod waiting;

use std::time::Duration;

use anyhow::{Context as _, Result};
use larder_core::image_ref::ImageRef;
use larder_registry::{
    Credential, Credentials, HttpOptions, HttpRegistry, Limits, Options, RegistriesConfig, Registry as _,
    RegistryError, RegistryHost, SharedPolicy, address::Policy,
};
use larder_testkit::registry::{Auth, FakeRegistry, MediaTypes, TestImage};

const USER: &str = "larder";
const PASSWORD: &str = "s3cret";

/// Asks every registry over plain HTTP, and gives up early.
fn client() -> Result<HttpRegistry> {
    client_with(plain())
}

fn plain() -> RegistriesConfig {
    let plain = RegistryHost {
        plain_http: true,
        ..RegistryHost::default()
    };
    RegistriesConfig::default().with("*", plain)
}

/// May contact the loopback addresses of the tests.
fn client_with(config: RegistriesConfig) -> Result<HttpRegistry> {
    Ok(HttpRegistry::new(
        config,
        &options(Policy {
            allow_private: true,
            ..Policy::default()
        }),
    )?)
}

fn options(policy: Policy) -> Options {
    Options {
        http: HttpOptions {
            connect_timeout: Duration::from_secs(3),
            policy: SharedPolicy::new(policy),
            ..HttpOptions::default()
        },
        limits: Limits {
            answer_time: Duration::from_secs(3),
            body_time: Duration::from_secs(3),
            ..Limits::default()
        },
        ..Options::default()
    }
}

fn image(registry: &FakeRegistry, rest: &str) -> Result<ImageRef> {
    Ok(ImageRef::parse(&format!("{}/{rest}", registry.host()))?)
}

fn amd64(layer: &str) -> TestImage {
    TestImage::new(MediaTypes::Oci, "linux/amd64", &[layer.as_bytes()])
}

fn basic() -> Auth {
    Auth::Basic {
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
    }
}

/// Everybody gets a token for this repository.
fn token_auth(public: &str) -> Auth {
    Auth::Bearer {
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
        public: vec![public.to_owned()],
        lifetime: Duration::from_mins(5),
    }
}

fn password(password: &str) -> Credential {
    Credential::Basic {
        username: USER.to_owned(),
        password: password.to_owned(),
    }
}

fn right() -> Credentials {
    Credentials::new(vec![password(PASSWORD)])
}

/// Why the client cannot tell the image's digest.
async fn refusal(
    client: &HttpRegistry,
    image: &ImageRef,
    credentials: &Credentials,
) -> Result<RegistryError> {
    let answer = client.digest(image, credentials).await;
    answer.err().context("there was an answer")
}

/// What was asked since the last call: method, the part of the path after the repository, scheme of Authorization.
fn asked(registry: &FakeRegistry) -> Vec<String> {
    let short = |path: &str| {
        let parts: Vec<&str> = path.rsplitn(3, '/').collect();
        if path.starts_with("/v2/") {
            format!("{}/{}", parts[1], parts[0])
        } else {
            path.to_owned()
        }
    };
    let line = |scheme: Option<String>| scheme.map(|s| format!(" {s}")).unwrap_or_default();
    let log = registry.take_log().into_iter();
    log.map(|e| format!("{} {}{}", e.method, short(&e.path), line(e.authorization)))
        .collect()
}
