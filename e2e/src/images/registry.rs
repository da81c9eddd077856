//! Takes images to a registry and away again, by the OCI distribution specification.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, Client, Method, RequestBuilder, Response, StatusCode, Url};

use super::image::media;
use super::{Blob, Descriptor, Error, Image, Platform, sha256_digest};

/// How a registry is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryTarget {
    /// Scheme, host and port, such as `http://127.0.0.1:5000`.
    pub base: String,
    /// User and password for basic authentication.
    pub credentials: Option<(String, String)>,
    /// PEM file with the authority that signed the registry's certificate.
    pub ca_file: Option<PathBuf>,
}

impl RegistryTarget {
    /// A registry that asks for nothing.
    pub fn open(base: &str) -> Self {
        Self {
            base: base.to_owned(),
            ..Self::default()
        }
    }
}

/// What a push has put in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Path in the registry.
    pub repository: String,
    /// Tag that now leads to the image.
    pub tag: String,
    /// Digest that the tag leads to: of the index, or of the only manifest.
    pub digest: String,
    /// Digest of the manifest for each platform.
    pub platforms: Vec<(Platform, String)>,
    /// Bytes of all configs and layers.
    pub size: u64,
}

/// A client for one registry. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Registry {
    base: Url,
    client: Client,
    credentials: Option<(String, String)>,
}

/// Longest time for a connection; the registries of a local cluster are on the same machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence within an answer.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// How much of a refusal is shown.
const SHOWN_BODY: usize = 500;

const MANIFEST_TYPES: [&str; 4] = [
    media::INDEX,
    media::MANIFEST,
    media::DOCKER_LIST,
    media::DOCKER_MANIFEST,
];

impl Registry {
    /// Prepares a client; nothing is sent yet.
    pub fn connect(target: &RegistryTarget) -> Result<Self, Error> {
        let refuse = |what: String| Error::Target {
            base: target.base.clone(),
            what,
        };
        let base = Url::parse(&target.base).map_err(|error| refuse(error.to_string()))?;
        // reqwest takes the process's provider of cryptography; setting it twice is no fault.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT);
        if let Some(path) = &target.ca_file {
            let pem = std::fs::read(path).map_err(Error::file(path))?;
            let authority =
                reqwest::Certificate::from_pem(&pem).map_err(|error| refuse(error.to_string()))?;
            client = client.add_root_certificate(authority);
        }
        let client = client.build().map_err(|error| refuse(error.to_string()))?;
        Ok(Self {
            base,
            client,
            credentials: target.credentials.clone(),
        })
    }

    /// Uploads what the registry lacks and lets `tag` lead to the image, also when it led elsewhere.
    pub async fn push(&self, image: &Image, repository: &str, tag: &str) -> Result<Pushed, Error> {
        for part in &image.content {
            self.push_blob(image, repository, part).await?;
        }
        // What a document names must be there before it.
        for document in image.manifests.iter().chain(&image.indexes) {
            if document.digest != image.root.digest {
                self.push_document(image, repository, document, &document.digest)
                    .await?;
            }
        }
        self.push_document(image, repository, &image.root, tag).await?;
        Ok(Pushed {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            digest: image.digest().to_owned(),
            platforms: image.platforms(),
            size: image.size(),
        })
    }

    /// Lets tag `to` lead to what tag or digest `from` leads to; returns the digest.
    pub async fn retag(&self, repository: &str, from: &str, to: &str) -> Result<String, Error> {
        let url = self.manifest_url(repository, from)?;
        let response = self
            .send(with_accept(self.request(Method::GET, url.clone())), &url)
            .await?;
        let media_type = response.headers().get(CONTENT_TYPE).cloned();
        let bytes = response.bytes().await.map_err(failed(&Method::GET, &url))?;
        let digest = sha256_digest(&bytes);
        let url = self.manifest_url(repository, to)?;
        let mut put = self.request(Method::PUT, url.clone()).body(bytes);
        if let Some(media_type) = media_type {
            put = put.header(CONTENT_TYPE, media_type);
        }
        self.send(put, &url).await?;
        Ok(digest)
    }

