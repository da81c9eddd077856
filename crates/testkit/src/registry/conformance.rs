//! What every registry does, the fake like the real one, and what the client makes of it.

use anyhow::{Context, Result};
use larder_api::names::Reason;
use larder_core::image_ref::ImageRef;
use larder_registry::{
    Credential, Credentials, HttpRegistry, Options, Platform, RegistriesConfig, Registry, RegistryHost, Tags,
};
use reqwest::{Client, Method, Response, header};
use serde_json::Value;

use super::{
    image::{MediaTypes, TestImage, digest_of},
    push::RegistryUnderTest,
};

/// Runs every assertion against the registry, in repositories `conformance/…` that it fills itself. An assertion that does
/// not hold panics; an error is a failure of the transport.
pub async fn conformance(registry: RegistryUnderTest) -> Result<()> {
    let client = registry.client()?;
    for types in [MediaTypes::Oci, MediaTypes::Docker] {
        let repository = format!("conformance/{types:?}").to_lowercase();
        manifests(&registry, &client, &repository, types).await?;
        a_tag_moves(&registry, &client, &repository, types).await?;
    }
    refusals(&registry, &client).await?;
    if registry.credentials.is_some() {
        nobody_is_refused(&registry, &client).await?;
    }
    tags(&registry, &client).await?;
    the_client_reads_it(&registry).await?;
    the_client_names_refusals(&registry).await
}

fn index(types: MediaTypes) -> TestImage {
    TestImage::index(vec![
        TestImage::new(types, "linux/amd64", &[b"amd64 layer", b"shared layer"]),
        TestImage::new(types, "linux/arm64/v8", &[b"arm64"]),
        TestImage::new(types, "windows/amd64", &[b"windows"]),
    ])
}

fn header_of<'a>(response: &'a Response, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
}

async fn manifests(
    registry: &RegistryUnderTest,
    client: &Client,
    repository: &str,
    types: MediaTypes,
) -> Result<()> {
    let image = index(types);
    registry.push(repository, "1", &image).await?;
    for reference in ["1", &image.digest()] {
        for method in [Method::HEAD, Method::GET] {
            let path = format!("/v2/{repository}/manifests/{reference}");
            let request = registry
                .request(client, method.clone(), &path)
                .header(header::ACCEPT, image.media_type);
            let response = request.send().await?;
            assert_eq!(response.status(), 200, "{method} {path}");
            assert_eq!(
                header_of(&response, "docker-content-digest"),
                image.digest(),
                "{method} {path}"
            );
            assert_eq!(
                header_of(&response, "content-type"),
                image.media_type,
                "{method} {path}"
            );
            assert_eq!(
                header_of(&response, "content-length"),
                image.manifest.len().to_string()
            );
            let expected: &[u8] = if method == Method::GET {
                &image.manifest
            } else {
                b""
            };
            let etag = header_of(&response, "etag").to_owned();
            assert_eq!(response.bytes().await?, expected, "{method} {path}");
            let again = registry
                .request(client, method.clone(), &path)
                .header(header::ACCEPT, image.media_type)
                .header(header::IF_NONE_MATCH, &etag);
            assert_eq!(again.send().await?.status(), 304, "{method} {path} unless {etag}");
        }
    }
    let blob = image.children[0].blobs[1].clone();
    let path = format!("/v2/{repository}/blobs/{}", digest_of(&blob));
    let response = registry.request(client, Method::GET, &path).send().await?;
    assert_eq!(response.bytes().await?, blob);
    Ok(())
}

async fn a_tag_moves(
    registry: &RegistryUnderTest,
    client: &Client,
    repository: &str,
    types: MediaTypes,
) -> Result<()> {
    let old = TestImage::new(types, "linux/amd64", &[b"old"]);
    let new = TestImage::new(types, "linux/amd64", &[b"new"]);
    for image in [&old, &new] {
        registry.push(repository, "moving", image).await?;
        let path = format!("/v2/{repository}/manifests/moving");
        let head = registry
            .request(client, Method::HEAD, &path)
            .header(header::ACCEPT, image.media_type);
        assert_eq!(
            header_of(&head.send().await?, "docker-content-digest"),
            image.digest()
        );
    }
    let path = format!("/v2/{repository}/manifests/{}", old.digest());
    let get = registry
        .request(client, Method::GET, &path)
        .header(header::ACCEPT, old.media_type);
    assert_eq!(get.send().await?.bytes().await?, old.manifest);
    Ok(())
}

