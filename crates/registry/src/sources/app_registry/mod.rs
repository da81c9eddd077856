//! The app registries of `HeLx` and Tycho: a brand's apps, and the images of their services.
//!
//! A registry is a folder on a web server with `app-registry.yaml`, perhaps `app-defaults.yaml`, and a compose file for
//! each app. The rules, each in a file of its own, in the order in which they are applied:
//!
//! 1. [`contexts`]: the brand is a context; it has the apps of those that it extends, and its own.
//! 2. [`layers`]: the registry's defaults, then the mixins, are laid over the apps.
//! 3. [`repositories`]: where an app's compose file is.
//! 4. [`layers`]: the brand's own blocks named after an app are laid over it.
//! 5. [`template`]: texts of a compose file are templates over the registry's settings.
//! 6. [`services`]: the images of its services.
//!
//! An app that cannot be read costs only itself. Of an app, only `spec` (the address of its compose file) bears on its
//! images, so nothing else of it is kept, and laying one map over another comes down to that key.

mod contexts;
mod layers;
mod repositories;
mod services;
mod template;
mod yaml;

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use url::Url;

use self::contexts::{App, Apps};
use self::template::Templates;
use self::yaml::Yaml;
#[cfg(test)]
use super::SourceImage;
use super::{Collector, Found, MAX_DOCUMENT_BYTES, SourceError, SourceReason, apart};

/// Apps of one brand.
pub const MAX_APPS: usize = 500;
/// Bytes of a compose file.
pub const MAX_COMPOSE_BYTES: usize = 1024 * 1024;
/// Compose files asked for at a time.
const CONCURRENT_FETCHES: usize = 4;

/// Fetches the registry's documents.
#[async_trait]
pub trait Documents: Send + Sync {
    /// The document at an absolute http or https URL, of at most so many bytes; anything but the status 200 is an error.
    async fn get(&self, url: &str, at_most: usize) -> Result<Document, FetchError>;
}

/// What was fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Its bytes.
    pub body: Vec<u8>,
}

/// Why a document could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FetchError {
    /// The class.
    pub reason: SourceReason,
    /// Code and class in words, nothing of the body.
    pub message: String,
}

/// Reads what a brand of a registry needs. `url` is the registry's folder, with its branch, as
/// `https://raw.githubusercontent.com/helxplatform/helx-apps/main`.
///
/// Fails when there is nothing to go by: the registry cannot be fetched or read, has no such brand, or names too much.
/// The errors beside the images are about single apps, or the defaults.
pub async fn read(documents: &dyn Documents, url: &str, brand: &str) -> Result<Found, SourceError> {
    let base = folder(url)?;
    let registry = text(documents, &join(&base, "app-registry.yaml")?, MAX_DOCUMENT_BYTES).await?;
    let defaults = text(documents, &join(&base, "app-defaults.yaml")?, MAX_DOCUMENT_BYTES).await;
    let selection = {
        let (base, brand) = (base.clone(), brand.to_owned());
        apart(move || select(&registry, defaults, &base, &brand)).await?
    };
    let mut collector = Collector::default();
    if let Some(flaw) = selection.flaw {
        collector.error(flaw);
    }
    let templates = Arc::new(selection.templates);

    let read_one = |(id, app): (String, App)| {
        let (base, templates) = (&base, &templates);
        async move {
            let images = images_of(documents, base, Arc::clone(templates), &id, app).await;
            (id, images)
        }
    };
    let mut read =
        futures::stream::iter(selection.apps.into_iter().map(read_one)).buffered(CONCURRENT_FETCHES);
    while let Some((id, images)) = read.next().await {
        match images {
            Ok(services) => {
                for service in services {
                    if let Err((reason, problem)) = take(&mut collector, &id, &service) {
                        let message = format!("service {:?}: {problem}", shorten(&service.name));
                        collector.error(SourceError::of_app(&id, reason, message));
                    }
                }
            }
            Err(error) => {
                if error.reason.may_pass() {
                    collector.found.apps.insert(id.clone(), None);
                }
                collector.error(SourceError::of_app(&id, error.reason, error.message));
            }
        }
    }
    collector.finish()
}