    /// Digest that a tag leads to, `None` if the registry has no such image.
    pub async fn digest(&self, repository: &str, reference: &str) -> Result<Option<String>, Error> {
        let url = self.manifest_url(repository, reference)?;
        // GET and not HEAD: the digest of what really comes, whatever a header says.
        let request = with_accept(self.request(Method::GET, url.clone()));
        match self.send(request, &url).await {
            Ok(response) => {
                let bytes = response.bytes().await.map_err(failed(&Method::GET, &url))?;
                Ok(Some(sha256_digest(&bytes)))
            }
            Err(Error::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes the manifest or index that a tag or digest leads to, and with it every tag that leads
    /// there. Returns whether there was one. Its blobs stay until the registry collects them.
    pub async fn delete(&self, repository: &str, reference: &str) -> Result<bool, Error> {
        let Some(digest) = self.digest(repository, reference).await? else {
            return Ok(false);
        };
        let url = self.manifest_url(repository, &digest)?;
        self.send(self.request(Method::DELETE, url.clone()), &url).await?;
        Ok(true)
    }

    async fn push_blob(&self, image: &Image, repository: &str, part: &Descriptor) -> Result<(), Error> {
        let url = self.url(&format!("/v2/{repository}/blobs/{}", part.digest))?;
        match self.send(self.request(Method::HEAD, url.clone()), &url).await {
            Ok(_) => return Ok(()),
            Err(Error::Refused { status: 404, .. }) => {}
            Err(error) => return Err(error),
        }
        let Some(blob) = image.blobs.get(&part.digest) else {
            return Ok(());
        };
        let start = self.url(&format!("/v2/{repository}/blobs/uploads/"))?;
        let response = self
            .send(self.request(Method::POST, start.clone()), &start)
            .await?;
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|location| location.to_str().ok());
        let mut url = self.upload_url(&start, location.unwrap_or_default())?;
        url.query_pairs_mut().append_pair("digest", &part.digest);
        let body = match blob {
            Blob::Memory(bytes) => Body::from(bytes.clone()),
            Blob::File(path) => Body::from(tokio::fs::File::open(path).await.map_err(Error::file(path))?),
        };
        let put = self
            .request(Method::PUT, url.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, part.size)
            .body(body);
        self.send(put, &url).await.map(|_| ())
    }

    async fn push_document(
        &self,
        image: &Image,
        repository: &str,
        document: &Descriptor,
        reference: &str,
    ) -> Result<(), Error> {
        let Some(blob) = image.blobs.get(&document.digest) else {
            return Ok(());
        };
        let url = self.manifest_url(repository, reference)?;
        let put = self
            .request(Method::PUT, url.clone())
            .header(CONTENT_TYPE, &document.media_type)
            .body(blob.read()?);
        self.send(put, &url).await.map(|_| ())
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        self.base.join(path).map_err(|error| Error::Target {
            base: self.base.to_string(),
            what: error.to_string(),
        })
    }

    fn manifest_url(&self, repository: &str, reference: &str) -> Result<Url, Error> {
        self.url(&format!("/v2/{repository}/manifests/{reference}"))
    }

    /// Where an upload goes on. The registry may name itself by an address that only the cluster
    /// knows, so host and port stay the ones we came by.
    fn upload_url(&self, start: &Url, location: &str) -> Result<Url, Error> {
        let answer = start.join(location).map_err(|error| Error::Target {
            base: self.base.to_string(),
            what: error.to_string(),
        })?;
        let mut url = self.base.clone();
        url.set_path(answer.path());
        url.set_query(answer.query());
        Ok(url)
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.client.request(method, url);
        match &self.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder, url: &Url) -> Result<Response, Error> {
        let (client, request) = request.build_split();
        let request = request.map_err(failed(&Method::GET, url))?;
        let method = request.method().clone();
        let response = client.execute(request).await.map_err(failed(&method, url))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refused(
            &method,
            url,
            response.status(),
            response.text().await.unwrap_or_default(),
        ))
    }
}

fn with_accept(request: RequestBuilder) -> RequestBuilder {
    request.header(ACCEPT, MANIFEST_TYPES.join(", "))
}

fn failed(method: &Method, url: &Url) -> impl FnOnce(reqwest::Error) -> Error {
    let (method, url) = (method.to_string(), url.to_string());
    move |source| Error::Request { method, url, source }
}

fn refused(method: &Method, url: &Url, status: StatusCode, body: String) -> Error {
    Error::Refused {
        method: method.to_string(),
        url: url.to_string(),
        status: status.as_u16(),
        body: body.chars().take(SHOWN_BODY).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn uploads_go_on_by_the_address_we_came_by() {
        let registry = Registry::connect(&RegistryTarget::open("http://127.0.0.1:4000")).unwrap();
        let start = registry.url("/v2/a/blobs/uploads/").unwrap();
        for location in [
            "http://10.77.0.2:5000/v2/a/blobs/uploads/x?_state=1",
            "/v2/a/blobs/uploads/x?_state=1",
        ] {
            let url = registry.upload_url(&start, location).unwrap();
            assert_eq!(
                url.as_str(),
                "http://127.0.0.1:4000/v2/a/blobs/uploads/x?_state=1"
            );
        }
    }

    #[test]
    fn an_address_without_a_scheme_is_refused() {
        let error = Registry::connect(&RegistryTarget::open("no address")).unwrap_err();
        assert!(error.to_string().contains("no address"), "{error}");
    }

    #[test]
    fn a_missing_authority_is_named() {
        let target = RegistryTarget {
            ca_file: Some("/nowhere/ca.pem".into()),
            ..RegistryTarget::open("https://127.0.0.1:4000")
        };
        assert!(
            Registry::connect(&target)
                .unwrap_err()
                .to_string()
                .contains("/nowhere/ca.pem")
        );
    }
}