async fn code_of(response: Response) -> Result<String> {
    let body: Value = serde_json::from_slice(&response.bytes().await?).context("an error's body")?;
    assert_ne!(body["errors"][0]["message"], Value::Null, "{body}");
    Ok(body["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
}

async fn refusals(registry: &RegistryUnderTest, client: &Client) -> Result<()> {
    let digest = digest_of(b"nowhere");
    let table = [
        ("manifests", "nowhere", "MANIFEST_UNKNOWN"),
        ("manifests", &digest, "MANIFEST_UNKNOWN"),
        ("blobs", &digest, "BLOB_UNKNOWN"),
    ];
    for (kind, reference, code) in table {
        let path = format!("/v2/conformance/oci/{kind}/{reference}");
        let response = registry.request(client, Method::GET, &path).send().await?;
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(code_of(response).await?, code, "{path}");
        let response = registry.request(client, Method::HEAD, &path).send().await?;
        assert_eq!(response.status(), 404, "HEAD {path}");
    }
    let begin = registry
        .request(client, Method::POST, "/v2/conformance/oci/blobs/uploads/")
        .send()
        .await?;
    let location = header_of(&begin, "location");
    let path = format!("{location}&digest={digest}");
    let response = registry
        .request(client, Method::PUT, &path)
        .body("something else")
        .send()
        .await?;
    assert_eq!(response.status(), 400);
    assert_eq!(code_of(response).await?, "DIGEST_INVALID");
    Ok(())
}

async fn nobody_is_refused(registry: &RegistryUnderTest, client: &Client) -> Result<()> {
    for path in ["/v2/", "/v2/conformance/oci/manifests/1"] {
        let response = registry
            .request_of_nobody(client, Method::GET, path)
            .send()
            .await?;
        assert_eq!(response.status(), 401, "{path}");
        let challenge = header_of(&response, "www-authenticate").to_owned();
        assert!(challenge.starts_with("Basic realm="), "{challenge}");
        assert_eq!(code_of(response).await?, "UNAUTHORIZED", "{path}");
        let response = registry
            .request_of_nobody(client, Method::GET, path)
            .basic_auth("x", Some("y"));
        assert_eq!(response.send().await?.status(), 401, "{path}");
    }
    assert_eq!(
        registry
            .request(client, Method::GET, "/v2/")
            .send()
            .await?
            .status(),
        200
    );
    Ok(())
}

/// Page by page. Registries that take no notice of `n` say everything at once, and no more than that.
async fn tags(registry: &RegistryUnderTest, http: &Client) -> Result<()> {
    const TAGS: [&str; 5] = ["1.0", "1.1", "1.10", "latest", "v2"];
    let repository = "conformance/tags";
    for (n, tag) in TAGS.iter().enumerate() {
        let image = TestImage::new(MediaTypes::Oci, "linux/amd64", &[&[n as u8]]);
        registry.push(repository, tag, &image).await?;
    }
    let mut found = Vec::new();
    let mut path = format!("/v2/{repository}/tags/list?n=2");
    for _ in TAGS {
        let response = registry.request(http, Method::GET, &path).send().await?;
        assert_eq!(response.status(), 200, "{path}");
        let next = header_of(&response, "link").to_owned();
        let page: Value = serde_json::from_slice(&response.bytes().await?)?;
        assert_eq!(page["name"], repository);
        let page = page["tags"].as_array().context("no tags")?.iter();
        found.extend(page.filter_map(|tag| tag.as_str().map(str::to_owned)));
        match next.split_once("; ") {
            Some((target, "rel=\"next\"")) => path = target.trim_matches(['<', '>']).to_owned(),
            _ => break,
        }
    }
    found.sort();
    assert_eq!(found, TAGS);

    let (credentials, whole) = (credentials(registry), format!("{}/{repository}", registry.host));
    let whole = ImageRef::parse(&whole)?;
    for tags_per_page in [1, 2, 5, 1000] {
        let options = Options {
            tags_per_page,
            ..Options::default()
        };
        let mut found = client_with(registry, &options)?
            .tags(&whole, &credentials)
            .await?;
        found.sort();
        assert_eq!(found, TAGS, "{tags_per_page} a page");
    }
    let nowhere = ImageRef::parse(&format!("{}/conformance/nowhere", registry.host))?;
    let refused = client(registry)?.tags(&nowhere, &credentials).await.err();
    assert_eq!(refused.map(|e| e.reason()), Some(Reason::NotFound));
    Ok(())
}

fn client(registry: &RegistryUnderTest) -> Result<HttpRegistry> {
    client_with(registry, &Options::default())
}

fn client_with(registry: &RegistryUnderTest, options: &Options) -> Result<HttpRegistry> {
    let how = RegistryHost {
        mirror: None,
        plain_http: registry.ca_file.is_none(),
        ca_file: registry.ca_file.clone(),
        // It is at a loopback address.
        allow_private: true,
    };
    let config = RegistriesConfig::default().with(&registry.host, how);
    Ok(HttpRegistry::new(config, options)?)
}

fn credentials(registry: &RegistryUnderTest) -> Credentials {
    let basic = |(username, password): (String, String)| Credential::Basic { username, password };
    Credentials::new(registry.credentials.clone().map(basic).into_iter().collect())
}

async fn the_client_reads_it(registry: &RegistryUnderTest) -> Result<()> {
    let (client, credentials) = (client(registry)?, credentials(registry));
    let amd64 = Platform::new("linux", "amd64");
    let arm64 = Platform::new("linux", "arm64");
    for (types, repository) in [
        (MediaTypes::Oci, "conformance/oci"),
        (MediaTypes::Docker, "conformance/docker"),
    ] {
        let expected = index(types);
        let by_tag = ImageRef::parse(&format!("{}/{repository}:1", registry.host))?;
        let by_digest = ImageRef::parse(&format!("{}/{repository}@{}", registry.host, expected.digest()))?;
        for image in [&by_tag, &by_digest] {
            let head = client.digest(image, &credentials).await?;
            assert_eq!(head.digest, expected.digest());
            assert_eq!(head.private, registry.credentials.is_some());
        }
        let found = client
            .platforms(
                &by_tag,
                &expected.digest(),
                &credentials,
                &[amd64.clone(), arm64.clone()],
            )
            .await?;
        let found: Vec<_> = found
            .iter()
            .map(|p| {
                (
                    p.architecture.as_str(),
                    p.variant.as_deref(),
                    p.digest.clone(),
                    p.size_bytes,
                )
            })
            .collect();
        let (first, second) = (&expected.children[0], &expected.children[1]);
        assert_eq!(
            found,
            [
                ("amd64", None, first.digest(), first.size_bytes()),
                ("arm64", Some("v8"), second.digest(), second.size_bytes()),
            ]
        );
        assert_eq!(
            client
                .platforms(&by_tag, &expected.digest(), &credentials, &[])
                .await?
                .len(),
            3
        );

        let single = ImageRef::parse(&format!("{}/{repository}:moving", registry.host))?;
        let digest = client.digest(&single, &credentials).await?.digest;
        let found = client
            .platforms(&single, &digest, &credentials, std::slice::from_ref(&amd64))
            .await?;
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].os.as_str(), &found[0].digest), ("linux", &digest));
        let found = client
            .platforms(&single, &digest, &credentials, std::slice::from_ref(&arm64))
            .await?;
        assert_eq!(found, []);
    }
    Ok(())
}

