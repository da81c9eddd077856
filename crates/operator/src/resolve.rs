//! `larder-operator resolve`: what the sources of an `ImageCache` in a file give, without a cluster.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Parser;
use futures::StreamExt as _;
use larder_api::ImageCache;
use larder_api::image_source::{ListFormat, Source};
use larder_core::exclude::Exclude;
use larder_core::image_ref::ImageRef;
use larder_core::images::{exclude, wanted};
use larder_core::message::redact;
use larder_registry::sources::SourceError;
use larder_registry::{Credentials, HttpRegistry, Keyring, Registry};
use serde::Serialize;

use crate::network::NetworkArgs;
use crate::sources::fetch::{Ask, Fetch, Fetched, Network};

/// Digests asked for at a time.
const AT_A_TIME: usize = 8;

/// Prints what the images and sources of an `ImageCache` give, as JSON: {images: [{image, source, app, service, digest}],
/// errors: [{source, app, reason, message}]}. Exits with 1 if something could not be had, with 2 if the file cannot be
/// used. Sources inside a cluster (configMap, workloads) and secrets are not looked at: they are errors.
#[derive(Clone, Debug, Parser)]
#[command(name = "larder-operator resolve", version, about)]
pub struct ResolveArgs {
    /// File with one `ImageCache`, as YAML or JSON.
    #[arg(short = 'f', long)]
    pub file: PathBuf,
    /// Leave registries alone but for sources that are in one.
    #[arg(long)]
    pub no_digests: bool,
    /// How the network is used: as by the operator.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// What is printed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// Each image once for each source that names it.
    pub images: Vec<Image>,
    /// What could not be had.
    pub errors: Vec<Problem>,
}

/// One image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Image {
    /// The reference, normalised.
    pub image: String,
    /// Null for the cache's own images.
    pub source: Option<String>,
    /// The app of an app registry.
    pub app: Option<String>,
    /// Its service.
    pub service: Option<String>,
    /// What the reference means now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// One thing that could not be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Null for the cache's own images.
    pub source: Option<String>,
    /// The app of an app registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// In one word.
    pub reason: String,
    /// In words.
    pub message: String,
}

/// Does it and prints it.
pub async fn run(args: &ResolveArgs) -> anyhow::Result<ExitCode> {
    let resolved = resolve(args).await?;
    println!("{}", serde_json::to_string_pretty(&resolved)?);
    Ok(ExitCode::from(u8::from(!resolved.errors.is_empty())))
}

/// Does it. Fails only if it cannot be begun.
pub async fn resolve(args: &ResolveArgs) -> anyhow::Result<Resolved> {
    let text = std::fs::read_to_string(&args.file)
        .with_context(|| format!("cannot read {}", args.file.display()))?;
    let cache: ImageCache =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is no ImageCache", args.file.display()))?;
    check(&cache).with_context(|| format!("{} cannot be used", args.file.display()))?;
    if cache.spec.images.is_empty() && cache.spec.sources.is_empty() {
        bail!("{}: images or sources must name something", args.file.display());
    }
    let (options, registries) = (args.network.options(), args.network.registries()?);
    let registry = HttpRegistry::new(registries.clone(), &options);
    let registry = Arc::new(registry.context("cannot make a registry client")?);
    let network = Network::new(options.http, registries, Arc::<HttpRegistry>::clone(&registry))
        .context("cannot make a client for sources")?;
    let mut resolved = gather(&cache, &network).await;
    if !args.no_digests {
        digests(&mut resolved, &*registry).await;
    }
    Ok(resolved)
}