/// What a registry says of a brand.
struct Selection {
    apps: Apps,
    templates: Templates,
    /// What is wrong with the defaults.
    flaw: Option<SourceError>,
}

fn select(
    registry: &Text,
    defaults: Result<Text, SourceError>,
    base: &Url,
    brand: &str,
) -> Result<Selection, SourceError> {
    let registry = registry.parse()?;
    if registry.as_map().is_none() {
        let message = "app-registry.yaml is not a map";
        return Err(SourceError::new(SourceReason::Malformed, message));
    }
    let mut apps = contexts::select(&registry, brand)?;
    let flaw = match defaults.and_then(|text| text.parse()) {
        Ok(defaults) => {
            layers::defaults(&defaults, &mut apps);
            None
        }
        // Most registries have none, and stores that may not be listed refuse (403) what they do not have.
        Err(error) => Some(error)
            .filter(|error| !matches!(error.reason, SourceReason::NotFound | SourceReason::Unauthorized)),
    };
    layers::mixins(&registry, brand, &mut apps)?;
    repositories::locate(&registry, base, &mut apps);
    layers::overrides(&registry, brand, &mut apps);
    Ok(Selection {
        apps,
        templates: Templates::new(registry.get("settings"))?,
        flaw,
    })
}

fn take(
    collector: &mut Collector,
    id: &str,
    service: &services::Service,
) -> Result<(), (SourceReason, String)> {
    let image = service.image.as_ref().map_err(Clone::clone)?;
    collector
        .add(image, Some(id), Some(&service.name))
        .map_err(|error| {
            let problem = format!("{:?}: {error}", shorten(image));
            (SourceReason::InvalidReference, problem)
        })
}

async fn images_of(
    documents: &dyn Documents,
    base: &Url,
    templates: Arc<Templates>,
    id: &str,
    app: App,
) -> Result<Vec<services::Service>, SourceError> {
    let address = app.address(id)?;
    let spec = text(documents, &join(base, &address)?, MAX_COMPOSE_BYTES).await?;
    apart(move || services::images(&spec.parse()?, &templates)).await
}

/// A document, not parsed yet.
struct Text {
    url: Url,
    body: Vec<u8>,
}

async fn text(documents: &dyn Documents, url: &Url, at_most: usize) -> Result<Text, SourceError> {
    let document = documents.get(url.as_str(), at_most).await;
    let body = document
        .map_err(|error| in_document(url, error.reason, &error.message))?
        .body;
    if body.len() > at_most {
        let problem = format!("{} bytes, at most {at_most} are allowed", body.len());
        return Err(in_document(url, SourceReason::TooLarge, &problem));
    }
    Ok(Text {
        url: url.clone(),
        body,
    })
}

impl Text {
    fn parse(&self) -> Result<Yaml, SourceError> {
        let text = std::str::from_utf8(&self.body)
            .map_err(|_| in_document(&self.url, SourceReason::Malformed, "not UTF-8"))?;
        yaml::parse(text).map_err(|error| in_document(&self.url, error.reason, &error.message))
    }
}

fn in_document(url: &Url, reason: SourceReason, problem: &str) -> SourceError {
    SourceError::new(reason, format!("{}: {problem}", shown(url)))
}

/// The folder that everything else is relative to.
fn folder(url: &str) -> Result<Url, SourceError> {
    let wrong =
        |problem: &str| SourceError::new(SourceReason::Malformed, format!("the registry's url {problem}"));
    let mut url = Url::parse(url).map_err(|error| wrong(&format!("is none: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("is neither http nor https"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    url.set_fragment(None);
    Ok(url)
}

fn join(base: &Url, address: &str) -> Result<Url, SourceError> {
    let joined = base.join(address).ok();
    joined
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| {
            let message = format!("{:?} is no http or https address", shorten(address));
            SourceError::new(SourceReason::Malformed, message)
        })
}

/// For messages: without user, password and query.
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    shorten(&format!("{}://{host}{port}{}", url.scheme(), url.path())).to_owned()
}

/// At most 150 characters.
fn shorten(text: &str) -> &str {
    match text.char_indices().nth(150) {
        Some((at, _)) => &text[..at],
        None => text,
    }
}

#[cfg(test)]
mod tests;
