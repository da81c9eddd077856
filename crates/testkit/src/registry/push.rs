//! Plain HTTP to a registry, real or fake: without the client that is under test.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};

use super::image::{TestImage, digest_of};

/// A registry, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryUnderTest {
    /// `127.0.0.1:PORT`, as references name it.
    pub host: String,
    /// User and password, where it asks for them.
    pub credentials: Option<(String, String)>,
    /// PEM file of the authority of its certificate; none for plain HTTP.
    pub ca_file: Option<PathBuf>,
}

impl RegistryUnderTest {
    /// A client that trusts the registry.
    pub(super) fn client(&self) -> Result<Client> {
        // An error says that a provider is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder().no_proxy();
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read(path).context("CA file")?;
            for authority in reqwest::Certificate::from_pem_bundle(&pem)? {
                builder = builder.add_root_certificate(authority);
            }
        }
        Ok(builder.build()?)
    }

    /// A request, with the credentials.
    pub(super) fn request(&self, client: &Client, method: Method, path: &str) -> RequestBuilder {
        let request = self.request_of_nobody(client, method, path);
        match &self.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    /// A request without credentials.
    pub(super) fn request_of_nobody(&self, client: &Client, method: Method, path: &str) -> RequestBuilder {
        let url = if path.contains("://") {
            path.to_owned()
        } else {
            format!("{}{path}", self.base())
        };
        client.request(method, url)
    }

    fn base(&self) -> String {
        let scheme = if self.ca_file.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.host)
    }

    /// Pushes the image with all that belongs to it, under a tag. A tag that is there moves.
    pub async fn push(&self, repository: &str, tag: &str, image: &TestImage) -> Result<()> {
        let client = self.client()?;
        for child in &image.children {
            self.push_blobs(&client, repository, child).await?;
            self.push_manifest(&client, repository, &child.digest(), child)
                .await?;
        }
        self.push_blobs(&client, repository, image).await?;
        self.push_manifest(&client, repository, tag, image).await
    }

    async fn push_blobs(&self, client: &Client, repository: &str, image: &TestImage) -> Result<()> {
        for blob in &image.blobs {
            let begin = self.request(client, Method::POST, &format!("/v2/{repository}/blobs/uploads/"));
            let response = expect(begin.send().await?, StatusCode::ACCEPTED).await?;
            let location = response
                .headers()
                .get(header::LOCATION)
                .context("no Location")?
                .to_str()?;
            let joint = if location.contains('?') { '&' } else { '?' };
            let path = format!("{location}{joint}digest={}", digest_of(blob));
            let put = self.request(client, Method::PUT, &path).body(blob.clone());
            let put = put.header(header::CONTENT_TYPE, "application/octet-stream");
            expect(put.send().await?, StatusCode::CREATED).await?;
        }
        Ok(())
    }

    async fn push_manifest(
        &self,
        client: &Client,
        repository: &str,
        reference: &str,
        image: &TestImage,
    ) -> Result<()> {
        let put = self
            .request(
                client,
                Method::PUT,
                &format!("/v2/{repository}/manifests/{reference}"),
            )
            .header(header::CONTENT_TYPE, image.media_type)
            .body(image.manifest.clone());
        expect(put.send().await?, StatusCode::CREATED).await?;
        Ok(())
    }
}

async fn expect(response: Response, status: StatusCode) -> Result<Response> {
    let (got, url) = (response.status(), response.url().clone());
    if got == status {
        return Ok(response);
    }
    bail!("{url}: {got} instead of {status}: {}", response.text().await?)
}