/// What the API server would refuse, and would here be passed over.
fn check(cache: &ImageCache) -> anyhow::Result<()> {
    Exclude::parse(cache.spec.exclude.iter().map(String::as_str)).context("spec.exclude")?;
    let mut names = BTreeSet::new();
    for source in &cache.spec.sources {
        let Source {
            name,
            config_map,
            http,
            app_registry,
            workloads,
            registry_tags,
        } = source;
        let kinds = [
            config_map.is_some(),
            http.is_some(),
            app_registry.is_some(),
            workloads.is_some(),
            registry_tags.is_some(),
        ];
        if kinds.into_iter().filter(|is| *is).count() != 1 {
            bail!(
                "spec.sources: {name:?} must have exactly one of configMap, http, appRegistry, workloads and registryTags"
            );
        }
        if http
            .as_ref()
            .is_some_and(|h| (h.format == ListFormat::Json) != h.json_path.is_some())
        {
            bail!("spec.sources: {name:?}: http.jsonPath must be set if http.format is Json, and only then");
        }
        if registry_tags
            .as_ref()
            .is_some_and(|t| t.semver.is_some() == t.regex.is_some())
        {
            bail!("spec.sources: {name:?}: registryTags must have exactly one of semver and regex");
        }
        if name.is_empty() || !names.insert(name) {
            bail!("spec.sources: each must have a name of its own, {name:?} is none");
        }
    }
    Ok(())
}

/// The images of the spec and of the sources that can be asked from here.
pub(crate) async fn gather(cache: &ImageCache, network: &dyn Fetch) -> Resolved {
    let mut resolved = Resolved::default();
    let own = wanted(&cache.spec);
    for image in &own.images {
        resolved.images.push(Image {
            image: image.reference.normalized().to_owned(),
            ..Image::default()
        });
    }
    for (image, error) in own.invalid {
        resolved.errors.push(Problem {
            source: None,
            app: None,
            reason: "InvalidReference".into(),
            message: format!("{image}: {error}"),
        });
    }
    let exclude = exclude(&cache.spec);
    for source in &cache.spec.sources {
        let found = match ask(source, network).await {
            Ok(found) => found,
            Err(error) => {
                resolved.errors.push(problem(source, error));
                continue;
            }
        };
        for named in found.images {
            let Ok(reference) = ImageRef::parse(&named.image) else {
                continue;
            };
            if !exclude.fits(&reference) {
                resolved.images.push(Image {
                    image: reference.normalized().to_owned(),
                    source: Some(source.name.clone()),
                    app: named.app,
                    service: named.service,
                    digest: None,
                });
            }
        }
        for error in found.errors {
            resolved.errors.push(problem(source, error));
        }
    }
    resolved
}

async fn ask(source: &Source, network: &dyn Fetch) -> Result<larder_registry::sources::Found, SourceError> {
    use larder_registry::sources::SourceReason::{Malformed, Unauthorized};
    if source.config_map.is_some() || source.workloads.is_some() {
        return Err(SourceError::new(
            Malformed,
            "is inside a cluster, which is not looked at here",
        ));
    }
    if source.http.as_ref().is_some_and(|h| h.secret_name.is_some()) {
        let words = "needs a secret, which is inside a cluster and not looked at here";
        return Err(SourceError::new(Unauthorized, words));
    }
    let ask = Ask {
        source: source.clone(),
        authorization: None,
        keyring: Keyring::default(),
        etag: None,
    };
    match network.fetch(&ask).await {
        Ok(Fetched::Found { found, .. }) => Ok(found),
        Ok(Fetched::Unchanged) => Ok(larder_registry::sources::Found::default()),
        Err(failure) => Err(failure.error),
    }
}

fn problem(source: &Source, error: SourceError) -> Problem {
    Problem {
        source: Some(source.name.clone()),
        app: error.app,
        reason: error.reason.to_string(),
        message: error.message,
    }
}

/// Asks registries, without credentials, what the references mean.
async fn digests(resolved: &mut Resolved, registry: &dyn Registry) {
    let anybody = Credentials::default();
    let asked = resolved.images.iter().map(|image| {
        let (anybody, image) = (&anybody, image.image.clone());
        async move {
            match ImageRef::parse(&image) {
                Ok(reference) => Some(registry.digest(&reference, anybody).await),
                Err(_) => None,
            }
        }
    });
    let answers: Vec<_> = futures::stream::iter(asked.collect::<Vec<_>>())
        .buffered(AT_A_TIME)
        .collect()
        .await;
    for (image, answer) in resolved.images.iter_mut().zip(answers) {
        match answer {
            Some(Ok(head)) => image.digest = Some(head.digest),
            Some(Err(error)) => resolved.errors.push(Problem {
                source: image.source.clone(),
                app: image.app.clone(),
                reason: error.reason().to_string(),
                message: format!("{}: {}", image.image, redact(&error.to_string())),
            }),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