async fn the_client_names_refusals(registry: &RegistryUnderTest) -> Result<()> {
    let (client, credentials) = (client(registry)?, credentials(registry));
    let there = ImageRef::parse(&format!("{}/conformance/oci:1", registry.host))?;
    let not_there = ImageRef::parse(&format!("{}/conformance/oci:nowhere", registry.host))?;
    let refused = async |image: &ImageRef, credentials: &Credentials| {
        let answer = client.digest(image, credentials).await;
        answer.err().map(|e| (e.reason(), e.to_string()))
    };
    let (reason, words) = refused(&not_there, &credentials)
        .await
        .context("found what is not there")?;
    assert_eq!(
        (reason, words.as_str()),
        (Reason::NotFound, "404 Not Found: manifest unknown")
    );

    if registry.credentials.is_some() {
        let (reason, words) = refused(&there, &Credentials::anonymous())
            .await
            .context("anybody may")?;
        assert_eq!(reason, Reason::CredentialsMissing);
        assert!(
            words.ends_with("401 Unauthorized: authentication required"),
            "{words}"
        );
        let wrong = Credential::Basic {
            username: "larder".to_owned(),
            password: "wr0ng".to_owned(),
        };
        let wrong = Credentials::new(vec![wrong]);
        let (reason, words) = refused(&there, &wrong)
            .await
            .context("a wrong password is good enough")?;
        assert_eq!(reason, Reason::Unauthorized);
        assert!(!words.contains("wr0ng"), "{words}");
    }
    Ok(())
}
